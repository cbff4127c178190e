"""The claim protocol's MongoDB statements: batches, and the deliveries that they hold.

A batch is claimed as a whole, under a lease of the database's clock and a random token. The batch id in a delivery is
the fencing token: an outcome is written only where the delivery still carries it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pymongo
from bson import ObjectId
from django.conf import settings
from pymongo import ReturnDocument
from pymongo.client_session import ClientSession

from delivery.attempt_log import logged
from delivery.choices import KEYED_CHANNELS, BatchKind
from delivery.models import Batch
from followers.mongo import collection, database, durably, insert_missing, provisional, quick
from notifications.choices import DeliveryState, Reason
from notifications.models import Notification
from notifications.statements import Pipeline, change_deliveries, derive, ended_unsent

Document = dict[str, Any]

LOADED_FIELDS = {
    "_id": 1, "event_key": 1, "event_id": 1, "kind": 1, "symbol": 1, "side": 1, "action": 1, "price": 1, "currency": 1,
    "priority": 1, "correlation_id": 1, "expires_at": 1, "executed_at": 1, "superseded_by": 1,
    "follower_id": 1, "trader_id": 1, "instrument": 1, "created_at": 1,
    "deliveries.channel": 1, "deliveries.endpoint": 1, "deliveries.batch": 1, "deliveries.attempts": 1,
    "deliveries.state": 1, "deliveries.next_attempt_at": 1, "deliveries.error_code": 1,
    "deliveries.attempts_before_retry": 1, "deliveries.attempt_log.outcome": 1, "exit_fraction": 1,
    # Two of the sizing's dozen numbers are put into words. An expression here would cost the database as much again as
    # the rest.
    "sizing.suggested_qty": 1, "sizing.ratio": 1, "words": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Patch:
    """What an attempt changes in one delivery."""

    notification: ObjectId
    fields: Document  # Merged into the delivery.
    spent: int = 0  # Attempts to add.
    log: Document | None = None  # An entry for attempt_log.

    @property
    def facts(self) -> Document:
        """What stays true of the attempt whatever a receipt has said of it before."""
        return {name: value for name, value in self.fields.items() if name in FACTS}


FACTS = frozenset({"batch", "last_attempt_at", "sent_at", "provider_message_id"})


# --- Making batches --------------------------------------------------------------------------------------------------
def shard_batch_id(event_external_id: str, shard: int) -> ObjectId:
    """A shard's batch id follows from its event, so that storing the event again makes no second one."""
    return ObjectId(hashlib.sha256(f"{event_external_id}\0shard {shard}".encode()).digest()[:12])


def shard_batch(event: Document, shard: int, now: datetime) -> Document:
    return _batch(
        _id=shard_batch_id(event["external_id"], shard),
        kind=BatchKind.FAN_OUT.value,
        priority=event["priority"],
        event=event["_id"],
        shard=shard,
        correlation_id=event["correlation_id"],
        created_at=now,
        next_look_at=now + timedelta(seconds=HINT_GRACE_SECONDS),
    )


def delivery_batch(
    channel: str,
    priority: str,
    ids: list[ObjectId],
    now: datetime,
    correlation_id: str = "",
    of_shard: Document | None = None,
) -> Document:
    """A batch of one delivery each of `ids` on `channel`; `of_shard` is the fan-out shard that makes it."""
    return _batch(
        _id=ObjectId(),
        kind=BatchKind.DELIVER.value,
        channel=channel,
        priority=priority,
        ids=ids,
        event=of_shard["event"] if of_shard else None,
        shard=of_shard["shard"] if of_shard else None,
        shard_batch=of_shard["_id"] if of_shard else None,
        correlation_id=correlation_id,
        created_at=now,
        next_look_at=now + timedelta(seconds=HINT_GRACE_SECONDS),
    )


HINT_GRACE_SECONDS = 5
"""A batch's first hint gets so long to be picked up before dispatch_due sends another."""


def _batch(**fields: Any) -> Document:
    return {
        "channel": "", "ids": [], "event": None, "shard": None, "shard_batch": None, "correlation_id": "", "hints": 0,
        "failures": 0, "error": "", "token": None, "worker": "", "lease_until": None, "finished_at": None, **fields,
    }  # fmt: skip


def insert_batches(documents: list[Document]) -> None:
    """Batches, before anything names them. Durable: a row under a batch that was lost would sleep until it expires."""
    insert_missing(collection(Batch), documents)


def insert_batches_with_rows(documents: list[Document]) -> None:
    """The same within `followers.mongo.one_primary`: the insert of the rows that name them confirms them as well."""
    insert_missing(provisional(Batch), documents)


# --- Claim, renew, give back, finish ---------------------------------------------------------------------------------
def claim(batch_id: ObjectId, worker: str, lease_seconds: float) -> Document | None:
    """unclaimed → claimed: takes the batch under a new token. None = somebody else's, finished, or gone."""
    token = secrets.token_hex(16)
    return _take(batch_id, None, token, worker, lease_seconds)


def take_over(batch: Document, worker: str, lease_seconds: float) -> Document | None:
    """claimed, lease run out → claimed by us, by compare-and-set on the dead worker's token."""
    return _take(batch["_id"], batch["token"], secrets.token_hex(16), worker, lease_seconds)


def _take(batch_id: ObjectId, held: str | None, token: str, worker: str, lease_seconds: float) -> Document | None:
    until = {"$add": ["$$NOW", int(lease_seconds * 1000)]}
    # A batch without a next look was given up: no stale hint may run it again.
    query: Document = {"_id": batch_id, "token": held, "finished_at": None, "next_look_at": {"$ne": None}}
    if held is not None:
        query["$expr"] = {"$lt": ["$lease_until", "$$NOW"]}
    change = [{"$set": {"token": token, "worker": worker, "lease_until": until, "next_look_at": until}}]

    def take() -> Document | None:
        taken = collection(Batch).find_one_and_update(query, change, return_document=ReturnDocument.AFTER)
        # After a lost connection the first try may have won: then the token found is our own.
        return taken or collection(Batch).find_one({"_id": batch_id, "token": token})

    return durably(take)


def renew(batch: Document, lease_seconds: float) -> bool:
    """Lengthens the lease. False = it was taken over; nothing more may be started under it."""
    until = {"$add": ["$$NOW", int(lease_seconds * 1000)]}
    query = {"_id": batch["_id"], "token": batch["token"], "finished_at": None}
    change = [{"$set": {"lease_until": until, "next_look_at": until}}]
    # Only as long as a third of the lease: past that the caller must know that it may have lost it.
    return durably(lambda: collection(Batch).update_one(query, change), lease_seconds / 3).matched_count == 1


def give_back(batch: Document, next_look_at: datetime, error: str = "", failed: bool = False) -> bool:
    """claimed → unclaimed: somebody may claim it from `next_look_at` on, or at its next hint."""
    query = {"_id": batch["_id"], "token": batch["token"], "finished_at": None}
    change: Document = {
        "$set": {"token": None, "lease_until": None, "next_look_at": next_look_at, "error": error[:500]},
        "$inc": {"failures": int(failed)},
    }
    return durably(lambda: collection(Batch).update_one(query, change)).matched_count == 1


def finish(batch: Document, now: datetime) -> bool:
    """claimed → finished: no row carries it any more, and nobody looks at it again.

    Acknowledged by the primary alone: if it is lost, the lease runs out and the batch is found empty.
    """
    query = {"_id": batch["_id"], "token": batch["token"]}
    change = {"$set": {"finished_at": now, "next_look_at": None, "lease_until": None}}
    return durably(lambda: quick(Batch).update_one(query, change)).matched_count == 1


def postpone(batch_id: ObjectId, next_look_at: datetime) -> None:
    """Sets when an unclaimed batch is looked at again; no row is touched and no attempt spent."""
    query = {"_id": batch_id, "token": None, "finished_at": None}
    durably(lambda: collection(Batch).update_one(query, {"$set": {"next_look_at": next_look_at}}))


def batch_head(batch_id: ObjectId) -> Document | None:
    """What a worker must know of a batch before it claims it."""
    fields = {"channel": 1, "kind": 1, "priority": 1, "token": 1, "size": {"$size": "$ids"}}
    return durably(lambda: collection(Batch).find_one({"_id": batch_id}, fields))


# --- Rows in a batch -------------------------------------------------------------------------------------------------
def load(batch: Document) -> list[Document]:
    """The notifications of a batch that still carry its id, with what rendering and recording need."""
    query = {"_id": {"$in": batch["ids"]}, "deliveries.batch": batch["_id"]}
    found = collection(Notification)
    rows = durably(lambda: list(found.find(query, LOADED_FIELDS, batch_size=len(batch["ids"]) + 1)))
    for row in rows:
        row.setdefault("sizing", None)  # A community post has none, and of what is null a projection brings no part.
    return rows


def delivery_in(row: Document, batch_id: ObjectId) -> Document:
    """The one delivery of a loaded notification that the batch holds."""
    return next(d for d in row["deliveries"] if d.get("batch") == batch_id)


def record(batch_id: ObjectId, patches: Sequence[Patch]) -> int:
    """Writes the outcomes of a batch in one statement and derives each notification's state and wake_at.

    A delivery that no longer carries the batch id is left as it is. One that a receipt has ended first keeps its state
    and its words, and is told only what the attempt itself was. Returns the notifications that were changed.
    """
    if not patches:
        return 0
    ids = [p.notification for p in patches]
    changes = [
        {"fields": p.fields, "facts": p.facts, "spent": p.spent, "log": [p.log] if p.log else []} for p in patches
    ]
    change = {"$arrayElemAt": [{"$literal": changes}, {"$indexOfArray": [{"$literal": ids}, "$_id"]}]}
    patched = {
        "$mergeObjects": [
            "$$d",
            {"$cond": [{"$eq": ["$$d.state", DeliveryState.QUEUED]}, "$$change.fields", "$$change.facts"]},
            {
                "attempts": {"$add": ["$$d.attempts", "$$change.spent"]},
                "attempt_log": logged("$$d.attempt_log", "$$change.log"),
            },
        ]
    }
    mapped = {
        "$map": {"input": "$deliveries", "as": "d", "in": {"$cond": [{"$eq": ["$$d.batch", batch_id]}, patched, "$$d"]}}
    }
    pipeline: Pipeline = [{"$set": {"deliveries": {"$let": {"vars": {"change": change}, "in": mapped}}}}, *derive()]
    query = {"_id": {"$in": ids}, "deliveries.batch": batch_id}
    return durably(lambda: collection(Notification).update_many(query, pipeline)).modified_count


def recorded_among(batch: Document, patches: Sequence[Patch]) -> list[Patch]:
    """Which of these patches are in the database, where `record` has changed fewer alerts than there are patches.

    An attempt is found by its entry in the log, an end without one by the state and the code it has left.
    """
    query = {"_id": {"$in": [p.notification for p in patches]}}
    fields = {f"deliveries.{name}": 1 for name in ("channel", "state", "error_code", "attempt_log")}
    found = durably(lambda: {row["_id"]: row["deliveries"] for row in collection(Notification).find(query, fields)})
    return [
        patch
        for patch in patches
        if any(d["channel"] == batch["channel"] and _shows(d, patch) for d in found.get(patch.notification, ()))
    ]


def _shows(stored: Document, patch: Patch) -> bool:
    if patch.log is None:
        return all(stored[name] == patch.fields.get(name) for name in ("state", "error_code"))
    mine = (patch.log["at"].replace(tzinfo=None), patch.log["outcome"], patch.log["latency_ms"])
    return any((entry["at"], entry["outcome"], entry["latency_ms"]) == mine for entry in stored["attempt_log"])


def end_rows(batch: Document, state: DeliveryState, reason: Reason, only_expired_by: datetime | None = None) -> int:
    """Brings what a batch still holds to an end state; `only_expired_by` limits it to rows past their validity.

    What a receipt has ended keeps its state, and only leaves the batch.
    """
    query: Document = {"_id": {"$in": batch["ids"]}, "deliveries.batch": batch["_id"]}
    if only_expired_by is not None:
        query["expires_at"] = {"$lte": only_expired_by}
    pipeline = change_deliveries({"$eq": ["$$d.batch", batch["_id"]]}, _unless_told(ended_unsent(state, reason)))
    return durably(lambda: collection(Notification).update_many(query, pipeline)).modified_count


def _unless_told(change: Document) -> Document:
    """`change` for what is still queued; what a receipt has ended leaves its batch, with the attempt that was made."""
    told = {"batch": None, "attempts": {"$max": ["$$d.attempts", 1]}}
    return {"$cond": [{"$eq": ["$$d.state", DeliveryState.QUEUED]}, change, told]}


def requeue_rows(batch: Document, ids: Sequence[ObjectId], now: datetime, max_attempts: int) -> int:
    """in a dead worker's batch → queued without one, due now; an attempt is spent.

    One that is out of attempts ends as unknown: a row that crashes its worker every time must not do so for ever.
    """
    if not ids:
        return 0
    mine = {"$eq": ["$$d.batch", batch["_id"]]}
    attempts = {"$add": ["$$d.attempts", 1]}
    before_retry = {"$ifNull": ["$$d.attempts_before_retry", 0]}
    exhausted = {"$gte": [{"$subtract": [attempts, before_retry]}, max_attempts]}
    again = {
        "attempts": attempts,
        "batch": None,
        # Out of attempts, but the last of them may have been accepted.
        "state": {"$cond": [exhausted, DeliveryState.UNKNOWN.value, DeliveryState.QUEUED.value]},
        "next_attempt_at": {"$cond": [exhausted, None, now]},
        "error_code": {"$cond": [exhausted, Reason.ATTEMPTS_EXHAUSTED.value, Reason.LEASE_LOST.value]},
        "error_message": str(Reason.LEASE_LOST.label),
        "attempt_log": logged("$$d.attempt_log", [_lease_lost_entry(now)]),
    }
    query = {"_id": {"$in": list(ids)}, "deliveries.batch": batch["_id"]}
    pipeline = change_deliveries(mine, _unless_told(again))
    return durably(lambda: collection(Notification).update_many(query, pipeline)).modified_count


def _lease_lost_entry(now: datetime) -> Document:
    label = str(Reason.LEASE_LOST.label)
    return {"at": now, "outcome": "unknown", "code": Reason.LEASE_LOST.value, "message": label, "latency_ms": None,
            "breaker": ""}  # fmt: skip


# --- What dispatch_due sweeps ----------------------------------------------------------------------------------------
def due_batches(priority: str, now: datetime, limit: int) -> list[Document]:
    """Batches to look at, the longest due first. Index: delivery_batch (priority, next_look_at), partial."""
    query = _due_batches(priority, now)
    return durably(lambda: list(collection(Batch).find(query, WITHOUT_IDS).sort("next_look_at", 1).limit(limit)))


def longest_due(priority: str, now: datetime) -> datetime | None:
    """The earliest time (naive UTC) for which a batch or an alert was to be looked at; None = nothing is due.

    Not repeated. Indexes: delivery_batch (priority, next_look_at), notifications_notification (priority, wake_at).
    """
    batch = collection(Batch).find_one(_due_batches(priority, now), {"next_look_at": 1}, sort=[("next_look_at", 1)])
    row = collection(Notification).find_one(_due_rows(priority, now), {"wake_at": 1}, sort=[("wake_at", 1)])
    return min([*([batch["next_look_at"]] if batch else []), *([row["wake_at"]] if row else [])], default=None)


def count_due_batches(priority: str, now: datetime, limit: int) -> int:
    """How many there are, counted no further than `limit`. Index: as above."""
    return durably(lambda: collection(Batch).count_documents(_due_batches(priority, now), limit=limit))


def _due_batches(priority: str, now: datetime) -> Document:
    return {"priority": priority, "next_look_at": {"$lte": now, "$type": "date"}}


def count_unfinished(priority: str, limit: int) -> int:
    """Batches that are not finished, counted no further than `limit`. Not repeated. Index: as above."""
    query = {"priority": priority, "next_look_at": {"$type": "date"}}
    return collection(Batch).count_documents(query, limit=limit)


WITHOUT_IDS = {"ids": 0}
"""Two hundred ids a batch: whoever only looks at it needs none, and who claims it gets it whole."""


def note_hints(ids: Sequence[ObjectId], now: datetime, delays_seconds: Sequence[int]) -> set[ObjectId]:
    """Reserves the next hint of due, unclaimed batches; each one's next look is later than its last. Returns whose.

    Two dispatchers do not both send it: for the second the batch is not due any more. Index: delivery_batch (_id).
    """
    if not ids:
        return set()
    nth = {"$min": ["$hints", len(delays_seconds) - 1]}
    delay = {"$multiply": [1_000, {"$arrayElemAt": [list(delays_seconds), nth]}]}
    change: Pipeline = [{"$set": {"next_look_at": {"$add": [now, delay]}, "hints": {"$add": ["$hints", 1]}}}]
    query = {**_unclaimed(ids), "next_look_at": {"$lte": now}}
    reserved = durably(lambda: collection(Batch).update_many(query, change)).modified_count
    if reserved in {0, len(ids)}:
        return set(ids[:reserved])
    # Somebody else took some. A hint too many does no harm, if that was a dispatcher in the same millisecond.
    later = {**_unclaimed(ids), "next_look_at": {"$gt": now}}
    return durably(lambda: {b["_id"] for b in collection(Batch).find(later, {"_id": 1})})


def put_off_hints(ids: Sequence[ObjectId], next_look_at: datetime) -> None:
    """No hints were sent, so none are counted: the queue is away, or long enough as it is."""
    if ids:
        _change_unclaimed(ids, {"next_look_at": next_look_at})


def take_back_hints(missed: Sequence[Document], next_look_at: datetime) -> None:
    """The hints of these batches, as read, could not be enqueued: they do not count towards the doubling."""
    by_hints: dict[int, list[ObjectId]] = {}
    for batch in missed:
        by_hints.setdefault(batch["hints"], []).append(batch["_id"])
    for hints, ids in by_hints.items():
        _change_unclaimed(ids, {"next_look_at": next_look_at, "hints": hints})


def _change_unclaimed(ids: Sequence[ObjectId], fields: Document) -> None:
    durably(lambda: collection(Batch).update_many(_unclaimed(ids), {"$set": fields}))


def _unclaimed(ids: Sequence[ObjectId]) -> Document:
    return {"_id": {"$in": list(ids)}, "token": None, "finished_at": None}


def give_up(batch: Document, error: str) -> None:
    """claimed → failed: nobody looks at it again until a person runs it; its error says why."""
    query = {"_id": batch["_id"], "token": batch["token"]}
    change = {"$set": {"token": None, "lease_until": None, "next_look_at": None, "error": error[:500]}}
    durably(lambda: collection(Batch).update_one(query, change))


def due_rows(priority: str, now: datetime, limit: int) -> list[Document]:
    """Notifications with a delivery that is due. Index: notifications_notification (priority, wake_at), partial."""
    query, fields = _due_rows(priority, now), {**LOADED_FIELDS, "wake_at": 1}
    return durably(lambda: list(collection(Notification).find(query, fields).sort("wake_at", 1).limit(limit)))


def count_due_rows(priority: str, now: datetime, limit: int) -> int:
    """How many there are, counted no further than `limit`. Index: as above."""
    return durably(lambda: collection(Notification).count_documents(_due_rows(priority, now), limit=limit))


def _due_rows(priority: str, now: datetime) -> Document:
    return {"priority": priority, "wake_at": {"$lte": now, "$type": "date"}}


def batches_by_id(ids: Sequence[ObjectId]) -> dict[ObjectId, Document]:
    """The batches, but for the ids of their notifications."""
    query = {"_id": {"$in": list(ids)}}
    return durably(lambda: {b["_id"]: b for b in collection(Batch).find(query, WITHOUT_IDS)})


def expire_free_rows(ids: Sequence[ObjectId], now: datetime) -> int:
    """queued without a batch, past its validity → expired."""
    free = {"$and": [{"$eq": ["$$d.state", DeliveryState.QUEUED]}, {"$eq": ["$$d.batch", None]}]}
    query = {"_id": {"$in": list(ids)}, "expires_at": {"$lte": now}}
    pipeline = change_deliveries(free, ended_unsent(DeliveryState.EXPIRED, Reason.VALIDITY_OVER))
    return durably(lambda: collection(Notification).update_many(query, pipeline)).modified_count


def wait_for_batch(batch_id: ObjectId, ids: Sequence[ObjectId], until: datetime) -> None:
    """Rows past their validity whose batch is alive are looked at again when its lease ends."""
    query = {"_id": {"$in": list(ids)}, "deliveries.batch": batch_id}
    waiting = {"$and": [{"$eq": ["$$d.state", DeliveryState.QUEUED]}, {"$eq": ["$$d.batch", batch_id]}]}
    pipeline = change_deliveries(waiting, {"next_attempt_at": until})
    durably(lambda: collection(Notification).update_many(query, pipeline))


@dataclass(frozen=True, slots=True)
class Naming:
    """A delivery, by notification and endpoint, that is to be named by a new batch."""

    notification: ObjectId
    endpoint: ObjectId
    batch: ObjectId


NAMING_SECONDS = 10


def name_batches(batches: list[Document], namings: Sequence[Naming], now: datetime) -> None:
    """Inserts batches and names them in the due rows that still have none, in one transaction.

    Two dispatchers that read the same rows cannot both name them, and no batch is ever seen before its rows carry it:
    without the transaction a batch could be finished as empty and named afterwards, and its rows would wait in vain.
    """
    per_row: dict[ObjectId, list[Document]] = {}
    for naming in namings:
        per_row.setdefault(naming.notification, []).append({"endpoint": naming.endpoint, "batch": naming.batch})
    ids = list(per_row)
    mine = {"$arrayElemAt": [{"$literal": list(per_row.values())}, {"$indexOfArray": [{"$literal": ids}, "$_id"]}]}
    matching = {
        "$first": {"$filter": {"input": "$$mine", "as": "m", "cond": {"$eq": ["$$m.endpoint", "$$d.endpoint"]}}}
    }
    due = {
        "$and": [
            {"$eq": ["$$d.state", DeliveryState.QUEUED]},
            {"$eq": ["$$d.batch", None]},
            {"$lte": ["$$d.next_attempt_at", now]},
            {"$in": ["$$d.endpoint", "$$mine.endpoint"]},
        ]
    }
    named = {
        "$mergeObjects": [
            "$$d",
            # While in a batch the batch does the waking; the row itself only wakes to expire.
            {"batch": {"$let": {"vars": {"m": matching}, "in": "$$m.batch"}}, "next_attempt_at": "$expires_at"},
        ]
    }
    mapped = {"$map": {"input": "$deliveries", "as": "d", "in": {"$cond": [due, named, "$$d"]}}}
    pipeline: Pipeline = [{"$set": {"deliveries": {"$let": {"vars": {"mine": mine}, "in": mapped}}}}, *derive()]

    def name(session: ClientSession) -> None:
        collection(Batch).insert_many(batches, session=session)
        collection(Notification).update_many({"_id": {"$in": ids}}, pipeline, session=session)

    # Without a limit the driver repeats a transaction for two minutes; the next sweep does it as well.
    with pymongo.timeout(NAMING_SECONDS), database().client.start_session() as session:
        session.with_transaction(name)


def batch_size(channel: str) -> int:
    """How many deliveries a batch holds: few where a crash would leave all of them in doubt, and never more than the
    channel may send in a second, so that a batch does not keep the others from their turn."""
    size = settings.DELIVERY_BATCH if channel in KEYED_CHANNELS else settings.UNKEYED_BATCH
    rate = settings.CHANNEL_POLICIES[channel].rate_per_second
    return min(size, max(1, int(rate))) if rate else size
