"""Whether each stored alert is as its deliveries say, and whether somebody sees to each that is unfinished."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bson import ObjectId
from pymongo.client_session import ClientSession

from delivery import proof_statements as statements
from delivery.choices import Gap
from delivery.proof_findings import NAMED, Finding, Tally
from notifications.choices import DeliveryState

Document = dict[str, Any]

RIGHT_WAKING = {statements.WAKE_AHEAD, statements.WAKE_NONE}
WRONG_WAKING = {
    "wrong": "its wake_at is not when its deliveries are due",
    "unswept": "dispatch_due knows no such priority",
    "asleep": "a queued delivery has no time at which it is due",
}


def look_at_rows(which: Document, now: datetime, tally: Tally, session: ClientSession) -> None:
    """Notes alerts whose state or wake-up is not what follows from their deliveries, and deliveries in lost batches.

    Parameters:
      which: The alerts, as a query that an index serves.
      now: Naive UTC.
    """
    for pattern in statements.alert_patterns(which, session):
        _judge_pattern(pattern, which, tally, session)
    for lost in statements.lost_batches(which, now, session):
        _note_lost(lost, tally, session)


def _judge_pattern(pattern: Document, which: Document, tally: Tally, session: ClientSession) -> None:
    seen, count = pattern["_id"], pattern["alerts"]
    tally.alerts += count
    for channel, state in zip(seen["channels"], seen["states"], strict=False):
        tally.deliveries[channel, state] += count
    gap, why = _fault(seen, pattern["state"])
    if gap is None:
        return
    named = NAMED - len(tally.findings.get(gap, ()))
    rows = statements.alerts_like(which, seen, named, session) if named else []
    tally.note_all(gap, rows, lambda row: _finding(gap, row, why), count=count)


def _fault(seen: Document, derived: str) -> tuple[Gap | None, str]:
    """What is wrong with alerts like this, and why in words."""
    if seen["waking"] not in RIGHT_WAKING:
        return Gap.NEVER_WAKES, WRONG_WAKING[seen["waking"]]
    if len(seen["channels"]) != len(seen["states"]) or not set(seen["states"]) <= set(DeliveryState.values):
        return Gap.STATE_WRONG, f"its deliveries are {', '.join(map(str, seen['states'])) or 'without a state'}"
    if seen["state"] != derived:
        return Gap.STATE_WRONG, f"it is {seen['state']!r}, but its deliveries make it {derived!r}"
    return None, ""


def _note_lost(lost: Document, tally: Tally, session: ClientSession) -> None:
    """Notes the deliveries that a lost batch holds up."""
    batch_id: ObjectId = lost["_id"]
    ids, why = _why_lost(lost)
    rows = statements.alerts_by_id(ids[:NAMED], session)

    def describe(alert: ObjectId) -> Finding:
        row = rows[alert]
        channel = next(d["channel"] for d in row["deliveries"] if d.get("batch") == batch_id)
        return _finding(Gap.BATCH_LOST, row, f"its {channel} delivery waits in batch {batch_id}, {why}", batch_id)

    tally.note_all(Gap.BATCH_LOST, ids, describe)


def _why_lost(lost: Document) -> tuple[list[ObjectId], str]:
    """The alerts that wait in vain, and why."""
    if not lost["batch"]:
        return lost["rows"], "which is gone"
    (batch,) = lost["batch"]
    if batch["finished_at"] is not None:
        return lost["rows"], "which is finished"
    if not isinstance(batch["next_look_at"], datetime):
        return lost["rows"], "which nobody will look at"
    return (batch["strays"], "which does not hold it") if batch["strays"] else (lost["rows"], "which is not swept")


def _finding(gap: Gap, row: Document, why: str, batch: ObjectId | None = None) -> Finding:
    text = f"Alert {row['_id']} of event {row['event_key']}: {why}."
    return Finding(gap, text, row["event_id"], row["event_key"], notification=row["_id"], batch=batch)
