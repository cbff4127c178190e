"""Taking trades in: from Kafka messages to stored trade events with their fan-out batches, or to rejected events.

Every write here is idempotent and precedes the commit of the offsets. So a crash between any two steps is repaired by
the redelivery: the same messages lead to the same documents, and what is stored already stays as it is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

import structlog
from bson import ObjectId
from django.conf import settings

from delivery.intake_documents import (
    AcceptedEvent,
    Document,
    Headers,
    IncomingMessage,
    Rejection,
    event_document,
    milliseconds,
    rejected_document,
)
from delivery.right_of_way import claim_way
from delivery.statements import insert_batches, shard_batch
from followers import clock
from followers.mongo import one_primary
from followers.spans import NO_SPAN, Attribute, Span, Step, tracer
from followers.statements import audience_size_up_to, traders_by_external_id
from notifications.choices import FanOutState
from notifications.events import InvalidEvent, correlation_id_of, parse_event, traceparent_of
from notifications.statements import confirm_events, event_id, store_events, store_rejected
from notifications.telemetry import EVENTS
from notifications.validity import expires_at, validity_rules

__all__ = ["IncomingMessage", "Intake", "Outcome", "read_message", "store_accepted", "take_in"]

logger = structlog.get_logger(__name__)

SHARDS_MAX: Final = 64
"""The most shards of an audience; each is a range of `Follow.bucket`, of which there are 256."""

INTERNAL_ERROR: Final = "internal_error"
"""The code of a message that tripped an error of our own; it can be replayed once that is repaired."""


class Outcome(StrEnum):
    """What became of a message; the label of `notifyhub_events_total`."""

    ACCEPTED = "accepted"  # Stored; its fan-out is ahead.
    DUPLICATE = "duplicate"  # Stored before under the same event id; the first one stays.
    EXPIRED = "expired"  # Stored; its validity was over when it came.
    UNKNOWN_TRADER = "unknown_trader"  # Stored; nobody can follow a trader who is not known.
    REJECTED = "rejected"  # Not a trade event; set aside with its reason.


@dataclass(frozen=True, slots=True)
class Intake:
    """What one poll brought."""

    outcomes: Counter[Outcome]
    trailing_rejects: int  # Rejected messages after the last good one; all of them if there was none.
    batches: list[Document] = field(default_factory=list)  # Fan-out batches whose hints are to be enqueued.

    @property
    def total(self) -> int:
        return self.outcomes.total()


def take_in(messages: Sequence[IncomingMessage], now: datetime) -> Intake:
    """Store what a poll brought: events with their fan-out batches, and rejects with their reasons.

    Returns once everything is on the disks of the majority; the offsets may be committed from then on. The hints of
    the returned batches are enqueued by the caller.

    Parameters
    ----------
    messages
        In the order in which they were polled. The same event id may stand in several: the first one counts.
    now
        Aware UTC; the time of receipt.

    Raises
    ------
    pymongo.errors.PyMongoError
        Nothing may be committed; the same messages are to be taken in again.
    """
    now = milliseconds(now)
    read = [(message, read_message(message.value, message.headers, message.key)) for message in messages]
    for message, result in read:
        if isinstance(result, AcceptedEvent):
            _tell_received(message, result)
            claim_way(result.event.priority)
    outcomes, batches = store_accepted([result for _, result in read if isinstance(result, AcceptedEvent)], now)
    rejected = [(message, result) for message, result in read if isinstance(result, Rejection)]
    if rejected:
        store_rejected([rejected_document(message, result, now) for message, result in rejected])
        outcomes[Outcome.REJECTED] += len(rejected)
    for message, result in rejected:
        _tell_rejected(message, result)
    for outcome, number in outcomes.items():
        EVENTS.labels(outcome.value).inc(number)
    return Intake(outcomes, _trailing_rejects([result for _, result in read]), batches)


def _tell_received(message: IncomingMessage, accepted: AcceptedEvent) -> None:
    logger.info(
        "Received.",
        correlation_id=accepted.event.correlation_id,
        event_id=accepted.event.event_id,
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
    )


def _tell_rejected(message: IncomingMessage, rejected: Rejection) -> None:
    place: dict[str, Attribute] = {
        "topic": message.topic,
        "partition": message.partition,
        "offset": message.offset,
        "code": rejected.code,
    }
    with tracer().trade(Step.INTAKE, traceparent_of(message.headers), is_first=True) as span:
        span.note(outcome=Outcome.REJECTED.value, **place)
        logger.warning(
            "A message is not a trade event and was set aside.",
            correlation_id=correlation_id_of(message.headers),
            reason=rejected.reason,
            **place,
        )


# --- Reading --------------------------------------------------------------------------------------------------------
def read_message(value: bytes | None, headers: Headers, key: bytes | None) -> AcceptedEvent | Rejection:
    """What a message is. Raises nothing."""
    try:
        event = parse_event(value, headers, key)
        return AcceptedEvent(event, (value or b"").decode("utf-8"), expires_at(event, validity_rules()))
    except InvalidEvent as error:
        return Rejection(error.code.value, error.detail)
    except Exception as error:
        # Whatever else goes wrong concerns this message; it must not hold up everybody else's trades for ever.
        logger.exception("A message could not be read.", correlation_id=correlation_id_of(headers))
        return Rejection(INTERNAL_ERROR, f"{type(error).__name__}: {error}"[:500])


def _trailing_rejects(results: Sequence[AcceptedEvent | Rejection]) -> int:
    for count, result in enumerate(reversed(results)):
        if isinstance(result, AcceptedEvent):
            return count
    return len(results)


# --- Storing --------------------------------------------------------------------------------------------------------
def store_accepted(accepted: Sequence[AcceptedEvent], now: datetime) -> tuple[Counter[Outcome], list[Document]]:
    """Store events and the shard batches of those that wait for their fan-out; the hints are the caller's."""
    outcomes: Counter[Outcome] = Counter()
    if not accepted:
        return outcomes, []
    documents = _event_documents(accepted, now)
    outcomes[Outcome.DUPLICATE] += len(accepted) - len(documents)
    batches: list[Document] = []
    with _traced(documents) as spans:
        with one_primary():
            stored = store_events(list(documents.values()))
            for found in stored.values():
                if found["state"] == FanOutState.PENDING:
                    # Also for a duplicate: whoever stored it first may have died before this step.
                    missing = set(range(found["shards"])) - set(found["shards_done"])
                    batches += [shard_batch(found, shard, now) for shard in sorted(missing)]
            if batches:
                insert_batches(batches)  # Confirms the events as well: one wait for the disks instead of two.
            else:
                confirm_events(list(documents.values()))
        for oid in documents:
            found = stored[oid]
            outcome = _outcome(found, is_new=clock.as_utc(found["received_at"]) == now)
            outcomes[outcome] += 1
            with _said(spans.get(oid, NO_SPAN), found, outcome):
                _tell_stored(found, outcome)
    return +outcomes, batches


def _tell_stored(stored: Document, outcome: Outcome) -> None:
    logger.info("Stored.", **_names(stored), outcome=outcome.value)
    if outcome is Outcome.EXPIRED:
        expired_at = clock.as_utc(stored["expires_at"]).isoformat()
        logger.info("A trade had expired when it came.", **_names(stored), expires_at=expired_at)
    if outcome is Outcome.UNKNOWN_TRADER:
        logger.info("A trade of a trader who is not known.", **_names(stored), trader_id=stored["trader_external_id"])


@contextmanager
def _traced(documents: dict[ObjectId, Document]) -> Iterator[dict[ObjectId, Span]]:
    """A span for each trade, which its stored event names, so that all that follows continues it."""
    spans: dict[ObjectId, Span] = {}
    with ExitStack() as stack:
        for oid, document in documents.items() if tracer().is_on else ():
            spans[oid] = stack.enter_context(
                tracer().trade(
                    Step.INTAKE,
                    document["traceparent"],
                    is_first=True,
                    is_current=len(documents) == 1,
                    event_id=document["external_id"],
                    correlation_id=document["correlation_id"],
                )
            )
            document["traceparent"] = spans[oid].traceparent
        yield spans


def _said(span: Span, stored: Document, outcome: Outcome) -> AbstractContextManager[object]:
    """Says in a trade's span what became of it. A repeated message that brought no trace names that of the first."""
    span.note(outcome=outcome.value, shards=stored["shards"])
    if outcome is Outcome.DUPLICATE:
        span.link(stored.get("traceparent", ""))
    return span.current()


def _outcome(stored: Document, is_new: bool) -> Outcome:
    if not is_new:
        return Outcome.DUPLICATE
    if stored["state"] == FanOutState.EXPIRED:
        return Outcome.EXPIRED
    return Outcome.UNKNOWN_TRADER if stored["trader_id"] is None else Outcome.ACCEPTED


def _names(stored: Document) -> dict[str, str]:
    return {"correlation_id": stored["correlation_id"], "event_id": stored["external_id"]}


def _event_documents(accepted: Sequence[AcceptedEvent], now: datetime) -> dict[ObjectId, Document]:
    """The documents by id, the first of each event id only."""
    first: dict[ObjectId, AcceptedEvent] = {}
    for one in accepted:
        first.setdefault(event_id(one.event.event_id), one)
    traders = traders_by_external_id(one.event.trader_id for one in first.values())
    alive = {one.event.trader_id for one in first.values() if one.expires_at > now}
    shards = {name: shards_of_trader(trader) for name, trader in traders.items() if name in alive}
    return {
        oid: event_document(oid, one, traders.get(one.event.trader_id), shards.get(one.event.trader_id, 1), now)
        for oid, one in first.items()
    }


def shards_of_trader(trader: Document) -> int:
    """Of the trader's followers."""
    return shards_for(audience_size_up_to(trader["_id"], settings.FAN_OUT_SINGLE_SHARD_MAX * SHARDS_MAX))


def shards_for(follows: int) -> int:
    """As few shards as keep each within FAN_OUT_SINGLE_SHARD_MAX: every one costs its claim and its end.

    A very large audience makes its shards larger, not more of them.
    """
    return min(SHARDS_MAX, max(1, math.ceil(follows / settings.FAN_OUT_SINGLE_SHARD_MAX)))
