"""When dispatch_due was last at work, kept in MongoDB: its metric is seen on its own machine only."""

from __future__ import annotations

from datetime import datetime

from delivery.models import LastSweep
from followers.mongo import collection, durably, quick

NOTED_EVERY_SECONDS = 5.0
DISPATCHER = "dispatch_due"


def note_sweep(now: datetime) -> None:
    """Any number of dispatchers note it in one document. Neither repeated nor durable: it is soon noted anew."""
    quick(LastSweep).update_one({"_id": DISPATCHER}, {"$max": {"swept_at": now}}, upsert=True)


def last_sweep(repeat_for_seconds: float) -> datetime | None:
    """Naive UTC, as stored; None = none was ever noted. Index: delivery_lastsweep (_id)."""
    found = durably(lambda: collection(LastSweep).find_one({"_id": DISPATCHER}), repeat_for_seconds)
    return found["swept_at"] if found else None
