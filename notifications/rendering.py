"""Turns a stored notification into words, the same for every channel."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from bson import Decimal128, ObjectId

from followers.clock import as_utc
from followers.decimals import decimal_of
from notifications.choices import EXITS, Kind, Side
from notifications.update_events import KEY_PREFIX


@dataclass(frozen=True, slots=True)
class Content:
    """What a person reads and what their app is told."""

    title: str
    body: str
    data: dict[str, str]


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
    offer = f"{notification['symbol']} @ {plain(notification['price'])} {notification['currency']}".rstrip()
    exit_ = notification["action"] in EXITS
    verb = "Buy" if notification["side"] == Side.BUY else "Sell"
    ends = as_utc(notification["expires_at"])
    another_day = ends.date() != as_utc(notification["executed_at"]).date()
    until = f"Valid until {ends:%d %b %H:%M} UTC." if another_day else f"Valid until {ends:%H:%M} UTC."
    if exit_:
        title = f"{notification['action'].capitalize()}: {verb.lower()} {offer}"
        body = f"{_exit_words(verb, sizing, notification['exit_fraction'])} {until}"
    elif sizing is None:
        title, body = f"{verb} {offer}", f"The trader has executed this trade. {until}"
    else:
        quantity = plain(sizing["suggested_qty"])
        title, body = f"{verb} {quantity} {offer}", f"Your quantity: {quantity}. {until}"
    return Content(title, body, _data(notification, sizing))


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


def _data(notification: dict[str, Any], sizing: dict[str, Any] | None) -> dict[str, str]:
    """What an app gets beside the words; every value is text, as FCM demands."""
    data = {
        "notification_id": str(notification["_id"]),
        "event_id": notification["event_key"],
        "symbol": notification["symbol"],
        "side": notification["side"],
        "action": notification["action"],
        "price": plain(notification["price"]),
        "currency": notification["currency"],
        "priority": notification["priority"],
        "expires_at": as_utc(notification["expires_at"]).isoformat().replace("+00:00", "Z"),
        "correlation_id": notification["correlation_id"],
    }
    if sizing is not None:
        data["suggested_qty"] = plain(sizing["suggested_qty"])
        data["ratio"] = plain(sizing["ratio"])
    if notification["exit_fraction"] is not None:
        data["exit_fraction"] = plain(notification["exit_fraction"])
    return data


def delivery_key(notification_id: ObjectId, endpoint_id: ObjectId) -> str:
    """24 hexadecimal characters, the same for every attempt at (notification, endpoint) and for no other."""
    mixed = bytes(a ^ b for a, b in zip(notification_id.binary, endpoint_id.binary, strict=True))
    return mixed.hex()
