"""The documents that an intake stores: trade events, and rejected messages as they came."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from bson import Decimal128, ObjectId

from notifications.choices import FanOutState
from notifications.events import TradeEventData

Document = dict[str, Any]
Headers = Sequence[tuple[str, bytes | None]]

# A MongoDB document ends at 16 MB. A value above 1 MiB is rejected whatever it says, so nothing usable is ever cut.
KEPT_VALUE_BYTES: Final = 8 * 1024 * 1024
KEPT_KEY_BYTES: Final = 1024 * 1024
KEPT_HEADER_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class IncomingMessage:
    """A Kafka record, as far as its content and place matter."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


@dataclass(frozen=True, slots=True)
class AcceptedEvent:
    """A valid event, with its own text and the end of its validity."""

    event: TradeEventData
    payload: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a message is not a trade event: a stable code, and a sentence for a person."""

    code: str
    reason: str


# --- Trade events ---------------------------------------------------------------------------------------------------
def event_document(
    oid: ObjectId, accepted: AcceptedEvent, trader: Document | None, shards: int, now: datetime
) -> Document:
    """A `notifications.models.TradeEvent` as MongoDB stores it. Moments are aware UTC, whole milliseconds."""
    event = accepted.event
    state = FanOutState.PENDING
    if accepted.expires_at <= now:
        state = FanOutState.EXPIRED
    elif trader is None:
        state = FanOutState.DONE
    currency, portfolio = _defaults(event, trader)
    return {
        "_id": oid,
        "external_id": event.event_id,
        "trader_id": trader["_id"] if trader else None,
        "trader_external_id": event.trader_id,
        "executed_at": event.executed_at,
        "received_at": now,
        "expires_at": accepted.expires_at,
        "priority": event.priority.value,
        "correlation_id": event.correlation_id,
        "traceparent": event.traceparent,
        **_instrument_fields(event),
        "side": event.side.value,
        "action": event.action.value if event.action else "",
        "quantity": Decimal128(event.quantity),
        "price": Decimal128(event.price),
        "currency": currency,
        "trader_portfolio": portfolio,
        "quantity_step": Decimal128(event.quantity_step),
        "min_quantity": Decimal128(event.min_quantity),
        "min_notional": Decimal128(event.min_notional),
        "contract_multiplier": Decimal128(event.contract_multiplier),
        "position_before": _decimal128(event.position_before),
        "position_after": _decimal128(event.position_after),
        "order_id": event.order_id,
        "closes_position": event.closes_position,
        "exit_fraction": _decimal128(event.exit_fraction),
        "payload": accepted.payload,
        "state": state.value,
        "shards": shards,
        "shards_done": [],
        "alerts_written": 0,
        "alerts_erased": 0,
        "fanned_out_at": now if state is FanOutState.DONE else None,
        "alerts_pruned_at": None,
    }


def _instrument_fields(event: TradeEventData) -> Document:
    return {
        "instrument": event.instrument,
        "symbol": event.symbol,
        "exchange": event.exchange,
        "product_type": event.product_type.value,
        "expiry_date": event.expiry_date.isoformat() if event.expiry_date else "",
        "strike": _decimal128(event.strike),
        "right": event.right.value if event.right else "",
    }


def _defaults(event: TradeEventData, trader: Document | None) -> tuple[str, Decimal128 | None]:
    """The currency and the trader's portfolio value that count for this trade, whatever changes later.

    The Trader's portfolio value stands in only for a trade in the Trader's currency: a ratio of two currencies would
    be wrong by their exchange rate. Without a value the fan-out says `no_portfolio`.
    """
    own: Mapping[str, Any] = trader or {}
    currency = event.currency or own.get("currency") or ""
    if event.trader_portfolio is not None:
        return currency, Decimal128(event.trader_portfolio)
    same_currency = not own.get("currency") or own["currency"] == currency
    return currency, own.get("portfolio_value") if same_currency else None


# --- Rejected messages ----------------------------------------------------------------------------------------------
def rejected_document(message: IncomingMessage, rejected: Rejection, now: datetime) -> Document:
    """A `notifications.models.RejectedEvent` as MongoDB stores it."""
    value, key = message.value, message.key
    reason = rejected.reason
    if value is not None and len(value) > KEPT_VALUE_BYTES:
        reason += f" Only its first {KEPT_VALUE_BYTES:,} bytes are kept."
    return {
        "_id": ObjectId(),
        "topic": message.topic,
        "partition": message.partition,
        "offset": message.offset,
        "key": None if key is None else key[:KEPT_KEY_BYTES],
        "value": None if value is None else value[:KEPT_VALUE_BYTES],
        "headers": _encode_headers(message.headers),
        "code": rejected.code,
        "reason": reason,
        "received_at": now,
        "replayed_at": None,
        "replayed_as": "",
    }


def _encode_headers(headers: Headers) -> list[list[Any]]:
    """[name, value] pairs that JSON can hold: text where it is UTF-8, else {"base64": …}."""
    kept: list[list[Any]] = []
    size = 0
    for name, value in headers:
        size += len(name.encode("utf-8", "replace")) + len(value or b"")
        if size > KEPT_HEADER_BYTES:
            break
        kept.append([name, value if value is None else _text_or_base64(value)])
    return kept


def _text_or_base64(value: bytes) -> str | dict[str, str]:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode("ascii")}


def decode_headers(stored: Sequence[Sequence[Any]]) -> Headers:
    """Undo what a rejected event's headers were stored as."""
    return [(name, _header_bytes(value)) for name, value in stored]


def _header_bytes(value: str | Mapping[str, str] | None) -> bytes | None:
    if value is None:
        return None
    return value.encode("utf-8") if isinstance(value, str) else base64.b64decode(value["base64"])


# --- Forms of values ------------------------------------------------------------------------------------------------
def milliseconds(moment: datetime) -> datetime:
    """Cut to what MongoDB keeps, so that what is written equals what is read."""
    return moment.astimezone(UTC).replace(microsecond=moment.microsecond // 1000 * 1000)


def _decimal128(number: Decimal | None) -> Decimal128 | None:
    return None if number is None else Decimal128(number)
