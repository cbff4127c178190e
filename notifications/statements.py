"""The hot paths' MongoDB statements on trade events, notifications and in-app entries."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from bson import ObjectId

from followers.choices import Channel
from followers.clock import as_utc
from followers.mongo import collection, durably, insert_missing, provisional, quick
from notifications.choices import EXITS, DeliveryState, FanOutState, NotificationState, Reason
from notifications.models import InAppEntry, Notification, RejectedEvent, TradeEvent, Update
from notifications.reviews import REACHED, true_review
from notifications.telemetry import DELIVERIES
from notifications.update_events import as_event, change_event, stored_update

Document = dict[str, Any]
Pipeline = list[dict[str, Any]]


class IdCollisionError(RuntimeError):
    """Two different (event, follower) pairs gave the same notification id."""


# --- Ids -------------------------------------------------------------------------------------------------------------
def event_id(external_id: str) -> ObjectId:
    """The trade event's id, made from the engine's: storing an event twice is storing it once, without a look-up."""
    return ObjectId(hashlib.sha256(external_id.encode()).digest()[:12])


def notification_id(executed_at: datetime, event_key: str, recipient: object) -> ObjectId:
    """4 bytes of the event's time, 8 bytes of SHA-256(event, recipient).

    It stands in for a unique index on (event, follower); `insert_notifications` checks for collisions.
    """
    return notification_ids(executed_at, event_key, [recipient])[0]


def notification_ids(executed_at: datetime, event_key: str, recipients: Iterable[object]) -> list[ObjectId]:
    """`notification_id` of each recipient of one event."""
    return list(map(notification_id_maker(executed_at, event_key), recipients))


def notification_id_maker(executed_at: datetime, event_key: str) -> Callable[[object], ObjectId]:
    """`notification_id` for many recipients of one event, one by one."""
    seconds = (int(as_utc(executed_at).timestamp()) & 0xFFFFFFFF).to_bytes(4, "big")
    begun = hashlib.sha256(f"{event_key}\0".encode())

    def made_for(recipient: object) -> ObjectId:
        digest = begun.copy()
        digest.update(str(recipient).encode())
        return ObjectId(seconds + digest.digest()[:8])

    return made_for


def community_of(trader_id: ObjectId) -> str:
    """Who receives a trader's community post, for `notification_id`."""
    return f"trader:{trader_id}"


# --- Derived fields --------------------------------------------------------------------------------------------------
def _where(condition: Any, source: Any = "$deliveries") -> Document:
    return {"$filter": {"input": source, "as": "d", "cond": condition}}


@cache
def derive() -> Pipeline:
    """The stages that recompute `state`, `wake_at` and `review` from `deliveries` itself, never from a copy in memory.

    Every statement that changes a delivery ends with them, so that two channels recording at the same time cannot
    lose each other's retry. Where everything was reached and nothing is reviewed, as it mostly is, little is computed.
    """
    all_reached = {
        "$and": [
            {"$setIsSubset": ["$deliveries.state", REACHED]},
            {"$ne": ["$deliveries", []]},
            {"$lte": ["$review", None]},
        ]
    }
    fields = {
        "state": (NotificationState.DELIVERED.value, true_state()),
        "wake_at": (None, wakes()),
        "review": ("$review", true_review()),
    }
    return [{"$set": {name: {"$cond": [all_reached, usual, rule]} for name, (usual, rule) in fields.items()}}]


def true_state() -> Document:
    """`state` as `deliveries` would have it: an expression over their channels and states."""
    counted = _where(
        {"$or": [{"$ne": ["$$d.channel", Channel.IN_APP]}, {"$eq": ["$$d.state", DeliveryState.DELIVERED]}]}
    )
    wanted = {"$setDifference": ["$$states", [DeliveryState.SKIPPED]]}
    reached = {"$setIntersection": [wanted, REACHED]}
    state = {
        "$switch": {
            "branches": [
                {"case": {"$in": [DeliveryState.QUEUED, "$$states"]}, "then": NotificationState.PENDING},
                {
                    "case": {"$and": [{"$ne": [wanted, []]}, {"$setIsSubset": [wanted, REACHED]}]},
                    "then": NotificationState.DELIVERED,
                },
                {"case": {"$ne": [reached, []]}, "then": NotificationState.PARTIAL},
                {
                    "case": {
                        "$ne": [{"$setIntersection": ["$$states", [DeliveryState.FAILED, DeliveryState.UNKNOWN]]}, []]
                    },
                    "then": NotificationState.FAILED,
                },
                {"case": {"$in": [DeliveryState.EXPIRED, "$$states"]}, "then": NotificationState.EXPIRED},
                {"case": {"$in": [DeliveryState.CANCELLED, "$$states"]}, "then": NotificationState.CANCELLED},
            ],
            "default": NotificationState.SKIPPED,
        }
    }
    states = {"$cond": [{"$eq": ["$$counted", []]}, "$deliveries.state", "$$counted.state"]}
    return {"$let": {"vars": {"counted": counted}, "in": {"$let": {"vars": {"states": states}, "in": state}}}}


def wakes() -> Document:
    """The expression for `wake_at`: when the first unfinished delivery is due, null if there is none."""
    unfinished = _where({"$eq": ["$$d.state", DeliveryState.QUEUED]})
    return {"$min": {"$map": {"input": unfinished, "as": "d", "in": "$$d.next_attempt_at"}}}


def change_deliveries(condition: Any, change: Document) -> Pipeline:
    """A pipeline that merges `change` into each delivery (`$$d`) for which `condition` holds, and derives the rest."""
    mapped = {"$cond": [condition, {"$mergeObjects": ["$$d", change]}, "$$d"]}
    return [{"$set": {"deliveries": {"$map": {"input": "$deliveries", "as": "d", "in": mapped}}}}, *derive()]


def ended(state: DeliveryState, reason: Reason | str = "") -> Document:
    """The fields that bring a delivery to an end state."""
    return {
        "state": state.value,
        "batch": None,
        "next_attempt_at": None,
        **({"error_code": str(reason), "error_message": reason.label} if isinstance(reason, Reason) else {}),
    }


def arrived(now: datetime) -> Document:
    """queued, unknown or sent → delivered, as fields over `$$d`: a receipt or the follower's app says so.

    The batch stays: whoever holds it records its attempt and lets go.
    """
    return {
        "state": DeliveryState.DELIVERED.value,
        "sent_at": {"$ifNull": ["$$d.sent_at", now]},
        "delivered_at": now,
        "next_attempt_at": None,
        "error_code": "",
        "error_message": "",
    }


def ended_unsent(state: DeliveryState, reason: Reason) -> Document:
    """`ended` as an expression over `$$d`: `unknown` if an earlier attempt may have been accepted by the vendor."""
    doubtful = {"$in": ["unknown", "$$d.attempt_log.outcome"]}
    return {"$cond": [doubtful, ended(DeliveryState.UNKNOWN, reason), ended(state, reason)]}


# --- Trade events ----------------------------------------------------------------------------------------------------
def store_events(documents: list[Document]) -> dict[ObjectId, Document]:
    """Inserts trade events; one that is stored already stays as it is. Returns the stored documents by id.

    Within `followers.mongo.one_primary`; what a majority acknowledges next confirms them.
    """
    if not insert_missing(provisional(TradeEvent), documents):
        return {d["_id"]: d for d in documents}
    ids = [d["_id"] for d in documents]
    return durably(lambda: {d["_id"]: d for d in collection(TradeEvent).find({"_id": {"$in": ids}})})


def confirm_events(documents: list[Document]) -> None:
    """Has a majority acknowledge events that are stored: to find them there is a write like any other."""
    insert_missing(collection(TradeEvent), documents)


def store_rejected(documents: list[Document]) -> None:
    """Inserts rejected events; one per (topic, partition, offset). Index: that unique one."""
    insert_missing(collection(RejectedEvent), documents)


def received_since(since: datetime) -> Document:
    """The ORM's filter for rejected events that were received at `since` or later.

    Their ids begin with that time, in seconds and by the clock of whoever stored them: that bounds what is read.
    """
    return {"received_at__gte": since, "pk__gte": ObjectId.from_datetime(since - CLOCK_SKEW)}


CLOCK_SKEW = timedelta(minutes=1)


def event(event_oid: ObjectId) -> Document | None:
    """A trade event, or a general update in the form of one."""
    found = durably(lambda: collection(TradeEvent).find_one({"_id": event_oid}))
    if found is None and (update := stored_update(event_oid)) is not None:
        return as_event(update)
    return found


def traceparents(event_oids: Collection[ObjectId]) -> dict[ObjectId, str]:
    """What continues the traces of trades and general updates; without those that have none. Index: _id."""
    query = {"_id": {"$in": list(event_oids)}, "traceparent": {"$gt": ""}}
    found = durably(lambda: list(collection(TradeEvent).find(query, {"traceparent": 1})))
    if len(found) < len(event_oids):
        found += durably(lambda: list(collection(Update).find(query, {"traceparent": 1})))
    return {event["_id"]: event["traceparent"] for event in found}


def finish_shard(event_oid: ObjectId, shard: int, now: datetime, alerts: int = 0) -> None:
    """Marks one shard as done; the event is fanned out when all its shards are, and not before.

    `alerts` is how many it has written: fewer stored than that, and some are gone (delivery/proof.py).
    """
    counted = {"$add": [{"$ifNull": ["$alerts_written", 0]}, alerts]}
    done = {"$setUnion": ["$shards_done", [shard]]}
    complete = {"$and": [{"$eq": [{"$size": "$shards_done"}, "$shards"]}, {"$eq": ["$fanned_out_at", None]}]}
    pipeline: Pipeline = [
        {"$set": {"alerts_written": {"$cond": [{"$in": [shard, "$shards_done"]}, "$alerts_written", counted]}}},
        {"$set": {"shards_done": done}},
        {
            "$set": {
                "fanned_out_at": {"$cond": [complete, now, "$fanned_out_at"]},
                "state": {"$cond": [complete, FanOutState.DONE.value, "$state"]},
            }
        },
    ]
    change_event({"_id": event_oid}, pipeline)


def fail_event(event_oid: ObjectId) -> None:
    """pending → failed: a shard of it failed too often. It can be run again from the admin."""
    query = {"_id": event_oid, "state": FanOutState.PENDING.value}
    change_event(query, {"$set": {"state": FanOutState.FAILED.value}})


def _later(executed_at: datetime, event_key: str, operator: str) -> list[Document]:
    """The order of events, (executedAt, eventId), as a query."""
    return [
        {"executed_at": {operator: executed_at}},
        {"executed_at": executed_at, "external_id": {operator: event_key}},
    ]


def closing_event_after(entry: Document) -> Document | None:
    """The first stored event that closes the position which this entry event opens or adds to.

    Index: notifications_tradeevent (trader_id, instrument, executed_at).
    """
    query = {
        "trader_id": entry["trader_id"],
        "instrument": entry["instrument"],
        "closes_position": True,
        "$or": _later(entry["executed_at"], entry["external_id"], "$gt"),
    }
    return durably(lambda: collection(TradeEvent).find_one(query, {"external_id": 1}, sort=[("executed_at", 1)]))


def events_of_same_order(fanned: Document) -> list[Document]:
    """Other events of the same trader, instrument and order id. Index: (trader_id, instrument, order_id)."""
    query = {key: fanned[key] for key in ("trader_id", "instrument", "order_id")}
    found = durably(lambda: list(collection(TradeEvent).find(query, {"external_id": 1, "executed_at": 1})))
    return [event for event in found if event["_id"] != fanned["_id"]]


# --- Notifications ---------------------------------------------------------------------------------------------------
def insert_notifications(documents: list[Document]) -> set[ObjectId]:
    """Inserts alerts; one that is there already is success, checked against (event, follower).

    Durable: after a failover the same worker goes on with the new primary, and would call a shard done whose rows went
    with the old one.

    Returns the ids of those that were there. Raises IdCollisionError if another pair holds the id.
    """
    present = [documents[i] for i in insert_missing(collection(Notification), documents)]
    if not present:
        return set()
    expected = {d["_id"]: (d["event_id"], d["follower_id"]) for d in present}
    found = collection(Notification).find({"_id": {"$in": list(expected)}}, {"event_id": 1, "follower_id": 1})
    for row in found:
        if expected[row["_id"]] != (row["event_id"], row["follower_id"]):
            raise IdCollisionError(f"Notification {row['_id']} belongs to another event and follower.")
    return set(expected)


def existing_notifications(ids: Sequence[ObjectId]) -> set[ObjectId]:
    """Which of these alerts are stored already."""
    query = {"_id": {"$in": list(ids)}}
    return durably(lambda: {d["_id"] for d in collection(Notification).find(query, {"_id": 1})})


def withheld_notifications(ids: Sequence[ObjectId]) -> set[ObjectId]:
    """Which of these alerts were kept out of their followers' inboxes."""
    skipped = {"$elemMatch": {"channel": Channel.IN_APP.value, "state": DeliveryState.SKIPPED.value}}
    query = {"_id": {"$in": list(ids)}, "deliveries": skipped}
    return durably(lambda: {d["_id"] for d in collection(Notification).find(query, {"_id": 1})})


def supersede_entries(closing: Document, now: datetime, after_each: Callable[[], None] = lambda: None) -> int:
    """Withdraws what is unsent of the older entry alerts of the same trader and instrument.

    Deliveries without a batch are cancelled here; those in a batch are marked, and whoever loads the batch cancels
    them. What was loaded before keeps its true outcome. Returns the number of alerts that were touched.

    One statement per entry event, and `after_each` is called in between: of a large backlog it takes minutes, longer
    than a lease.

    Index: notifications_tradeevent (trader_id, instrument, executed_at); notifications_notification (event_id, state).
    """
    older = {
        "trader_id": closing["trader_id"],
        "instrument": closing["instrument"],
        "action": {"$nin": [a.value for a in EXITS]},
        "expires_at": {"$gt": now},
        "$or": _later(closing["executed_at"], closing["external_id"], "$lt"),
    }
    events = durably(lambda: [e["_id"] for e in collection(TradeEvent).find(older, {"_id": 1})])
    touched = 0
    for entry in events:
        touched += mark_superseded({"event_id": entry}, closing["external_id"])
        after_each()
    return touched


def mark_superseded(which: Document, closing_key: str) -> int:
    """Marks pending alerts as superseded and cancels their deliveries that are in no batch; each alert once."""
    query = {**which, "state": NotificationState.PENDING.value, "superseded_by": {"$ne": closing_key}}
    free = {"$and": [{"$eq": ["$$d.state", DeliveryState.QUEUED]}, {"$eq": ["$$d.batch", None]}]}
    pipeline = [
        {"$set": {"superseded_by": {"$literal": closing_key}}},
        *change_deliveries(free, ended_unsent(DeliveryState.CANCELLED, Reason.SUPERSEDED_BY_EXIT)),
    ]
    withdrawn = durably(lambda: list(collection(Notification).aggregate(_free_deliveries(query))))
    touched = durably(lambda: collection(Notification).update_many(query, pipeline)).modified_count
    for group in withdrawn if touched else ():
        state = DeliveryState.UNKNOWN if group["_id"]["doubtful"] else DeliveryState.CANCELLED
        DELIVERIES.labels(group["_id"]["channel"], state.value, Reason.SUPERSEDED_BY_EXIT.value).inc(group["count"])
    return touched


def _free_deliveries(query: Document) -> Pipeline:
    """Counts, by channel and doubt, the deliveries of these alerts that are queued and in no batch."""
    free = {"state": DeliveryState.QUEUED.value, "batch": None}
    return [
        {"$match": {**query, "deliveries": {"$elemMatch": free}}},
        {"$unwind": "$deliveries"},
        {"$match": {f"deliveries.{name}": value for name, value in free.items()}},
        {
            "$group": {
                "_id": {
                    "channel": "$deliveries.channel",
                    "doubtful": {"$in": ["unknown", "$deliveries.attempt_log.outcome"]},
                },
                "count": {"$sum": 1},
            }
        },
    ]


# --- In-app entries --------------------------------------------------------------------------------------------------
def insert_entries(documents: list[Document]) -> None:
    """Within `followers.mongo.one_primary`; what a majority acknowledges next confirms them."""
    insert_missing(provisional(InAppEntry), documents)


def prune_entries(
    fanned: Document, follower_ids: Sequence[ObjectId], keep: int, now: datetime
) -> list[tuple[ObjectId, ObjectId]]:
    """Removes what is outdated for these followers of one trader; run after the insert of the event's own entries.

    Outdated = replaced by a newer entry of the same instrument and order, or beyond the newest `keep` by order. Two
    trades fanned out at once leave the same entries whichever comes last. Expired entries are outdated too, and do
    not count; reads leave them out and the TTL index removes them. Returns (follower, entry) of each entry that was
    removed, for the live push.

    Index: notifications_inappentry (trader_id, follower_id, executed_at, event_key, expires_at, _id), which covers it.
    """
    removed = [
        *_replaced_entries(fanned, follower_ids),
        *_surplus_entries(fanned["trader_id"], follower_ids, keep, now),
    ]
    delete_entries([entry for _, entry in removed])
    return removed


def delete_entries(ids: list[ObjectId]) -> None:
    """Acknowledged by the primary alone: an outdated entry that comes back is pruned by the next trade."""
    if ids:
        durably(lambda: quick(InAppEntry).delete_many({"_id": {"$in": ids}}))


def _surplus_entries(
    trader_id: ObjectId, follower_ids: Sequence[ObjectId], keep: int, now: datetime
) -> list[tuple[ObjectId, ObjectId]]:
    pipeline: Pipeline = [
        {"$match": {"trader_id": trader_id, "follower_id": {"$in": list(follower_ids)}, "expires_at": {"$gt": now}}},
        {"$sort": {"follower_id": 1, "executed_at": -1, "event_key": -1}},
        {"$group": {"_id": "$follower_id", "ids": {"$push": "$_id"}}},
        {"$match": {f"ids.{keep}": {"$exists": True}}},
        {"$project": {"ids": {"$slice": ["$ids", keep, 1_000_000]}}},
    ]
    surplus = durably(lambda: list(collection(InAppEntry).aggregate(pipeline)))
    return [(row["_id"], entry) for row in surplus for entry in row["ids"]]


def _replaced_entries(fanned: Document, follower_ids: Sequence[ObjectId]) -> list[tuple[ObjectId, ObjectId]]:
    """Entries of the same order that are not the newest of their follower. Entry ids follow from (event, follower)."""
    if not fanned["order_id"]:
        return []
    others = events_of_same_order(fanned)
    if not others:
        return []
    newest_first = sorted([*others, fanned], key=lambda e: (e["executed_at"], e["external_id"]), reverse=True)
    owners = {
        follower: [notification_id(e["executed_at"], e["external_id"], follower) for e in newest_first]
        for follower in follower_ids
    }
    wanted = [entry for entries in owners.values() for entry in entries]
    query = {"_id": {"$in": wanted}}
    present = durably(lambda: {d["_id"] for d in collection(InAppEntry).find(query, {"_id": 1})})
    return [
        (follower, entry) for follower, entries in owners.items() for entry in [e for e in entries if e in present][1:]
    ]


EVENT_INDEX = {"event_id": 1, "state": 1, "_id": -1}
"""Alerts of one event, and their outcomes without a look at the documents; named as a hint."""


def notifications_of(event_oid: ObjectId, fields: Document) -> Iterable[Document]:
    """All alerts of one event. Index: notifications_notification (event_id, state)."""
    return collection(Notification).find({"event_id": event_oid}, fields)
