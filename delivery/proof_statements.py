"""What the proof reads: pages and sums, never one look-up for each alert.

Whatever is compared with each other is read in one snapshot of the database. The protocol's rules hold at every
moment (a batch is stored before a row names it, a row before its shard is done), so in a snapshot work in flight
cannot look like a loss, however fast rows move meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from bson import ObjectId
from pymongo.client_session import ClientSession

from delivery.choices import BatchKind
from delivery.models import Batch
from followers.models import Endpoint, Follow, Follower
from followers.mongo import collection, database, durably
from notifications.choices import DeliveryState, NotificationState, Priority
from notifications.models import Notification, RejectedEvent, TradeEvent, Update
from notifications.statements import EVENT_INDEX, Pipeline, true_state, wakes
from notifications.update_events import as_event

Document = dict[str, Any]

EVENT_FIELDS = {
    "external_id": 1, "trader_id": 1, "executed_at": 1, "received_at": 1, "expires_at": 1, "state": 1, "shards": 1,
    "shards_done": 1, "alerts_written": 1, "alerts_erased": 1, "fanned_out_at": 1, "alerts_pruned_at": 1,
}  # fmt: skip
EVENT_MODELS: tuple[type[TradeEvent | Update], ...] = (TradeEvent, Update)
FOLLOW_FIELDS = {"follower_id": 1, "since": 1, "ended_at": 1, "bucket": 1}
ROW_FIELDS = {"event_id": 1, "event_key": 1, "state": 1, "wake_at": 1, "priority": 1}
FOLLOWS_READ = 2_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@contextmanager
def snapshot() -> Iterator[ClientSession]:
    """A session whose reads all see the same moment. MongoDB keeps one for five minutes."""
    with database().client.start_session(snapshot=True) as session:
        yield session


# --- Events ----------------------------------------------------------------------------------------------------------
def _received(since: datetime | None) -> Document:
    return {"received_at": {"$gte": since or EPOCH}}


def count_events(since: datetime | None) -> int:
    """Trades and general updates. Index: notifications_tradeevent, notifications_update (received_at, _id)."""
    received = _received(since)
    return durably(lambda: sum(collection(model).count_documents(received) for model in EVENT_MODELS))


def events_page(
    model: type[TradeEvent | Update], since: datetime | None, after: Document | None, limit: int
) -> list[Document]:
    """Ids and times of receipt, the newest first; a page by key. Index: (received_at, _id) of either."""
    query = _received(since)
    if after is not None:
        at = after["received_at"]
        query = {
            "$and": [query, {"$or": [{"received_at": {"$lt": at}}, {"received_at": at, "_id": {"$lt": after["_id"]}}]}]
        }
    order = [("received_at", -1), ("_id", -1)]
    page = collection(model).find(query, {"received_at": 1}).sort(order).limit(limit)
    return durably(lambda: list(page.clone()))


def events_by_id(ids: Sequence[ObjectId], session: ClientSession) -> list[Document]:
    """Trade events, and general updates in the form of events."""
    query = {"_id": {"$in": list(ids)}}
    trades = list(collection(TradeEvent).find(query, EVENT_FIELDS, session=session))
    updates = collection(Update).find(query, {**EVENT_FIELDS, "follower_ids": 1}, session=session)
    return trades + [as_event(update) for update in updates]


def shard_batches(ids: Sequence[ObjectId], session: ClientSession) -> dict[ObjectId, Document]:
    """Index: delivery_batch (_id)."""
    fields = {"next_look_at": 1, "finished_at": 1, "priority": 1, "error": 1}
    return {b["_id"]: b for b in collection(Batch).find({"_id": {"$in": list(ids)}}, fields, session=session)}


def count_rejected(since: datetime | None) -> tuple[int, int]:
    """Rejected messages, and how many of them were not replayed. Index: notifications_rejectedevent (received_at)."""
    rejected = collection(RejectedEvent)
    received = _received(since)
    return durably(
        lambda: (rejected.count_documents(received), rejected.count_documents({**received, "replayed_at": None}))
    )


# --- Who is owed an alert, and who has one ---------------------------------------------------------------------------
def follows_of(trader_id: ObjectId, session: ClientSession) -> Iterator[list[Document]]:
    """Every follow of a trader, ended ones included, in chunks.

    Not by bucket, as the fan-out reads them: one whose bucket is wrong must not be forgotten here too.
    Index: followers_follow (trader_id, bucket, _id).
    """
    follows = collection(Follow).find({"trader_id": trader_id}, FOLLOW_FIELDS, session=session, batch_size=FOLLOWS_READ)
    chunk: list[Document] = []
    for follow in follows.hint([("trader_id", 1), ("bucket", 1), ("_id", 1)]):
        chunk.append(follow)
        if len(chunk) == FOLLOWS_READ:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def followers_by_id(ids: Iterable[ObjectId], session: ClientSession) -> dict[ObjectId, str]:
    """The external ids of those who are stored."""
    found = collection(Follower).find({"_id": {"$in": list(ids)}}, {"external_id": 1}, session=session)
    return {follower["_id"]: follower["external_id"] for follower in found}


def community_channels(trader_ids: Sequence[ObjectId], session: ClientSession) -> list[Document]:
    """The active community channels of these traders. Index: followers_endpoint (trader_id)."""
    query = {"trader_id": {"$in": list(trader_ids)}, "active": True}
    return list(collection(Endpoint).find(query, {"trader_id": 1, "registered_at": 1}, session=session))


def still_followers(ids: Sequence[ObjectId], session: ClientSession) -> list[ObjectId]:
    """Those who have not been erased since. Index: followers_follower (_id), which covers it."""
    found = collection(Follower).find({"_id": {"$in": list(ids)}}, {"_id": 1}, session=session)
    return [follower["_id"] for follower in found]


def count_stored(ids: list[ObjectId], session: ClientSession) -> int:
    """How many of these alerts are stored: a number, not a document each. Index: notifications_notification (_id)."""
    pipeline: Pipeline = [{"$match": {"_id": {"$in": ids}}}, {"$count": "stored"}]
    counted = list(collection(Notification).aggregate(pipeline, session=session))
    return counted[0]["stored"] if counted else 0


def stored(ids: list[ObjectId], session: ClientSession) -> set[ObjectId]:
    """Index: notifications_notification (_id), which covers it."""
    return {d["_id"] for d in collection(Notification).find({"_id": {"$in": ids}}, {"_id": 1}, session=session)}


def alerts_per_event(event_ids: Sequence[ObjectId], session: ClientSession | None = None) -> dict[ObjectId, int]:
    """Index: notifications_notification (event_id, state), which covers it."""
    pipeline: Pipeline = [
        {"$match": {"event_id": {"$in": list(event_ids)}}},
        {"$group": {"_id": "$event_id", "alerts": {"$sum": 1}}},
    ]
    counted = collection(Notification).aggregate(pipeline, hint=EVENT_INDEX, session=session)
    return {row["_id"]: row["alerts"] for row in counted}


# --- Alerts and their deliveries -------------------------------------------------------------------------------------
WAKE_AHEAD, WAKE_NONE = "ahead", "none"
"""What is right for an unfinished alert, and for a finished one."""


def _waking() -> Document:
    """Whether `wake_at` is as the deliveries want it, as a word."""
    queued = {"$filter": {"input": "$deliveries", "as": "d", "cond": {"$eq": ["$$d.state", DeliveryState.QUEUED]}}}
    times = {"$map": {"input": queued, "as": "d", "in": {"$ifNull": ["$$d.next_attempt_at", None]}}}
    branches = [
        {"case": {"$ne": [{"$ifNull": ["$wake_at", None]}, wakes()]}, "then": "wrong"},
        {"case": {"$not": [{"$in": [DeliveryState.QUEUED, "$deliveries.state"]}]}, "then": WAKE_NONE},
        # dispatch_due sweeps by priority, and `wake_at` follows the earliest delivery that has a time.
        {"case": {"$not": [{"$in": ["$priority", Priority.values]}]}, "then": "unswept"},
        {"case": {"$in": [None, times]}, "then": "asleep"},
    ]
    return {"$switch": {"branches": branches, "default": WAKE_AHEAD}}


def _pattern() -> Document:
    """What the alerts of one kind have in common. There are few kinds, however many alerts there are."""
    return {
        "state": {"$ifNull": ["$state", ""]},
        "channels": {"$ifNull": ["$deliveries.channel", []]},
        "states": {"$ifNull": ["$deliveries.state", []]},
        "waking": _waking(),
    }


def alert_patterns(which: Document, session: ClientSession) -> Iterator[Document]:
    """Alerts counted by their states: {"_id": the pattern, "alerts": how many, "state": what it should be}.

    The state that follows from the deliveries is derived once per pattern, by the rule that every statement uses.
    Index: notifications_notification (event_id, state).
    """
    delivery = {
        "channel": {"$arrayElemAt": ["$_id.channels", "$$i"]},
        "state": {"$arrayElemAt": ["$_id.states", "$$i"]},
    }
    deliveries = {"$map": {"input": {"$range": [0, {"$size": "$_id.states"}]}, "as": "i", "in": delivery}}
    pipeline: Pipeline = [
        {"$match": which},
        {"$group": {"_id": _pattern(), "alerts": {"$sum": 1}}},
        {"$set": {"deliveries": deliveries}},
        {"$set": {"state": true_state()}},
        {"$unset": "deliveries"},
    ]
    return iter(collection(Notification).aggregate(pipeline, session=session, allowDiskUse=True))


def alerts_like(which: Document, pattern: Document, limit: int, session: ClientSession) -> list[Document]:
    """Some alerts of one pattern. Index: notifications_notification (event_id, state)."""
    query = {**which, "state": pattern["state"] or {"$in": ["", None]}}
    pipeline: Pipeline = [
        {"$match": query},
        {"$match": {"$expr": {"$eq": [_pattern(), {"$literal": pattern}]}}},
        {"$limit": limit},
        {"$project": ROW_FIELDS},
    ]
    return list(collection(Notification).aggregate(pipeline, session=session))


def lost_batches(which: Document, now: datetime, session: ClientSession) -> Iterator[Document]:
    """Batches that valid deliveries wait in, and that nobody will send.

    {"_id": the batch, "rows": the alerts that carry it, "batch": [what is stored of it], "strays": the alerts that it
    does not hold}. Past its validity a delivery needs no batch: its row is due, and dispatch_due lets it expire.

    Index: notifications_notification (event_id, state); delivery_batch (_id).
    """
    held = {"$and": [{"$eq": ["$$d.state", DeliveryState.QUEUED]}, {"$ne": [{"$ifNull": ["$$d.batch", None]}, None]}]}
    head: Pipeline = [
        {
            "$project": {
                "kind": 1, "next_look_at": 1, "finished_at": 1, "priority": 1,
                "strays": {"$setDifference": ["$$rows", "$ids"]},
            }
        }
    ]  # fmt: skip
    alive: Document = {
        "kind": BatchKind.DELIVER.value,
        "finished_at": None,
        "next_look_at": {"$type": "date"},  # Also of a claimed one: its lease's end.
        "priority": {"$in": Priority.values},
        "strays": [],
    }
    pipeline: Pipeline = [
        {"$match": {**which, "state": NotificationState.PENDING.value, "expires_at": {"$gt": now}}},
        {"$project": {"held": {"$filter": {"input": "$deliveries", "as": "d", "cond": held}}}},
        {"$unwind": "$held"},
        {"$group": {"_id": "$held.batch", "rows": {"$push": "$_id"}}},
        {
            "$lookup": {
                "from": Batch._meta.db_table, "localField": "_id", "foreignField": "_id", "let": {"rows": "$rows"},
                "pipeline": head, "as": "batch",
            }
        },
        {"$match": {"batch": {"$not": {"$elemMatch": alive}}}},
    ]  # fmt: skip
    return iter(collection(Notification).aggregate(pipeline, session=session, allowDiskUse=True))


def alerts_by_id(ids: Sequence[ObjectId], session: ClientSession) -> dict[ObjectId, Document]:
    query = {"_id": {"$in": list(ids)}}
    fields = {**ROW_FIELDS, "deliveries.channel": 1, "deliveries.batch": 1}
    return {row["_id"]: row for row in collection(Notification).find(query, fields, session=session)}


# --- Overdue wake-ups ------------------------------------------------------------------------------------------------
def longest_overdue(
    model: type[Batch | Notification], field: str, priority: str, by: datetime, limit: int
) -> dict[ObjectId, datetime]:
    """The time of each of those that have been due the longest, by id.

    Index: delivery_batch (priority, next_look_at); notifications_notification (priority, wake_at), both partial.
    """
    late = collection(model).find(_overdue(field, priority, by), {field: 1}).sort(field, 1).limit(limit)
    return durably(lambda: {row["_id"]: row[field] for row in late.clone()})


def count_overdue(model: type[Batch | Notification], field: str, priority: str, by: datetime) -> int:
    """Index: as above."""
    return durably(lambda: collection(model).count_documents(_overdue(field, priority, by)))


def times_of(model: type[Batch | Notification], field: str, ids: Iterable[ObjectId]) -> dict[ObjectId, Any]:
    query = {"_id": {"$in": list(ids)}}
    return durably(lambda: {row["_id"]: row.get(field) for row in collection(model).find(query, {field: 1})})


def _overdue(field: str, priority: str, by: datetime) -> Document:
    return {"priority": priority, field: {"$lte": by, "$type": "date"}}
