"""A follower's inbox as apps see it: what is in it, how much is unread, and what the follower did with it.

Reads leave out what has expired, for MongoDB's TTL task removes it only once a minute. All statements repeat themselves
for a few seconds while the database is away; after that they raise PyMongoError.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta
from typing import Any, TypeVar

from bson import ObjectId

from followers.mongo import Position, collection, durably, older_than
from notifications.models import InAppEntry

Document = dict[str, Any]
T = TypeVar("T")

PAGE = 200
RESUME_OVERLAP = timedelta(seconds=60)
"""An entry is made a little before it is stored, by a host with its own clock: an app that asks for what came after the
newest one it knows is given this much more, and drops what it has."""
PATIENCE_SECONDS = 3.0  # A person waits for these, unlike for the workers' statements.


def newest(follower_id: ObjectId, now: datetime, limit: int) -> list[Document]:
    """The newest entries, newest first. Index: notifications_inappentry (follower_id, created_at, _id)."""
    query = _visible(follower_id, now)
    return _patiently(
        lambda: list(collection(InAppEntry).find(query).sort([("created_at", -1), ("_id", -1)]).limit(limit))
    )


def page(
    follower_id: ObjectId, now: datetime, limit: int, after: Position | None, since: datetime | None
) -> list[Document]:
    """Entries newest first, from the one after (created_at, _id) on; with `since`, only those made later than it.

    Index: notifications_inappentry (follower_id, created_at, _id).
    """
    later: Document = {"created_at": {"$gt": since}} if since else {}
    query = {**_visible(follower_id, now), "$and": [older_than(after), later]}
    rows = collection(InAppEntry)
    return _patiently(
        lambda: list(rows.find(query).sort([("created_at", -1), ("_id", -1)]).hint(INBOX_INDEX).limit(limit))
    )


def pages_since(follower_id: ObjectId, since: datetime, now: datetime) -> Iterator[list[Document]]:
    """All entries made after `since` or up to RESUME_OVERLAP before it, oldest first, in pages of PAGE.

    Index: notifications_inappentry (follower_id, created_at, _id).
    """
    after: Document = {"created_at": {"$gte": since - RESUME_OVERLAP}}
    while page := _page(follower_id, after, now):
        yield page
        if len(page) < PAGE:
            return
        at, last = page[-1]["created_at"], page[-1]["_id"]
        after = {"$or": [{"created_at": {"$gt": at}}, {"created_at": at, "_id": {"$gt": last}}]}


def _page(follower_id: ObjectId, after: Document, now: datetime) -> list[Document]:
    query = {**_visible(follower_id, now), **after}
    return _patiently(
        lambda: list(collection(InAppEntry).find(query).sort([("created_at", 1), ("_id", 1)]).limit(PAGE))
    )


def read_times(follower_id: ObjectId, known: Collection[ObjectId], now: datetime) -> dict[ObjectId, datetime | None]:
    """When each of the known entries was read, None = it is unread. Those that left the inbox are not in it."""
    query = {**_visible(follower_id, now), "_id": {"$in": list(known)}}
    return _patiently(lambda: {e["_id"]: e["read_at"] for e in collection(InAppEntry).find(query, {"read_at": 1})})


INBOX_INDEX = {"follower_id": 1, "created_at": -1, "_id": -1}
"""Named as a hint: for a few hundred followers the planner takes the TTL index, and reads everybody's inbox."""


def unread_counts(follower_ids: Collection[ObjectId], now: datetime) -> dict[ObjectId, int]:
    """How many unread entries each follower has; 0 included. Index: (follower_id, created_at, _id)."""
    unread = {
        "follower_id": {"$in": list(follower_ids)},
        "expires_at": {"$gt": now},
        "archived_at": None,
        "read_at": None,
    }
    pipeline: list[Document] = [{"$match": unread}, {"$group": {"_id": "$follower_id", "count": {"$sum": 1}}}]
    counted = _patiently(
        lambda: {row["_id"]: row["count"] for row in collection(InAppEntry).aggregate(pipeline, hint=INBOX_INDEX)}
    )
    return {follower: counted.get(follower, 0) for follower in follower_ids}


def unread_count(follower_id: ObjectId, now: datetime) -> int:
    return unread_counts([follower_id], now)[follower_id]


def mark_read(follower_id: ObjectId, entry_id: ObjectId, now: datetime) -> bool:
    """unread → read; what was read before keeps its time. Returns whether the follower has such an entry."""
    return _change_once(follower_id, entry_id, "read_at", now)


def mark_unread(follower_id: ObjectId, entry_id: ObjectId, now: datetime) -> bool:
    """read → unread. Returns whether there is such an entry in the inbox: what has left it cannot be new again."""
    mine = {**_visible(follower_id, now), "_id": entry_id}
    return _patiently(lambda: collection(InAppEntry).update_one(mine, {"$set": {"read_at": None}})).matched_count == 1


def archive(follower_id: ObjectId, entry_id: ObjectId, now: datetime) -> bool:
    """In the inbox → archived, once. Returns whether the follower has such an entry."""
    return _change_once(follower_id, entry_id, "archived_at", now)


def _change_once(follower_id: ObjectId, entry_id: ObjectId, field: str, now: datetime) -> bool:
    """Sets a time that is not set yet. Returns whether the follower has such an entry."""
    mine = {"_id": entry_id, "follower_id": follower_id}
    unset = {**mine, field: None}
    if _patiently(lambda: collection(InAppEntry).update_one(unset, {"$set": {field: now}})).matched_count:
        return True
    return _patiently(lambda: collection(InAppEntry).find_one(mine, {"_id": 1})) is not None


def mark_many_read(
    follower_id: ObjectId, now: datetime, ids: Collection[ObjectId] | None = None, before: datetime | None = None
) -> list[ObjectId]:
    """unread → read, of these entries or of all made up to `before`. Returns those that were unread."""
    return _change_many(follower_id, "read_at", now, now, ids, before)


def mark_many_unread(
    follower_id: ObjectId, now: datetime, ids: Collection[ObjectId] | None = None, before: datetime | None = None
) -> list[ObjectId]:
    """read → unread, of these entries or of all made up to `before`. Returns those that were read."""
    return _change_many(follower_id, "read_at", None, now, ids, before)


def archive_many(
    follower_id: ObjectId, now: datetime, ids: Collection[ObjectId] | None = None, before: datetime | None = None
) -> list[ObjectId]:
    """In the inbox → archived, of these entries or of all made up to `before`. Returns those that left it."""
    return _change_many(follower_id, "archived_at", now, now, ids, before)


def _change_many(
    follower_id: ObjectId,
    field: str,
    value: datetime | None,
    now: datetime,
    ids: Collection[ObjectId] | None,
    before: datetime | None,
) -> list[ObjectId]:
    """Sets a time that is not set yet, or takes away (None) one that is. Returns the entries that it was done to.

    Index: _id, or notifications_inappentry (follower_id, created_at, _id).
    """
    which: Document = {"_id": {"$in": list(ids)}} if ids is not None else {"created_at": {"$lte": before}}
    not_yet = {field: {"$ne": None} if value is None else None}
    query = {**_visible(follower_id, now), **which, **not_yet}
    hint = "_id_" if ids is not None else INBOX_INDEX
    found = _patiently(lambda: [entry["_id"] for entry in collection(InAppEntry).find(query, {"_id": 1}, hint=hint)])
    if found:
        these = {"_id": {"$in": found}, **not_yet}
        _patiently(lambda: collection(InAppEntry).update_many(these, {"$set": {field: value}}))
    return found


def made_between(follower_ids: Collection[ObjectId], since: datetime, until: datetime) -> dict[ObjectId, set[ObjectId]]:
    """Follower → the ids of their entries made then. Answered by the index alone: (follower_id, created_at, _id)."""
    query = {"follower_id": {"$in": list(follower_ids)}, "created_at": {"$gte": since, "$lt": until}}
    fields = {"follower_id": 1, "_id": 1}
    made: dict[ObjectId, set[ObjectId]] = {}
    for row in _patiently(lambda: list(collection(InAppEntry).find(query, fields, hint=INBOX_INDEX))):
        made.setdefault(row["follower_id"], set()).add(row["_id"])
    return made


def entries(follower_id: ObjectId, ids: Collection[ObjectId], now: datetime) -> list[Document]:
    """Those of the entries that are in the follower's inbox, oldest first."""
    query = {**_visible(follower_id, now), "_id": {"$in": list(ids)}}
    return sorted(
        _patiently(lambda: list(collection(InAppEntry).find(query))), key=lambda e: (e["created_at"], e["_id"])
    )


def _visible(follower_id: ObjectId, now: datetime) -> Document:
    return {"follower_id": follower_id, "expires_at": {"$gt": now}, "archived_at": None}


def _patiently(statement: Callable[[], T]) -> T:
    return durably(statement, PATIENCE_SECONDS)
