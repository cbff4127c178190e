"""From one attempt's result to what is written into its delivery: the retry policy in one place."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any

from delivery.channels.base import Channel, Message, Outcome, Result
from delivery.channels.policy import ChannelPolicy, backoff_seconds
from delivery.statements import Patch
from followers.clock import as_utc
from notifications.choices import DeliveryState, Reason
from notifications.reviews import REQUESTED
from notifications.statements import ended

Document = dict[str, Any]

SPENDS_NO_ATTEMPT = frozenset({Outcome.THROTTLED, Outcome.EXPIRED})
WAITS = frozenset({Outcome.RETRY, Outcome.THROTTLED, Outcome.MISCONFIGURED})
_random = random.Random()


def patch_for(
    row: Document,
    delivery: Document,
    result: Result,
    policy: ChannelPolicy,
    is_repeatable: bool,
    at: datetime,
    breaker: str = "",
) -> Patch:
    """What an attempt changes in its delivery.

    Parameters:
      row: The notification, for its validity.
      delivery: The delivery as it was loaded, for its attempts so far.
      is_repeatable: What `repeatable` says; then an unknown outcome is tried again, otherwise it ends as `unknown`.
      at: When the attempt was started (aware UTC).
      breaker: The state of the channel's circuit breaker then, for the log.
    """
    spent = 0 if result.outcome in SPENDS_NO_ATTEMPT else 1
    answered_at = at + timedelta(seconds=result.latency_seconds)
    # A person's retry has a budget of its own, while the delivery's counter goes on counting every attempt.
    attempts = delivery["attempts"] - delivery.get("attempts_before_retry", 0) + spent
    # A 429 spends no attempt, and yet each one that follows another is to wait longer than that.
    throttled = 1 + _throttled_last(delivery) if result.outcome is Outcome.THROTTLED else 0
    nth = max(attempts, throttled)
    after = _next(row, attempts, nth, result, policy, is_repeatable, in_doubt(delivery), answered_at)
    fields: Document = {"last_attempt_at": at, **after}
    return Patch(row["_id"], fields, spent, _log_entry(result, at, breaker))


def _next(
    row: Document,
    attempts: int,
    nth: int,
    result: Result,
    policy: ChannelPolicy,
    is_repeatable: bool,
    doubtful: bool,
    now: datetime,
) -> Document:
    words = {"error_code": result.code, "error_message": result.message}
    match result.outcome:
        case Outcome.SENT:
            return {
                **ended(DeliveryState.SENT),
                "sent_at": now,
                "provider_message_id": result.provider_message_id,
                "error_code": "",
                "error_message": "",
            }
        case Outcome.EXPIRED:
            return ended(DeliveryState.EXPIRED, Reason.VALIDITY_OVER)
        case Outcome.REFUSED | Outcome.DEAD:
            # The refusal is of this attempt only: an earlier one without an answer may have arrived all the same.
            return {**ended(DeliveryState.UNKNOWN if doubtful else DeliveryState.FAILED), **words}
        case Outcome.UNKNOWN if not is_repeatable:
            return {**ended(DeliveryState.UNKNOWN), **words}
    if attempts >= policy.max_attempts:
        last = f"{Reason.ATTEMPTS_EXHAUSTED.label}; the last one: {result.code} {result.message}"
        state = DeliveryState.UNKNOWN if doubtful or result.outcome is Outcome.UNKNOWN else DeliveryState.FAILED
        return {**ended(state), "error_code": Reason.ATTEMPTS_EXHAUSTED.value, "error_message": last[:500]}
    wait = backoff_seconds(policy, nth, result.retry_after_seconds, _random)
    return {"batch": None, "next_attempt_at": _not_before(now.timestamp() + wait, row), **words}


def _not_before(epoch: float, row: Document) -> datetime:
    """The stored time of the next attempt. Never past the validity: then dispatch_due lets the row expire.

    The database keeps milliseconds and cuts the rest off; an attempt before its Retry-After would be one too many.
    """
    expires_at = as_utc(row["expires_at"])
    if epoch >= expires_at.timestamp():
        return expires_at
    at = datetime.fromtimestamp(epoch, UTC)
    return at + timedelta(microseconds=-at.microsecond % 1_000)


def never_started(row: Document, now: datetime) -> Patch:
    """in a batch → queued without one: the lease was too short to start it. No attempt is spent."""
    return Patch(row["_id"], {"batch": None, "next_attempt_at": now})


def waiting(row: Document, until: float) -> Patch:
    """in a batch → queued without one: its channel or its address is to be left alone until then (epoch seconds).

    No attempt is spent.
    """
    return Patch(row["_id"], {"batch": None, "next_attempt_at": _not_before(until, row)})


def repeatable(channel: Channel, message: Message, row: Document, at: datetime) -> bool:
    """Whether what may have been accepted is sent again: the vendor shows a repeat once because it has a key that it
    still remembers, and the channel's policy does not leave it to a person."""
    if not channel.policy.resend_in_doubt or not channel.keyed(message):
        return False
    window = channel.key_window_seconds
    return window is None or (at - as_utc(row["created_at"])).total_seconds() < window


def let_go(row: Document) -> Patch:
    """in a batch, ended by a receipt meanwhile → the same end state, without a batch."""
    return Patch(row["_id"], {"batch": None})


def in_doubt(delivery: Document) -> bool:
    """Whether an earlier attempt may have reached the vendor without our knowing."""
    return any(attempt["outcome"] == Outcome.UNKNOWN for attempt in delivery["attempt_log"])


def _throttled_last(delivery: Document) -> int:
    """How many of its latest attempts in a row were 429s."""
    backwards = reversed(delivery["attempt_log"])
    return sum(1 for _ in takewhile(lambda attempt: attempt["outcome"] == Outcome.THROTTLED, backwards))


def repeat_is_undecided(delivery: Document) -> bool:
    """Whether it is in doubt and nobody has decided that it is to be sent again all the same.

    A person's decision in the log ends it for the attempts before it. The doubt itself stays: should nothing be sent
    after all, the delivery is still `unknown`.
    """
    outcomes = [attempt["outcome"] for attempt in delivery["attempt_log"]]
    decided = max((n for n, outcome in enumerate(outcomes, start=1) if outcome == REQUESTED), default=0)
    return Outcome.UNKNOWN in outcomes[decided:]


def end_unsent(row: Document, delivery: Document, state: DeliveryState, reason: Reason) -> Patch:
    """in a batch → an end state that needed no vendor; `unknown` if an earlier attempt may have been accepted."""
    return Patch(row["_id"], ended(DeliveryState.UNKNOWN if in_doubt(delivery) else state, reason))


def _log_entry(result: Result, at: datetime, breaker: str) -> Document:
    return {
        "at": at,
        "outcome": result.outcome.value,
        "code": result.code[:64],
        "message": result.message[:500],
        "latency_ms": round(result.latency_seconds * 1000, 3),
        "breaker": breaker,
    }
