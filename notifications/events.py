"""A trade event: what `trade.executed` carries, parsed and validated. Pure: no database, no clock, no settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_DOWN, Context, Decimal
from typing import Any, Final
from uuid import uuid4

from notifications.choices import DERIVATIVES, EXITS, Action, Priority, ProductType, Right, Side
from notifications.event_fields import MAX_DIGITS, Fields, Sign, check_text, wrong_type
from notifications.event_json import InvalidEvent, RejectCode, decode_object, describe

__all__ = ["InvalidEvent", "RejectCode", "TradeEventData", "correlation_id_of", "instrument_key", "parse_event"]

KNOWN_VERSION: Final = 1
MAX_ID_CHARACTERS: Final = 128
MAX_SYMBOL_CHARACTERS: Final = 64
MAX_WORD_CHARACTERS: Final = 64  # Exchange, currency and order status: names, never prose.

_ONE = Decimal(1)
_ZERO = Decimal(0)
_FRACTION = Context(prec=MAX_DIGITS, rounding=ROUND_DOWN)

_SIDES: Mapping[str, Side] = {word.value: word for word in Side}
_ACTIONS: Mapping[str, Action] = {word.value: word for word in Action}
_PRODUCTS: Mapping[str, ProductType] = {word.value: word for word in ProductType}
_PRIORITIES: Mapping[str, Priority] = {word.value: word for word in Priority}
_RIGHTS: Mapping[str, Right] = {
    "CALL": Right.CALL, "PUT": Right.PUT,
    "CE": Right.CALL, "PE": Right.PUT,  # As the Indian exchanges write them.
    "C": Right.CALL, "P": Right.PUT,  # As the OCC writes them.
}  # fmt: skip

_CORRELATION_ID = re.compile(rb"[\x21-\x7e]{1,128}")
# W3C Trace Context, sections 3.2.2 and 4: "ff" and all-zero ids are invalid; versions above 00 may append fields.
_TRACEPARENT = re.compile(
    rb"(?!ff|00-.{53})[0-9a-f]{2}-((?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(?:-.*)?"
)


@dataclass(frozen=True, slots=True)
class TradeEventData:
    """One executed trade. Texts that were not given are "", numbers None unless the contract names a default."""

    event_id: str
    version: int
    trader_id: str
    executed_at: datetime  # Aware UTC, whole milliseconds.
    priority: Priority
    symbol: str
    exchange: str  # ISO 10383 market identifier code, e.g. XNSE.
    side: Side
    action: Action | None
    product_type: ProductType
    quantity: Decimal
    price: Decimal  # Of any sign: a spread or an oil future can trade below zero.
    currency: str  # "" = the trader's.
    trader_portfolio: Decimal | None  # None = the one stored with the Trader.
    quantity_step: Decimal
    min_quantity: Decimal
    min_notional: Decimal
    contract_multiplier: Decimal
    position_before: Decimal | None  # Signed: a short position is negative.
    position_after: Decimal | None
    order_id: str
    order_status: str
    cum_quantity: Decimal | None
    leaves_quantity: Decimal | None
    expiry_date: date | None  # As written in the event.
    expiry_at: datetime | None  # Aware UTC; only if `expiryDate` came with a time.
    strike: Decimal | None
    right: Right | None
    correlation_id: str
    traceparent: str
    keyed_by_trader: bool  # False: the message key is not the traderId, so the trader's events may arrive out of order.
    raw: Mapping[str, Any]  # The whole message, unknown fields too; numbers that BSON's 64 bits cannot hold as text.

    @property
    def is_exit(self) -> bool:
        """Whether the trade takes the trader out of a position, in part or whole."""
        return self.action in EXITS

    @property
    def closes_position(self) -> bool:
        """Whether the position that the trader held is gone: CLOSE, or REDUCE to zero or through it."""
        if self.action is not Action.REDUCE:
            return self.action is Action.CLOSE
        before, after = self.position_before, self.position_after
        if not before or not after:
            return after is not None and not after
        return before.is_signed() != after.is_signed()

    @property
    def exit_fraction(self) -> Decimal | None:
        """The share of the held position that an exit gives up, above 0 and at most 1, cut to 34 digits.

        CLOSE is 1. REDUCE takes (|before| - |after|) / |before|, or quantity / |before| where `positionAfter` is not
        given or contradicts the action. None for entries, and where `positionBefore` is not given or zero.
        """
        if not self.is_exit:
            return None
        if self.closes_position:
            return _ONE
        if not self.position_before:
            return None
        before = self.position_before.copy_abs()
        given_up = self.quantity
        if self.position_after is not None and self.position_after.copy_abs() < before:
            given_up = Context(prec=4 * MAX_DIGITS).subtract(before, self.position_after.copy_abs())
        return min(_ONE, _FRACTION.divide(given_up, before))

    @property
    def order(self) -> tuple[datetime, str]:
        """The place of the trade among the trader's trades."""
        return self.executed_at, self.event_id

    @property
    def instrument(self) -> str:
        """The `instrument_key` of what was traded."""
        return instrument_key(
            self.exchange,
            self.symbol,
            self.product_type,
            expiry=self.expiry_date,
            strike=self.strike,
            right=self.right,
        )


def instrument_key(
    exchange: str,
    symbol: str,
    product_type: ProductType,
    *,
    expiry: date | None = None,
    strike: Decimal | None = None,
    right: Right | None = None,
) -> str:
    """Return the text that is the same for two trades exactly when they trade the same instrument.

    `XNSE:RELIANCE`; derivatives `XNSE:NIFTY:OPTIONS:2026-11-26:24500:CALL`. A colon inside a part is escaped. Cash
    products share one key: a share bought INTRADAY and kept for DELIVERY is the same share.
    """
    parts = [exchange, symbol]
    if product_type in DERIVATIVES:
        number = "" if strike is None else _plain(strike)
        parts += [product_type.value, expiry.isoformat() if expiry else "", number, right.value if right else ""]
    return ":".join(part.replace("%", "%25").replace(":", "%3A") for part in parts)


def _plain(number: Decimal) -> str:
    """Write equal numbers alike: 24500, 24500.00 and 2.45E+4 become 24500."""
    text = format(number, "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def parse_event(
    value: bytes | None, headers: Sequence[tuple[str, bytes | None]] = (), key: bytes | None = None
) -> TradeEventData:
    """Return the trade event that a Kafka message carries.

    `key` is only compared with the traderId: a wrong one costs the order of a trader's events, not the event.

    Raises
    ------
    InvalidEvent
        Whatever else the message is; no other exception.
    """
    raw = decode_object(value)
    event = Fields(raw)
    version = _version(event)
    details = _details(event)
    event_id = event.text("eventId", MAX_ID_CHARACTERS) or _event_id_header(headers)
    trader_id = event.required_text("traderId", MAX_ID_CHARACTERS)
    product_type = details.required_word("productType", _PRODUCTS)
    action = details.word("action", _ACTIONS)
    expiry_date, expiry_at = details.expiry("expiryDate")
    strike = details.number("strike", Sign.ANY)
    right = details.word("right", _RIGHTS)
    _require_contract_terms(details, product_type, expiry_date, strike, right)
    return TradeEventData(
        event_id=event_id,
        version=version,
        trader_id=trader_id,
        executed_at=event.required_timestamp("executedAt"),
        priority=_priority(event, action),
        symbol=details.required_text("symbol", MAX_SYMBOL_CHARACTERS),
        exchange=details.text("exchange", MAX_WORD_CHARACTERS),
        side=details.required_word("side", _SIDES),
        action=action,
        product_type=product_type,
        quantity=details.required_number("quantity", Sign.POSITIVE),
        price=details.required_number("price", Sign.ANY),
        currency=details.text("currency", MAX_WORD_CHARACTERS),
        trader_portfolio=details.number("traderPortfolio", Sign.POSITIVE),
        quantity_step=details.number("quantityStep", Sign.POSITIVE) or _ONE,
        min_quantity=details.number("minQuantity", Sign.NOT_NEGATIVE) or _ZERO,
        min_notional=details.number("minNotional", Sign.NOT_NEGATIVE) or _ZERO,
        contract_multiplier=details.number("contractMultiplier", Sign.POSITIVE) or _ONE,
        position_before=details.number("positionBefore", Sign.ANY),
        position_after=details.number("positionAfter", Sign.ANY),
        order_id=details.text("orderId", MAX_ID_CHARACTERS),
        order_status=details.text("orderStatus", MAX_WORD_CHARACTERS),
        cum_quantity=details.number("cumQuantity", Sign.ANY),
        leaves_quantity=details.number("leavesQuantity", Sign.ANY),
        expiry_date=expiry_date,
        expiry_at=expiry_at,
        strike=strike,
        right=right,
        correlation_id=correlation_id_of(headers),
        traceparent=traceparent_of(headers),
        keyed_by_trader=not key or key == trader_id.encode(),
        raw=raw,
    )


def correlation_id_of(headers: Sequence[tuple[str, bytes | None]]) -> str:
    """Return the `correlation-id` header, else the trace id of a W3C `traceparent`, else a new id (32 hex characters).

    A header that is not usable (more than 128 characters, blanks, not ASCII) is passed over: an id for the logs is no
    reason to refuse a trade. So a rejected message has an id too.
    """
    given = _header(headers, "correlation-id")
    if given and _CORRELATION_ID.fullmatch(given):
        return given.decode("ascii")
    trace = _TRACEPARENT.fullmatch(_header(headers, "traceparent") or b"")
    return trace.group(2).decode("ascii") if trace else uuid4().hex


def traceparent_of(headers: Sequence[tuple[str, bytes | None]]) -> str:
    """Return the W3C `traceparent` header as version 00 has it, 55 characters; "" if there is no valid one."""
    trace = _TRACEPARENT.fullmatch(_header(headers, "traceparent") or b"")
    return f"00-{trace.group(1).decode('ascii')}" if trace else ""


def _header(headers: Sequence[tuple[str, bytes | None]], name: str) -> bytes | None:
    """Return the first header of that name, in whatever case, that has a value."""
    for header, value in headers:
        if value and header.lower() == name:
            return value
    return None


def _event_id_header(headers: Sequence[tuple[str, bytes | None]]) -> str:
    """Return CloudEvents' `ce_id` (Kafka protocol binding, section 3.2.3: binary content mode)."""
    value = (_header(headers, "ce_id") or b"").strip()
    if not value:
        raise InvalidEvent(RejectCode.MISSING_FIELD, "eventId is missing or empty, and there is no ce_id header.")
    try:
        return check_text("The header ce_id", value.decode("utf-8"), MAX_ID_CHARACTERS)
    except UnicodeDecodeError as err:
        raise InvalidEvent(RejectCode.BAD_UTF8, "The header ce_id is not UTF-8.") from err


def _version(event: Fields) -> int:
    """Take the JSON number 1. The text "1" is another type: a producer that writes it writes another format."""
    value = event.get("version")
    if value is None:
        raise event.missing("version")
    if type(value) is str or isinstance(value, bool | dict | list):
        raise wrong_type("version", value, "a number")
    if value != KNOWN_VERSION:
        raise InvalidEvent(RejectCode.UNKNOWN_VERSION, f"version is {describe(value)}; known is {KNOWN_VERSION}.")
    return KNOWN_VERSION


def _details(event: Fields) -> Fields:
    value = event.get("tradeDetails")
    if value is None:
        raise event.missing("tradeDetails")
    if not isinstance(value, dict):
        raise wrong_type("tradeDetails", value, "an object")
    return Fields(value, "tradeDetails.")


def _require_contract_terms(
    details: Fields, product_type: ProductType, expiry: date | None, strike: Decimal | None, right: Right | None
) -> None:
    """Without its terms nobody can tell which contract of a series was traded."""
    if product_type in DERIVATIVES and expiry is None:
        raise details.missing("expiryDate")
    if product_type is ProductType.OPTIONS and strike is None:
        raise details.missing("strike")
    if product_type is ProductType.OPTIONS and right is None:
        raise details.missing("right")


def _priority(event: Fields, action: Action | None) -> Priority:
    """An exit is critical whatever the producer says: nothing may overtake one."""
    given = event.word("priority", _PRIORITIES)
    if action in EXITS:
        return Priority.CRITICAL
    return given or Priority.HIGH
