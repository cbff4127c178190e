"""Erased followers: what is removed here, and how whoever writes at the same moment finds out.

The order makes it safe. An erasure is written down first, and then removes what is stored. Whoever stores something
about a follower looks for an erasure afterwards, and removes what they have stored. Either the erasure finds what they
wrote, or they find the erasure.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, cast

from bson import ObjectId
from django.conf import settings
from django.contrib.admin.models import LogEntry
from pymongo import ReturnDocument
from pymongo.errors import PyMongoError

from followers import clock
from followers.models import Endpoint, Erasure, Follow, Follower
from followers.mongo import REPEAT_FOR_SECONDS, collection, durably, is_passing

Document = dict[str, Any]

PATIENCE_SECONDS = 3.0  # For what a person waits for.

MARGIN = timedelta(seconds=REPEAT_FOR_SECONDS) + timedelta(minutes=5)
"""An erasure's time is taken before it is written, and by another host's clock."""


def external_id_hash(external_id: str) -> str:
    """Keyed, so that nobody can find out by trying who was erased."""
    return hmac.new(settings.ENDPOINT_HASH_KEY, b"erased follower\0" + external_id.encode(), hashlib.sha256).hexdigest()


def begin(external_id: str, now: datetime) -> Document | None:
    """Writes down that the follower is erased from now on. None = nobody of that id is or was stored.

    One who is erased already is erased once more: what an earlier try left behind goes too.
    Index: followers_follower (external_id); followers_erasure (external_id_hash, erased_at).
    """
    hashed = external_id_hash(external_id)
    follower = durably(lambda: collection(Follower).find_one({"external_id": external_id}, {"_id": 1}))
    if follower is None:
        query = {"external_id_hash": hashed}
        follower = durably(lambda: collection(Erasure).find_one(query, {"_id": 1}, sort=[("erased_at", -1)]))
    if follower is None:
        return None
    change = {
        "$set": {"erased_at": now, "keeps_notifications": settings.ERASURE_KEEPS_NOTIFICATIONS},
        "$setOnInsert": {"external_id_hash": hashed, "finished_at": None, "counts": {}},
    }
    mine = {"_id": follower["_id"]}
    erasure = durably(
        lambda: collection(Erasure).find_one_and_update(mine, change, upsert=True, return_document=ReturnDocument.AFTER)
    )
    LATELY.forget()
    return erasure


def find_present(external_id: str) -> ObjectId | None:
    """The follower of this id; None = there is none, or one who is erased or being erased. For whoever waits for it.

    Index: followers_follower (external_id); followers_erasure (_id).
    """
    query = {"external_id": external_id}
    follower = durably(lambda: collection(Follower).find_one(query, {"_id": 1}), PATIENCE_SECONDS)
    if follower is None or durably(lambda: collection(Erasure).find_one(follower, {"_id": 1}), PATIENCE_SECONDS):
        return None
    return cast(ObjectId, follower["_id"])


class Lately:
    """Who was erased while a token of theirs may still be good, as this process knew it a second ago.

    Asked with every call of an app, so it is read at most once a second, and nobody waits for somebody else's reading.
    Until the first answer is there, everybody reads for themselves: nothing is known yet. While the database is away
    the last answer holds: nothing of theirs can be read or written then.
    """

    READ_EVERY_SECONDS = 1.0

    def __init__(self) -> None:
        self._ids: frozenset[ObjectId] | None = None
        self._read_at = -self.READ_EVERY_SECONDS
        self._as_of = -self.READ_EVERY_SECONDS
        """What began to be read earlier is not taken any more."""

    def ids(self) -> frozenset[ObjectId]:
        at = time.monotonic()
        if self._ids is None or at - self._read_at >= self.READ_EVERY_SECONDS:
            self._read_at = at
            try:
                lifetime = timedelta(seconds=settings.FOLLOWER_TOKEN_SECONDS)
                ids = frozenset(erased_since(clock.now() - lifetime, repeat_for_seconds=0))
            except PyMongoError as error:
                if not is_passing(error):
                    raise
            else:
                if at < self._as_of:
                    return ids  # A slow reading. It answers its own caller, and replaces nothing newer.
                self._ids, self._as_of = ids, at
        return frozenset() if self._ids is None else self._ids

    def forget(self) -> None:
        """The next one who asks reads again; what is being read just now may lack the newest erasure."""
        self._read_at = -self.READ_EVERY_SECONDS
        self._as_of = time.monotonic()


LATELY = Lately()


def is_erased(follower_id: ObjectId) -> bool:
    """Whether the bearer of a token of ours was erased since it was minted; true within a second, in each process."""
    return follower_id in LATELY.ids()


def finish(erasure: Document, counts: dict[str, int], now: datetime) -> Document:
    """Adds what this run has removed to what earlier ones did. Returns the erasure with all of it."""
    total = {name: erasure["counts"].get(name, 0) + count for name, count in counts.items()}
    change = {"$set": {"counts": total, "finished_at": now}}
    durably(lambda: collection(Erasure).update_one({"_id": erasure["_id"]}, change))
    return {**erasure, "counts": total, "finished_at": now}


def remove_registrations(follower_id: ObjectId) -> dict[str, int]:
    """Removes a follower's addresses and follows, and what the admin's history calls them.

    Index: followers_endpoint (follower_id); followers_follow too.
    """
    mine = {"follower_id": follower_id}
    owned = durably(lambda: [e["_id"] for e in collection(Endpoint).find(mine, {"_id": 1})])
    blank_history([follower_id, *owned])
    endpoints = durably(lambda: collection(Endpoint).delete_many(mine)).deleted_count
    follows = durably(lambda: collection(Follow).delete_many(mine)).deleted_count
    return {"endpoints": endpoints, "follows": follows}


def withdraw_registrations(follower_ids: Collection[ObjectId]) -> None:
    """Removes what was just registered for followers who were erased meanwhile. Index: followers_erasure (_id)."""
    query = {"_id": {"$in": list(follower_ids)}}
    for erased in durably(lambda: list(collection(Erasure).find(query, {"_id": 1}))):
        remove_registrations(erased["_id"])


def erased_since(at: datetime, repeat_for_seconds: float = REPEAT_FOR_SECONDS) -> list[ObjectId]:
    """Followers whose erasure may have begun at `at` or later. Index: followers_erasure (erased_at)."""
    query = {"erased_at": {"$gte": at - MARGIN}}
    return durably(lambda: [e["_id"] for e in collection(Erasure).find(query, {"_id": 1})], repeat_for_seconds)


def nameless(follower_id: ObjectId) -> str:
    """The external id of whoever was erased and whose row is kept."""
    return f"erased:{follower_id}"


def blank_history(object_ids: Collection[ObjectId]) -> None:
    """Takes names and words out of the admin's history of these objects; who did something, and when, stays.

    Index: django_admin_log (object_id, action_time).
    """
    these = {"object_id": {"$in": [str(oid) for oid in object_ids]}}
    change = {"$set": {"object_repr": "erased", "change_message": ""}}
    durably(lambda: collection(LogEntry).update_many(these, change))


def blank(follower_id: ObjectId) -> int:
    """named → nameless: what is left of the person is a row under a name that says nothing."""
    left: Document = {
        "external_id": nameless(follower_id), "name": "", "portfolio_value": None, "portfolio_as_of": None,
        "currency": "", "locale": "en", "timezone": "UTC", "preferences": {},
    }  # fmt: skip
    return durably(lambda: collection(Follower).update_one({"_id": follower_id}, {"$set": left})).modified_count


def remove(follower_id: ObjectId) -> int:
    return durably(lambda: collection(Follower).delete_one({"_id": follower_id})).deleted_count
