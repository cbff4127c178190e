"""The pipeline, top to bottom. A queue message carries the id of a batch and is only a hint: what is to be done, and
whether it still is, stands in MongoDB.

    Kafka trade.executed ── consume_trades: store the event and its shards (delivery/intake.py)
        └─ fan_out(shard): store an alert for each follower, push to whoever is connected (delivery/fan_out.py)
            └─ deliver(batch): claim, send, record (delivery/deliver.py)
    dispatch_due: look again at whatever is unfinished and due (delivery/dispatcher.py)
"""

from __future__ import annotations

import dramatiq
import structlog
from bson import ObjectId

from delivery.broker import queue_name
from delivery.choices import BatchKind
from delivery.deliver import deliver_batch
from delivery.fan_out import fan_out_shard
from notifications.choices import Priority

# Hints are sent to a queue per priority (delivery.broker.send_hints); these are only where a bare `.send()` would go.
DEFAULT_FAN_OUT_QUEUE = queue_name(BatchKind.FAN_OUT, Priority.HIGH)
DEFAULT_DELIVER_QUEUE = queue_name(BatchKind.DELIVER, Priority.HIGH)


@dramatiq.actor(queue_name=DEFAULT_FAN_OUT_QUEUE)
def fan_out(batch_id: str) -> None:
    """Writes one shard's alerts."""
    structlog.contextvars.clear_contextvars()  # Threads are reused; the last message's correlation id is not ours.
    with structlog.contextvars.bound_contextvars(batch_id=batch_id):
        fan_out_shard(ObjectId(batch_id))


@dramatiq.actor(queue_name=DEFAULT_DELIVER_QUEUE)
async def deliver(batch_id: str) -> None:
    """Sends one batch of deliveries."""
    with structlog.contextvars.bound_contextvars(batch_id=batch_id):
        await deliver_batch(ObjectId(batch_id))
