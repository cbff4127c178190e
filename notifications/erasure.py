"""Erasing a follower: everything about a person goes; what must be kept no longer says whose it was.

followers/erasures.py says why nothing comes back. Nothing is sent afterwards: the addresses go first, so that whoever
holds a delivery in a batch finds none; deliveries in no batch are cancelled. Only what a worker was sending at that
moment still arrives. All of it may run twice, and stop anywhere: the same request again goes on.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pymongo
from bson import ObjectId
from django.conf import settings
from pymongo import UpdateOne
from pymongo.client_session import ClientSession

from followers import clock, erasures
from followers.mongo import collection, database, durably
from notifications.choices import DeliveryState, Reason
from notifications.models import InAppEntry, Notification, TradeEvent, Update
from notifications.statements import Pipeline, change_deliveries, ended_unsent

Document = dict[str, Any]

CHUNK = 500
OF_FOLLOWER = [("follower_id", 1), ("created_at", -1), ("_id", -1)]
REMOVING_SECONDS = 10


def erase(external_id: str) -> Document | None:
    """Erases a follower. Returns the erasure: `erased_at`, `finished_at`, `keeps_notifications`, and `counts` of what
    was removed by this request and by earlier ones for the same person. None = nobody of that id is or was stored.
    """
    erasure = erasures.begin(external_id, clock.now())
    if erasure is None:
        return None
    follower = erasure["_id"]
    counts = erasures.remove_registrations(follower)
    counts |= forget(follower)
    _blank_updates(external_id, follower)
    if erasure["keeps_notifications"]:
        erasures.blank(follower)
    else:
        erasures.remove(follower)
    return erasures.finish(erasure, counts, clock.now())


def forget(follower_id: ObjectId, ids: Collection[ObjectId] | None = None) -> dict[str, int]:
    """Removes a follower's inbox and cancels, then pseudonymises or removes, their alerts; `ids` = only these.

    Index: notifications_notification and notifications_inappentry (follower_id, created_at, _id).
    """
    which: Document = {"follower_id": follower_id, **({"_id": {"$in": list(ids)}} if ids is not None else {})}
    entries = durably(lambda: collection(InAppEntry).delete_many(which)).deleted_count
    cancelled = _cancel(which)
    _blank_histories(which)
    if settings.ERASURE_KEEPS_NOTIFICATIONS:
        return {"inbox_entries": entries, "cancelled": cancelled, "pseudonymised": _pseudonymise(which), "removed": 0}
    return {"inbox_entries": entries, "cancelled": cancelled, "pseudonymised": 0, "removed": _remove(which)}


def traces(ids: Collection[ObjectId]) -> set[ObjectId]:
    """Those of whom an alert or an entry is stored. An entry may be there alone: stored after its alert was removed."""
    query = {"_id": {"$in": list(ids)}}
    models = (Notification, InAppEntry)
    return durably(lambda: {row["_id"] for model in models for row in collection(model).find(query, {"_id": 1})})


def _cancel(which: Document) -> int:
    """queued in no batch → cancelled; `unknown` where an earlier attempt may have arrived. Returns the alerts."""
    free = {"state": DeliveryState.QUEUED.value, "batch": None}
    condition = {"$and": [{"$eq": [f"$$d.{name}", value]} for name, value in free.items()]}
    change = change_deliveries(condition, ended_unsent(DeliveryState.CANCELLED, Reason.FOLLOWER_ERASED))
    query = {**which, "deliveries": {"$elemMatch": free}}
    return durably(lambda: collection(Notification).update_many(query, change)).modified_count


def _blank_histories(which: Document) -> None:
    """What staff wrote of the alerts. Read from the index (follower_id, created_at, _id) alone."""
    rows = durably(lambda: list(collection(Notification).find(which, {"_id": 1}, hint=OF_FOLLOWER)))
    for start in range(0, len(rows), CHUNK):
        erasures.blank_history([row["_id"] for row in rows[start : start + CHUNK]])


def _blank_updates(external_id: str, follower_id: ObjectId) -> None:
    """Where an update names the person: among those whom it could not find, and as who asked for a test.

    Reads all updates once; retention keeps them few.
    """
    name, left = {"$literal": external_id}, {"$literal": erasures.nameless(follower_id)}
    named = {"$or": [{"unknown_followers": external_id}, {"is_test": True, "published_by": external_id}]}
    others = {"$cond": [{"$eq": ["$$one", name]}, left, "$$one"]}
    asked_by_them = {"$and": ["$is_test", {"$eq": ["$published_by", name]}]}
    rename: Pipeline = [
        {
            "$set": {
                "unknown_followers": {"$map": {"input": "$unknown_followers", "as": "one", "in": others}},
                "published_by": {"$cond": [asked_by_them, left, "$published_by"]},
            }
        }
    ]
    durably(lambda: collection(Update).update_many(named, rename))


def _pseudonymise(which: Document) -> int:
    """Takes away what could tell whose an alert was: figures, endpoints' ids at vendors, vendors' words, notes."""
    attempts = {"$map": {"input": "$$d.attempt_log", "as": "a", "in": {"$mergeObjects": ["$$a", {"message": ""}]}}}
    nameless = {
        "$map": {
            "input": "$deliveries",
            "as": "d",
            "in": {"$mergeObjects": ["$$d", {"provider_message_id": "", "error_message": "", "attempt_log": attempts}]},
        }
    }
    own = dict.fromkeys(("suggested_qty", "ratio", "notional", "follower_portfolio", "multiplier", "max_notional"))
    change: Pipeline = [
        {
            "$set": {
                "deliveries": nameless,
                "sizing": {"$cond": [{"$eq": ["$sizing", None]}, None, {"$mergeObjects": ["$sizing", own]}]},
                "review": {"$cond": [{"$eq": [{"$ifNull": ["$review", None]}, None]}, None,
                                     {"$mergeObjects": ["$review", {"note": ""}]}]},
            }
        }
    ]  # fmt: skip
    return durably(lambda: collection(Notification).update_many(which, change)).modified_count


def _remove(which: Document) -> int:
    """Deletes alerts, and has their events know that they are not missing (delivery/proof.py counts what is stored)."""
    removed = 0
    while True:
        rows = durably(lambda: list(collection(Notification).find(which, {"event_id": 1}).limit(CHUNK)))
        if not rows:
            return removed
        removed += _remove_rows(rows)


def _remove_rows(rows: list[Document]) -> int:
    """In one transaction: a row that is gone is counted once, whoever else removes it."""

    def remove(session: ClientSession) -> int:
        alerts = collection(Notification)
        ids = [row["_id"] for row in rows]
        present = {row["_id"] for row in alerts.find({"_id": {"$in": ids}}, {"_id": 1}, session=session)}
        gone = [row for row in rows if row["_id"] in present]
        if gone:
            alerts.delete_many({"_id": {"$in": [row["_id"] for row in gone]}}, session=session)
            one_less = [UpdateOne({"_id": row["event_id"]}, {"$inc": {"alerts_erased": 1}}) for row in gone]
            for source in (TradeEvent, Update):  # An id is in one of them.
                collection(source).bulk_write(one_less, ordered=False, session=session)
        return len(gone)

    with pymongo.timeout(REMOVING_SECONDS), database().client.start_session() as session:
        return session.with_transaction(remove)
