"""A follower's inbox as apps see it: what is in it, how much is unread, and what the follower did with it.

Reads leave out what has expired, for MongoDB's TTL task removes it only once a minute. All statements repeat themselves
for a few seconds while the database is away; after that they raise PyMongoError.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta
from typing import Any, TypeVar

from bson import ObjectId

from followers.choices import Channel
from followers.mongo import collection, durably
from notifications.choices import DeliveryState
from notifications.models import InAppEntry, Notification
from notifications.statements import change_deliveries, ended

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
    follower_id: ObjectId, now: datetime, limit: int, after: tuple[datetime, ObjectId] | None, since: datetime | None
) -> list[Document]:
    """Entries newest first, from the one after (created_at, _id) on; with `since`, only those made later than it.

    Index: notifications_inappentry (follower_id, created_at, _id).
    """
    made: Document = {**({"$lte": after[0]} if after else {}), **({"$gt": since} if since else {})}
    query = {**_visible(follower_id, now), **({"created_at": made} if made else {})}
    if after:
        query["$or"] = [{"created_at": {"$lt": after[0]}}, {"_id": {"$lt": after[1]}}]
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


def gone(follower_id: ObjectId, known: Collection[ObjectId], now: datetime) -> list[ObjectId]:
    """Those of the known entries that are no longer in the inbox, in the order given."""
    query = {**_visible(follower_id, now), "_id": {"$in": list(known)}}
    present = _patiently(lambda: {e["_id"] for e in collection(InAppEntry).find(query, {"_id": 1})})
    return [entry for entry in known if entry not in present]


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


def acknowledge(follower_id: ObjectId, notification_id: ObjectId, now: datetime) -> bool:
    """in_app sent → delivered: the app has the alert. Once acknowledged it stays so, with its first time.

    Returns whether the follower has such an alert. Its entry may be gone from the inbox by now.
    """
    mine = {"_id": notification_id, "follower_id": follower_id}
    waiting = {"channel": Channel.IN_APP.value, "state": DeliveryState.SENT.value}
    here = {"$and": [{"$eq": [f"$$d.{name}", value]} for name, value in waiting.items()]}
    change = change_deliveries(here, {**ended(DeliveryState.DELIVERED), "delivered_at": now})
    query = {**mine, "deliveries": {"$elemMatch": waiting}}
    if _patiently(lambda: collection(Notification).update_one(query, change)).matched_count:
        return True
    return _patiently(lambda: collection(Notification).find_one(mine, {"_id": 1})) is not None


def mark_read(follower_id: ObjectId, entry_id: ObjectId, now: datetime) -> bool:
    """unread → read; what was read before keeps its time. Returns whether the follower has such an entry."""
    mine = {"_id": entry_id, "follower_id": follower_id}
    unread = {**mine, "read_at": None}
    if _patiently(lambda: collection(InAppEntry).update_one(unread, {"$set": {"read_at": now}})).matched_count:
        return True
    return _patiently(lambda: collection(InAppEntry).find_one(mine, {"_id": 1})) is not None


def mark_unread(follower_id: ObjectId, entry_id: ObjectId, now: datetime) -> bool:
    """read → unread. Returns whether the follower has such an entry."""
    mine = {"_id": entry_id, "follower_id": follower_id}
    return _patiently(lambda: collection(InAppEntry).update_one(mine, {"$set": {"read_at": None}})).matched_count == 1


def archive(follower_id: ObjectId, entry_id: ObjectId, now: datetime) -> bool:
    """In the inbox → archived, once. Returns whether the follower has such an entry."""
    mine = {"_id": entry_id, "follower_id": follower_id}
    shown = {**mine, "archived_at": None}
    if _patiently(lambda: collection(InAppEntry).update_one(shown, {"$set": {"archived_at": now}})).matched_count:
        return True
    return _patiently(lambda: collection(InAppEntry).find_one(mine, {"_id": 1})) is not None


def mark_many_read(
    follower_id: ObjectId, now: datetime, ids: Collection[ObjectId] | None = None, before: datetime | None = None
) -> int:
    """unread → read, of these entries or of all made up to `before`. Returns how many were unread.

    Index: _id, or notifications_inappentry (follower_id, created_at, _id).
    """
    which: Document = {"_id": {"$in": list(ids)}} if ids is not None else {"created_at": {"$lte": before}}
    query = {**_visible(follower_id, now), **which, "read_at": None}
    hint = "_id_" if ids is not None else INBOX_INDEX
    change = {"$set": {"read_at": now}}
    return _patiently(lambda: collection(InAppEntry).update_many(query, change, hint=hint)).modified_count


def _visible(follower_id: ObjectId, now: datetime) -> Document:
    return {"follower_id": follower_id, "expires_at": {"$gt": now}, "archived_at": None}


def _patiently(statement: Callable[[], T]) -> T:
    return durably(statement, PATIENCE_SECONDS)
