"""Counting what became of deliveries, a batch at a time, where it was written down (notifications/telemetry.py)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, wraps
from itertools import islice
from typing import Any, ParamSpec

import structlog
from bson import ObjectId

from delivery import statements
from delivery.channels.base import Outcome
from delivery.explanations import OAUTH, OURS, REASONS, TRANSPORT
from delivery.explanations_vendors import VENDOR_CODES
from delivery.outcomes import in_doubt
from delivery.statements import Patch
from notifications import telemetry
from notifications.choices import DeliveryState, Reason

logger = structlog.get_logger(__name__)
P = ParamSpec("P")
Document = dict[str, Any]
Outcomes = Counter[tuple[str, str, str]]
"""(channel, outcome, error) → how many."""

OTHER = "other"
_PREPARED = re.compile(r"(?:token|dm)_(.+)")
_STATUS = re.compile(r"http_\d{3}")
_UNSENT = frozenset({Outcome.EXPIRED.value})
"""Outcomes of attempts for which no vendor was asked."""


def _in_nobodys_way(counting: Callable[P, None]) -> Callable[P, None]:
    """Whatever is wrong with the figures, the alerts go on."""

    @wraps(counting)
    def counted(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            counting(*args, **kwargs)
        except Exception:
            logger.exception("Something could not be counted.")

    return counted


@lru_cache(maxsize=1_024)
def error_label(channel: str, code: str) -> str:
    """A delivery's code if it stands in one of our tables, else `other`: a vendor may invent codes without end."""
    if not code or code in VENDOR_CODES.get(channel, ()) or code in OURS or code in REASONS or _is_transport(code):
        return code
    prepared = _PREPARED.fullmatch(code)
    return code if prepared and (_is_transport(prepared[1]) or prepared[1] in OAUTH) else OTHER


def _is_transport(code: str) -> bool:
    return code in TRANSPORT or _STATUS.fullmatch(code) is not None


@_in_nobodys_way
def count(outcomes: Outcomes) -> None:
    """Deliveries that came to an end state."""
    for (channel, outcome, error), number in outcomes.items():
        telemetry.DELIVERIES.labels(channel, outcome, error_label(channel, error)).inc(number)


@_in_nobodys_way
def stored(rows: Iterable[Document], present: set[ObjectId]) -> None:
    """Alerts that a fan-out has just inserted, but for those that were `present` already; and what needs no sending."""
    fresh = [row for row in rows if row["_id"] not in present]
    made = Counter("stored" if row["deliveries"] else row["sizing"]["reason"] for row in fresh)
    for outcome, number in made.items():
        telemetry.ALERTS.labels(outcome).inc(number)
    count(
        Counter(
            (d["channel"], d["state"], d["error_code"])
            for row in fresh
            for d in row["deliveries"]
            if d["state"] != DeliveryState.QUEUED
        )
    )


@_in_nobodys_way
def recorded(batch: Document, rows: Sequence[Document], patches: Sequence[Patch], written: int) -> None:
    """The outcomes of a batch of which `statements.record` says that it has written so many.

    Fewer than there are, and it is looked which: the lease was lost and the rest is another worker's, or the database
    was asked twice because its first answer was lost.
    """
    if written < len(patches):
        patches = statements.recorded_among(batch, patches)
    channel, priority = batch["channel"], batch["priority"]
    count(
        Counter(
            (channel, patch.fields["state"], patch.fields.get("error_code", ""))
            for patch in patches
            if "state" in patch.fields
        )
    )
    logs = [patch.log for patch in patches if patch.log]
    for (outcome, code), number in Counter((log["outcome"], log["code"]) for log in logs).items():
        telemetry.ATTEMPTS.labels(channel, outcome, error_label(channel, code)).inc(number)
    answered = [log["latency_ms"] / 1_000 for log in logs if log["latency_ms"] and log["outcome"] not in _UNSENT]
    telemetry.DELIVERY_SECONDS.labels(channel).observe_all(answered)
    _accepted(channel, priority, rows, patches)
    states = {patch.notification: str(patch.fields.get("state", "waiting")) for patch in patches}
    _tell("Delivered a batch.", ((row, channel, states[row["_id"]]) for row in rows if row["_id"] in states))


def _tell(line: str, became: Iterable[tuple[Document, str, str]]) -> None:
    """One line per trade and channel, with how many deliveries came to which state: a repeated batch mixes trades."""
    told: dict[tuple[str, str, str], Counter[str]] = {}
    for row, channel, state in became:
        told.setdefault((row["correlation_id"], row["event_key"], channel), Counter())[state] += 1
    for (correlation_id, event_id, channel), states in told.items():
        logger.info(line, correlation_id=correlation_id, event_id=event_id, channel=channel, **states)


def _accepted(channel: str, priority: str, rows: Sequence[Document], patches: Sequence[Patch]) -> None:
    times = {row["_id"]: (row["executed_at"], row["expires_at"]) for row in rows}
    took, left = [], []
    for patch in patches:
        if patch.fields.get("state") == DeliveryState.SENT:
            sent_at = patch.fields["sent_at"].replace(tzinfo=None)
            executed_at, expires_at = times[patch.notification]
            # The trading engine's clock may be ahead of ours.
            took.append(max(0.0, (sent_at - executed_at).total_seconds()))
            left.append((expires_at - sent_at).total_seconds())
    telemetry.EVENT_TO_DELIVERY_SECONDS.labels(channel, priority).observe_all(took)
    telemetry.VALIDITY_LEFT_SECONDS.labels(channel).observe_all(left)


@_in_nobodys_way
def unsent(
    rows: Iterable[Document], changed: int, state: DeliveryState, reason: Reason, batch: ObjectId | None = None
) -> None:
    """What a statement has ended without a send: the queued deliveries that `rows`, as read before, held in `batch`.

    It says only how many rows it has changed. Should that be fewer, because somebody else was at the same rows, the
    first so many are counted: the number is right, and which ones they were hardly matters.
    """
    held = (
        [(row, d) for d in row["deliveries"] if d["state"] == DeliveryState.QUEUED and d["batch"] == batch]
        for row in rows
    )
    ended = [
        (row, d["channel"], (DeliveryState.UNKNOWN if in_doubt(d) else state).value)
        for deliveries in islice(filter(None, held), changed)
        for row, d in deliveries
    ]
    count(Counter((channel, outcome, reason.value) for _, channel, outcome in ended))
    _tell("Ended without a send.", ended)
