"""What is old enough to go, and its removal: alerts first, then the trades that nothing hangs on any more.

A TTL index cannot do it: it would take an alert that is unfinished or waits for a person, and it would take alerts
without a word to the proof, which would then miss them (delivery/proof.py). So a trade is marked before the first of
its alerts goes, and goes itself only once all of them are gone. Whatever moment a run is killed at, the next one
finds the rest by the same queries. In-app entries need nothing: their TTL index removes each when it expires.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson import ObjectId
from pymongo.collection import Collection

from followers.mongo import collection, durably
from notifications.choices import FanOutState, NotificationState
from notifications.models import Notification, RejectedEvent, TradeEvent, Update
from notifications.statements import EVENT_INDEX

Document = dict[str, Any]

EVENTS_READ = 200
BATCH = 1_000
"""Documents per delete: a few milliseconds of one lock, so that deliveries beside it do not notice."""

Source = type[TradeEvent | Update]
SOURCES: tuple[Source, ...] = (TradeEvent, Update)
"""What alerts come from; below, a trade stands for a general update as well."""

FINISHED_EVENTS = [FanOutState.DONE.value, FanOutState.EXPIRED.value]
FINISHED_ALERTS = [state.value for state in NotificationState if state != NotificationState.PENDING]


@dataclass(slots=True)
class Pruned:
    """What a run has removed; in a dry run, what it would have."""

    events_seen: int = 0
    alerts: int = 0
    events: int = 0
    rejected: int = 0


def prune(
    alerts_before: datetime,
    events_before: datetime,
    now: datetime,
    dry_run: bool = False,
    on_progress: Callable[[Pruned], None] = lambda done: None,
) -> Pruned:
    """Removes finished alerts of trades received before the one time, and trades received before the other.

    An alert that is unfinished, still valid or in an open review stays, and its trade with it; so does a trade whose
    fan-out is unfinished or failed. A rejected message goes by the trades' time, replayed or not.

    Parameters:
      alerts_before, events_before: Aware UTC; the second is never the later one.
      on_progress: Called after each page of trades.

    Raises PyMongoError if MongoDB stays away; what is removed by then stays removed, and a new run does the rest.
    """
    done = Pruned()
    for source in SOURCES:
        for page in _events_before(source, alerts_before):
            ids = [e["_id"] for e in page]
            if not dry_run:
                mark_pruned(source, ids, now)
            _prune_alerts({"event_id": {"$in": ids}}, now, dry_run, done)
            old = [e["_id"] for e in page if e["received_at"] < events_before.replace(tzinfo=None)]
            _prune_events(source, old, dry_run, done)
            done.events_seen += len(page)
            on_progress(done)
    _prune_alerts({"event_id": None, "created_at": {"$lt": alerts_before}}, now, dry_run, done)
    rejected = collection(RejectedEvent)
    for ids in _in_batches(rejected, rejected_before(events_before)):
        done.rejected += len(ids) if dry_run else delete(rejected, {"_id": {"$in": ids}})
    return done


def _prune_alerts(which: Document, now: datetime, dry_run: bool, done: Pruned) -> None:
    alerts = collection(Notification)
    query = {**which, **removable(now)}
    for ids in _in_batches(alerts, query):
        # The conditions once more: a person may have asked for another try since it was read.
        done.alerts += len(ids) if dry_run else delete(alerts, {"_id": {"$in": ids}, **removable(now)})


def _prune_events(source: Source, ids: Sequence[ObjectId], dry_run: bool, done: Pruned) -> None:
    if not ids:
        return
    if dry_run:
        done.events += len(ids)
        return
    held = events_with_alerts(ids)
    query = {"_id": {"$in": [oid for oid in ids if oid not in held]}, "alerts_pruned_at": {"$ne": None}}
    done.events += delete(collection(source), query)


# --- Statements ------------------------------------------------------------------------------------------------------
def finished_before(before: datetime) -> Document:
    """Trades old enough whose fan-out has ended. Index: notifications_tradeevent (received_at, _id)."""
    return {"received_at": {"$lt": before}, "state": {"$in": FINISHED_EVENTS}}


def removable(now: datetime) -> Document:
    """Alerts that nobody works on, nobody waits for and nobody can see in an inbox any more."""
    return {
        "state": {"$in": FINISHED_ALERTS},
        "wake_at": None,
        "review.open": {"$ne": True},
        "expires_at": {"$lt": now},
    }


def rejected_before(before: datetime) -> Document:
    """Index: notifications_rejectedevent (received_at)."""
    return {"received_at": {"$lt": before}}


def mark_pruned(source: Source, event_ids: Sequence[ObjectId], now: datetime) -> None:
    """Tells the proof that alerts of these trades may be gone from now on. Majority, and before the first one goes."""
    query = {"_id": {"$in": list(event_ids)}, "alerts_pruned_at": None}
    if event_ids:
        durably(lambda: collection(source).update_many(query, {"$set": {"alerts_pruned_at": now}}))


def events_with_alerts(event_ids: Sequence[ObjectId]) -> set[ObjectId]:
    """Which of these trades still have an alert. Index: notifications_notification (event_id, state), which covers."""
    pipeline: list[Document] = [
        {"$match": {"event_id": {"$in": list(event_ids)}}},
        {"$group": {"_id": "$event_id"}},
    ]
    return durably(lambda: {row["_id"] for row in collection(Notification).aggregate(pipeline, hint=EVENT_INDEX)})


def delete(target: Collection[Document], query: Document) -> int:
    """Deletes what the query names by id. Returns how many went, as far as the last answer told."""
    return durably(lambda: target.delete_many(query)).deleted_count


def _events_before(source: Source, before: datetime) -> Iterator[list[Document]]:
    """The oldest first, a page by key. Index: notifications_tradeevent, notifications_update (received_at, _id)."""
    query, after = finished_before(before), None
    while True:
        rest = query if after is None else {"$and": [query, _later(after)]}
        found = collection(source).find(rest, {"received_at": 1}).sort([("received_at", 1), ("_id", 1)])
        page = durably(lambda found=found: list(found.limit(EVENTS_READ).clone()))  # type: ignore[misc]
        if not page:
            return
        after = page[-1]
        yield page


def _later(after: Document) -> Document:
    at = after["received_at"]
    return {"$or": [{"received_at": {"$gt": at}}, {"received_at": at, "_id": {"$gt": after["_id"]}}]}


def _in_batches(target: Collection[Document], query: Document) -> Iterator[list[ObjectId]]:
    """Ids, a batch at a time, read by one cursor: what has to stay is passed once, however much of it there is."""
    batch: list[ObjectId] = []
    for row in target.find(query, {"_id": 1}, batch_size=BATCH):
        batch.append(row["_id"])
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
