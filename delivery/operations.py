"""What a person may set going again: called from the admin, never from the pipeline itself."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bson import ObjectId

from delivery.models import Batch
from delivery.statements import insert_batches, shard_batch, shard_batch_id
from followers import clock
from followers.mongo import collection, durably
from notifications.choices import FanOutState
from notifications.statements import event
from notifications.update_events import change_event

Document = dict[str, Any]


def rerun_fan_out(event_id: ObjectId) -> int:
    """failed → pending: has every shard that is not done run again, each as soon as dispatch_due looks at it.

    A shard that a worker holds at this moment is left to it. Alerts that were written stay as they are, so that
    nobody is told twice. Returns the number of shards that will run; 0 for an event that is done, expired or unknown.
    """
    stored = event(event_id)
    if stored is None or stored["state"] not in {FanOutState.FAILED, FanOutState.PENDING}:
        return 0
    now = clock.now()
    unfinished = [shard for shard in range(stored["shards"]) if shard not in stored["shards_done"]]
    # A finished batch is removed after a while; the shard's id follows from the event, so it is the same one again.
    insert_batches([{**shard_batch(stored, shard, now), **_due(now)} for shard in unfinished])
    ids = [shard_batch_id(stored["external_id"], shard) for shard in unfinished]
    released = _release(ids, now)
    # Last, and only from `failed`: until then the event is named as failed, and a shard may have completed it already.
    failed = {"_id": event_id, "state": FanOutState.FAILED.value}
    change_event(failed, {"$set": {"state": FanOutState.PENDING.value}})
    return released


def _release(batch_ids: list[ObjectId], now: datetime) -> int:
    """Makes shards that nobody holds unclaimed and due. Index: delivery_batch (_id)."""
    free = {"$or": [{"token": None}, {"finished_at": {"$ne": None}}]}
    query = {"_id": {"$in": batch_ids}, **free}
    return durably(lambda: collection(Batch).update_many(query, {"$set": _due(now)})).matched_count


def _due(now: datetime) -> Document:
    return {
        "token": None,
        "lease_until": None,
        "finished_at": None,
        "next_look_at": now,
        "hints": 0,
        # Not 0: it is what tells the fan-out that alerts of an earlier run may be stored already.
        "failures": 1,
    }
