"""What MongoDB keeps of the circuit breakers: their history, their last known state, and what staff have forced."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from bson import ObjectId

from delivery.choices import BreakerStatus
from delivery.guards.breaker import State
from delivery.guards.shared import live_states
from delivery.models import Breaker, BreakerChange
from followers import clock
from followers.mongo import collection, durably, quick
from notifications.telemetry import BREAKER_CHANGES

Document = dict[str, Any]

FORCED_BY_HAND = "forced by staff"


def breaker_id(channel: str, account: str) -> ObjectId:
    """A breaker's id follows from what it guards: every worker that starts finds the same row."""
    return ObjectId(hashlib.sha256(f"{channel}\0{account}".encode()).digest()[:12])


def guard_name(row: Mapping[str, Any]) -> str:
    """The name under which workers share a breaker's state in Redis."""
    return f"{row['channel']}:{row['account']}"


def ensure_breakers(accounts: Mapping[str, str]) -> None:
    """A row per channel and account, so that staff see them before anything happens. Index: _id."""
    for channel, account in accounts.items():
        known = {"_id": breaker_id(channel, account)}
        new = {
            "channel": channel,
            "account": account,
            "status": BreakerStatus.CLOSED.value,
            "reason": "",
            "changed_at": None,
            "next_probe_at": None,
            "forced": "",
            "forced_by": "",
            "forced_at": None,
            "note": "",
        }
        change = {"$setOnInsert": new, "$set": {"used_at": clock.now()}}
        durably(partial(quick(Breaker).update_one, known, change, upsert=True))


def forced_breakers() -> dict[str, BreakerStatus]:
    """What staff have forced, by guard name. The collection holds a row per channel and account: a handful."""
    rows = collection(Breaker).find({"forced": {"$ne": ""}}, {"channel": 1, "account": 1, "forced": 1})
    return {guard_name(row): BreakerStatus(row["forced"]) for row in rows}


def statuses_now() -> dict[str, BreakerStatus]:
    """Where each channel's breaker stands, forced ones included. Raises redis.RedisError.

    Of several accounts it is the one that a worker has begun to use last: one that is no longer used says nothing.
    """
    fields = {"channel": 1, "account": 1, "forced": 1}
    rows = collection(Breaker).find({}, fields, sort=[("used_at", 1)])  # Nobody has used what has no such time: first.
    in_use = {row["channel"]: row for row in rows}
    live = live_states([guard_name(row) for row in in_use.values()])
    return {
        channel: BreakerStatus(row["forced"]) if row["forced"] else live[guard_name(row)].status
        for channel, row in in_use.items()
    }


def note_change(channel: str, account: str, before: State, after: State, by: str) -> None:
    """Keeps a change of the breaker's own state: as its last known state, and in its history."""
    at = datetime.fromtimestamp(after.since, UTC)
    probe_at = datetime.fromtimestamp(after.probe_at, UTC) if after.status is BreakerStatus.OPEN else None
    known = {"status": after.status.value, "reason": after.reason, "changed_at": at, "next_probe_at": probe_at}
    quick(Breaker).update_one({"_id": breaker_id(channel, account)}, {"$set": known})
    _note(channel, account, at, before.status, after.status, after.reason, by)


def force_breaker(breaker: ObjectId, status: BreakerStatus | None, by: str, note: str, now: datetime) -> bool:
    """Forces a breaker open or closed, or (None) leaves it to itself again. Workers follow within seconds.

    Returns False where it stands so already.
    """
    wanted = status.value if status else ""
    change = {"forced": wanted, "forced_by": by if status else "", "forced_at": now if status else None, "note": note}
    query = {"_id": breaker, "forced": {"$ne": wanted}}
    before = durably(lambda: collection(Breaker).find_one_and_update(query, {"$set": change}))
    if before is None:
        return False
    own = BreakerStatus(before["status"])
    was = BreakerStatus(before["forced"]) if before["forced"] else own
    words = f"{FORCED_BY_HAND}: {note}" if status else f"left to itself again: {note}"
    BREAKER_CHANGES.labels(before["channel"], (status or own).value).inc()
    _note(before["channel"], before["account"], now, was, status or own, words, by)
    return True


def _note(
    channel: str, account: str, at: datetime, before: BreakerStatus, after: BreakerStatus, reason: str, by: str
) -> None:
    change = {
        "channel": channel,
        "account": account,
        "at": at,
        "status_before": before.value,
        "status_after": after.value,
        "reason": reason[:500],
        "by": by[:200],
    }
    quick(BreakerChange).insert_one(change)
