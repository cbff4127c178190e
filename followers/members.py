"""The members of a JSON object as checked values, or the sentence why not; shared by the import file and the API.

Nothing here touches the database. Numbers never pass through float, and no reason repeats an address.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any
from zoneinfo import available_timezones

import orjson
from django.core.exceptions import ValidationError

from followers import clock
from followers.addresses import normalise_address
from followers.choices import VENDOR_CHANNELS, Environment, Platform

MAX_DIGITS = 34  # A Decimal128's coefficient.
LEAST_MAGNITUDE = Decimal("1e-18")
GREATEST_MAGNITUDE = Decimal("1e18")
CLOCK_SKEW = timedelta(minutes=5)  # Of whoever sends us times.

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NUMBER_CHARACTERS = 100  # 34 digits, a sign, a point, an exponent and generous leading zeros.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LOCALE = re.compile(r"[A-Za-z]{2,8}(?:[-_][A-Za-z0-9]{1,8})*")  # The form of BCP 47; CLDR writes an underscore.
_CHANNELS = frozenset(c.value for c in VENDOR_CHANNELS)
_PLATFORMS = frozenset(Platform.values)
_ENVIRONMENTS = frozenset(Environment.values)
_ONE = Decimal(1)
_ZERO = Decimal(0)


class BadValueError(ValueError):
    """What was given cannot be taken; the message is a sentence that names the field."""


@dataclass(frozen=True, slots=True)
class Address:
    """One endpoint as it is given. `details` holds platform, app and environment as far as they are given."""

    channel: str
    address: str  # In its one spelling, see followers.addresses.
    details: dict[str, Any]


def exactly(raw: bytes) -> Any:
    """JSON whose numbers with a point or an exponent are `ExactNumber`s.

    Raises ValueError for what is no JSON: also for NaN, lone surrogates, and what is nested too deeply.
    """
    orjson.loads(raw)  # Stricter than the standard library.
    try:
        return json.loads(raw, parse_float=ExactNumber)
    except RecursionError:  # orjson goes deeper than the standard library.
        raise ValueError("nested too deeply") from None


class ExactNumber(str):
    """A JSON number as it was written; only its class tells it from a JSON string."""

    __slots__ = ()


def is_missing(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def read_text(members: Mapping[str, Any], name: str, limit: int) -> str:
    """A string of at most `limit` characters without control characters; "" where it is missing."""
    value = members.get(name)
    if is_missing(value):
        return ""
    if type(value) is not str:
        raise BadValueError(f"{name} must be a string.")
    if len(value) > limit:
        raise BadValueError(f"{name} has {len(value):,} characters; {limit} are allowed.")
    if not value.isprintable() and _CONTROL.search(value):
        raise BadValueError(f"{name} holds a control character.")
    return value


def read_id(members: Mapping[str, Any], name: str) -> str:
    value = read_text(members, name, 128)
    if not value:
        raise BadValueError(f"{name} is missing.")
    return value


def read_word(members: Mapping[str, Any], name: str, words: frozenset[str], default: str) -> str:
    value = members.get(name)
    if is_missing(value):
        return default
    if type(value) is not str:
        raise BadValueError(f"{name} must be a string.")
    if value not in words:
        raise BadValueError(f"{name} “{value[:40]}” is unknown; it is one of {', '.join(sorted(words))}.")
    return value


def read_required_number(members: Mapping[str, Any], name: str) -> Decimal:
    number = read_number(members, name)
    if number is None:
        raise BadValueError(f"{name} is missing.")
    return number


def read_number(members: Mapping[str, Any], name: str) -> Decimal | None:
    """An exact number that is not negative, from a JSON number or a string; None where it is missing.

    Its exponent is never above 0, so that 1e5 and 100000 are stored alike.
    """
    value = members.get(name)
    if is_missing(value):
        return None
    if type(value) is int:
        number = Decimal(value)
    elif isinstance(value, str):
        number = _decimal(name, value)
    else:
        raise BadValueError(f"{name} must be a number.")
    if not number:
        return _ZERO
    if number.is_signed():
        raise BadValueError(f"{name} must not be negative.")
    if not LEAST_MAGNITUDE <= number <= GREATEST_MAGNITUDE:
        raise BadValueError(f"{name} must be 0, or between 1e-18 and 1e18.")
    exponent = number.as_tuple().exponent
    return number.quantize(_ONE) if isinstance(exponent, int) and exponent > 0 else number


def _decimal(name: str, text: str) -> Decimal:
    text = text.strip()
    if len(text) > _NUMBER_CHARACTERS or not _NUMBER.fullmatch(text):
        raise BadValueError(f"{name} “{text[:40]}” is not a number.")
    try:
        number = Decimal(text)
    except InvalidOperation:  # An exponent beyond what Decimal knows.
        raise BadValueError(f"{name} must be 0, or between 1e-18 and 1e18.") from None
    if len(number.as_tuple().digits) > MAX_DIGITS:
        raise BadValueError(f"{name} has more than {MAX_DIGITS} digits.")
    return number


def read_locale(members: Mapping[str, Any]) -> str:
    locale = read_text(members, "locale", 35) or "en"
    if not _LOCALE.fullmatch(locale):
        raise BadValueError(f"locale “{locale}” is no language tag such as en or pt-BR.")
    return locale


def read_timezone(members: Mapping[str, Any]) -> str:
    timezone = read_text(members, "timezone", 64) or "UTC"
    if timezone not in _timezones():
        raise BadValueError(f"timezone “{timezone}” is not in the IANA time zone database.")
    return timezone


@cache
def _timezones() -> frozenset[str]:
    return frozenset(available_timezones())


def read_time(members: Mapping[str, Any], name: str) -> datetime | None:
    """A time with its offset (RFC 3339), as aware UTC in whole milliseconds, not in the future; None if missing."""
    value = read_text(members, name, 40)
    if not value:
        return None
    try:
        at = datetime.fromisoformat(value)
        if at.tzinfo is None:
            raise ValueError("without an offset")
        at = at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadValueError(f"{name} is a time such as 2026-11-21T09:15:00Z.") from None
    if at > clock.now() + CLOCK_SKEW:
        raise BadValueError(f"{name} is in the future.")
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def read_address(item: Mapping[str, Any]) -> Address:
    """`channel`, `address`, and what is given of `platform`, `app` and `environment`; no error repeats the address."""
    try:
        channel = read_word(item, "channel", _CHANNELS, "")
        address = item.get("address")
        if not channel or is_missing(address):
            raise BadValueError(f"{'address' if channel else 'channel'} is missing.")
        if type(address) is not str:
            raise BadValueError("address must be a string.")
        if not address.isprintable() and _CONTROL.search(address):
            raise BadValueError("address holds a control character.")
        details: dict[str, Any] = {}
        if "platform" in item:
            details["platform"] = read_word(item, "platform", _PLATFORMS, "")
        if "app" in item:
            details["app"] = read_text(item, "app", 200)
        if "environment" in item:
            details["environment"] = read_word(item, "environment", _ENVIRONMENTS, Environment.PRODUCTION.value)
        return Address(channel, normalise_address(channel, address), details)
    except ValidationError as error:
        raise BadValueError(f"address: {' '.join(error.messages)}") from None
