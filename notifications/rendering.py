"""Turns a stored notification into words, the same for every channel."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from bson import Decimal128, ObjectId

from followers.clock import as_utc
from followers.decimals import decimal_of
from notifications.choices import EXITS, Kind, Side
from notifications.update_events import KEY_PREFIX


@dataclass(frozen=True, slots=True)
class Content:
    """What a person reads and what their app is told; every value of `data` is text, as FCM demands."""

    title: str
    body: str
    data: dict[str, str]

    @property
    def payload(self) -> dict[str, str]:
        """What an inbox is told: all of it as one object. docs/api.md has its fields."""
        return {"title": self.title, "body": self.body, **self.data}


def plain(value: Decimal128 | Decimal | None) -> str:
    """A number without exponent or trailing zeros: 5, 0.25, 1000000. None is empty."""
    if value is None:
        return ""
    number = decimal_of(value) if isinstance(value, Decimal128) else value
    text = format(number, "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def percent(fraction: Decimal128) -> str:
    """0.4 → "40 %", 0.3333… → "33.33 %" (rounded down, so that nobody sells more than the trader did)."""
    hundredfold = int(decimal_of(fraction) * 10_000)
    return f"{plain(Decimal(hundredfold) / 100)} %"


def content_of(notification: dict[str, Any]) -> Content:
    """Words for a stored notification of either kind; the parts of the document that `trade_content` names."""
    return update_content(notification) if notification["kind"] == Kind.UPDATE else trade_content(notification)


def update_content(notification: dict[str, Any]) -> Content:
    """A general update's own words: nobody's quantity, and no time in them. `type` tells apps what it is."""
    words = notification["words"]
    data = {
        "type": Kind.UPDATE.value,
        "notification_id": str(notification["_id"]),
        "update_id": notification["event_key"].removeprefix(KEY_PREFIX),
        "priority": notification["priority"],
        "expires_at": as_utc(notification["expires_at"]).isoformat().replace("+00:00", "Z"),
        "correlation_id": notification["correlation_id"],
    }
    if words["is_test"]:
        data["test"] = "true"
    return Content(words["title"], words["text"], data)


def trade_content(notification: dict[str, Any]) -> Content:
    """Words for a trade alert.

    Parameters:
      notification: The stored document: `_id`, event_key, symbol, side, action, price, currency, sizing (None for a
        community channel: then nobody's quantity is said), exit_fraction, priority, correlation_id,
        executed_at and expires_at.
    """
    sizing = notification["sizing"]
    trade = _trade_words(notification)
    data = {"notification_id": str(notification["_id"]), **trade.data}
    if sizing is not None:
        data["suggested_qty"] = plain(sizing["suggested_qty"])
        data["ratio"] = plain(sizing["ratio"])
    if notification["action"] in EXITS:
        title = f"{notification['action'].capitalize()}: {trade.verb.lower()} {trade.offer}"
        body = f"{_exit_words(trade.verb, sizing, notification['exit_fraction'])} {trade.until}"
    elif sizing is None:
        title, body = f"{trade.verb} {trade.offer}", f"The trader has executed this trade. {trade.until}"
    else:
        quantity = data["suggested_qty"]
        title, body = f"{trade.verb} {quantity} {trade.offer}", f"Your quantity: {quantity}. {trade.until}"
    return Content(title, body, data)


@dataclass(frozen=True, slots=True)
class TradeWords:
    """What is said alike in every alert of one trade."""

    verb: str
    offer: str
    until: str
    data: dict[str, str]


def _trade_words(notification: dict[str, Any]) -> TradeWords:
    """Put into words once a trade: a fan-out and a batch ask for thousands of the same."""
    price, fraction = notification["price"], notification["exit_fraction"]
    return _words_of(
        notification["event_key"],
        notification["symbol"],
        notification["side"],
        notification["action"],
        None if price is None else price.bid,
        notification["currency"],
        notification["priority"],
        notification["correlation_id"],
        notification["executed_at"],
        notification["expires_at"],
        None if fraction is None else fraction.bid,
    )


@lru_cache(maxsize=256)
def _words_of(
    event_key: str,
    symbol: str,
    side: str,
    action: str,
    price: bytes | None,
    currency: str,
    priority: str,
    correlation_id: str,
    executed_at: datetime,
    expires_at: datetime,
    exit_fraction: bytes | None,
) -> TradeWords:
    """Numbers come in their binary form, which tells 5 from 5.0: a key of the cache must."""
    shown_price = "" if price is None else plain(Decimal128.from_bid(price))
    ends = as_utc(expires_at)
    another_day = ends.date() != as_utc(executed_at).date()
    data = {
        "event_id": event_key,
        "symbol": symbol,
        "side": side,
        "action": action,
        "price": shown_price,
        "currency": currency,
        "priority": priority,
        "expires_at": ends.isoformat().replace("+00:00", "Z"),
        "correlation_id": correlation_id,
    }
    if exit_fraction is not None:
        data["exit_fraction"] = plain(Decimal128.from_bid(exit_fraction))
    return TradeWords(
        verb="Buy" if side == Side.BUY else "Sell",
        offer=f"{symbol} @ {shown_price} {currency}".rstrip(),
        until=f"Valid until {ends:%d %b %H:%M} UTC." if another_day else f"Valid until {ends:%H:%M} UTC.",
        data=data,
    )


def _exit_words(verb: str, sizing: dict[str, Any] | None, fraction: Decimal128 | None) -> str:
    if sizing is None:
        if not fraction:
            return "The trader is leaving this position, wholly or in part."
        return f"The trader is leaving {_share(fraction)} of this position."
    if not fraction:
        return f"{verb} about {plain(sizing['suggested_qty'])}; how much of the position that is, is not known."
    share = _share(fraction)
    estimate = plain(sizing["suggested_qty"])
    about = f" (about {estimate})" if estimate not in {"", "0"} else ""
    held = "you hold" if verb == "Sell" else "you are short"
    return f"{verb} {share} of what {held}{about}."


def _share(fraction: Decimal128) -> str:
    if decimal_of(fraction) == 1:
        return "all"
    return percent(fraction) if decimal_of(fraction) * 10_000 >= 1 else "less than 0.01 %"


def delivery_key(notification_id: ObjectId, endpoint_id: ObjectId) -> str:
    """24 hexadecimal characters, the same for every attempt at (notification, endpoint) and for no other."""
    mixed = int.from_bytes(notification_id.binary, "big") ^ int.from_bytes(endpoint_id.binary, "big")
    return f"{mixed:024x}"
