"""Trade events for tests, as a producer would write them."""

from __future__ import annotations

import json
from typing import Any

from notifications.events import TradeEventData, parse_event

MISSING = object()
"""Given as a field's value: leave the field out."""

EVENT: dict[str, Any] = {
    "eventId": "01JD0000000000000000000001",
    "version": 1,
    "traderId": "T-17",
    "executedAt": "2026-11-20T06:00:00.123Z",  # A Friday, 11:30 in Mumbai.
    "priority": "high",
}
DETAILS: dict[str, Any] = {
    "orderId": "O-1",
    "symbol": "RELIANCE",
    "exchange": "XNSE",
    "side": "BUY",
    "action": "OPEN",
    "productType": "INTRADAY",
    "quantity": "50",
    "price": "2945.50",
    "currency": "INR",
    "traderPortfolio": "100000.00",
    "quantityStep": "1",
    "minQuantity": "1",
    "minNotional": "0",
    "contractMultiplier": "1",
    "positionBefore": "0",
    "positionAfter": "50",
    "orderStatus": "FILLED",
    "cumQuantity": "50",
    "leavesQuantity": "0",
}
OPTION: dict[str, Any] = {"productType": "OPTIONS", "expiryDate": "2026-11-26", "strike": "24500", "right": "CALL"}


def message(**fields: Any) -> bytes:
    """Return the contract's example as JSON, with `fields` replaced where they belong (MISSING leaves one out)."""
    event, details = dict(EVENT), dict(DETAILS)
    for name, value in fields.items():
        (event if name in EVENT or name == "tradeDetails" else details)[name] = value
    event.setdefault("tradeDetails", {k: v for k, v in details.items() if v is not MISSING})
    return json.dumps({k: v for k, v in event.items() if v is not MISSING}).encode()


def trade(**fields: Any) -> TradeEventData:
    """Return the parsed example with `fields` replaced."""
    return parse_event(message(**fields))


def raw_message(**literals: str) -> bytes:
    """Like `message`, but each value is pasted in as the JSON text given: what json.dumps would not write."""
    text = message(**{name: f"@{name}@" for name in literals}).decode()
    for name, literal in literals.items():
        text = text.replace(f'"@{name}@"', literal)
    return text.encode("utf-8", "surrogatepass")
