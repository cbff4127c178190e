"""The lines of a followers import: from bytes to checked values, or to the reason why not.

Nothing here touches the database. Numbers never pass through float, and no reason repeats an address.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any, BinaryIO
from zoneinfo import available_timezones

import orjson
from django.core.exceptions import ValidationError

from followers.addresses import normalise_address
from followers.choices import VENDOR_CHANNELS, Environment, Platform

MAX_DIGITS = 34  # A Decimal128's coefficient.
LEAST_MAGNITUDE = Decimal("1e-18")
GREATEST_MAGNITUDE = Decimal("1e18")
MAX_LINE_BYTES = 1024 * 1024
"""A longer line is no follower; it is skipped without ever being held in memory."""

CHUNK_BYTES_PER_LINE = 4096
"""A chunk ends early where its lines are longer than this on average."""

MAX_ENDPOINTS = 100
"""More addresses than one person has; a longer list is a mistake of whoever wrote the file."""

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NUMBER_CHARACTERS = 100  # 34 digits, a sign, a point, an exponent and generous leading zeros.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LOCALE = re.compile(r"[A-Za-z]{2,8}(?:[-_][A-Za-z0-9]{1,8})*")  # The form of BCP 47; CLDR writes an underscore.
_CHANNELS = frozenset(c.value for c in VENDOR_CHANNELS)
_PLATFORMS = frozenset(Platform.values)
_ENVIRONMENTS = frozenset(Environment.values)
_ONE = Decimal(1)
_ZERO = Decimal(0)


class BadLineError(ValueError):
    """The line cannot be imported; the message is a sentence that names the field."""


@dataclass(frozen=True, slots=True)
class Address:
    """One endpoint of a line. `details` holds platform, app and environment as far as the line gives them."""

    channel: str
    address: str  # In its one spelling, see followers.addresses.
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ImportLine:
    """A good line. The dictionaries hold model fields, and only those that the line gives.

    A field that is absent leaves what is stored and gets its default in a new row; null sets the default. Amounts are
    `Decimal`, in the line's currency.
    """

    trader_id: str
    follower_id: str
    trader: dict[str, Any]  # portfolio_value, currency
    follower: dict[str, Any]  # portfolio_value, currency, locale, timezone
    follow: dict[str, Any]  # multiplier, allocation
    endpoints: list[Address]


@dataclass(slots=True)
class Chunk:
    """Numbered lines without blank ones, and the bytes that they took."""

    lines: list[tuple[int, bytes | None]] = field(default_factory=list)  # None = longer than MAX_LINE_BYTES.
    size: int = 0


def read_chunks(source: BinaryIO, chunk_lines: int) -> Iterator[Chunk]:
    """Reads a file in chunks of so many lines, fewer where they are long, so that memory stays flat."""
    chunk = Chunk()
    number = 0
    while line := source.readline(MAX_LINE_BYTES):
        number += 1
        chunk.size += len(line)
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            chunk.size += _skip_rest(source)
            chunk.lines.append((number, None))
        else:
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if not line.isspace():
                chunk.lines.append((number, line))
        if len(chunk.lines) >= chunk_lines or chunk.size >= chunk_lines * CHUNK_BYTES_PER_LINE:
            yield chunk
            chunk = Chunk()
    yield chunk


def _skip_rest(source: BinaryIO) -> int:
    skipped = 0
    while rest := source.readline(MAX_LINE_BYTES):
        skipped += len(rest)
        if rest.endswith(b"\n"):
            break
    return skipped


def parse_line(raw: bytes) -> ImportLine:
    """Reads one line of the import file (UTF-8 JSON). Raises BadLineError with the reason."""
    members = _decode(raw)
    follower: dict[str, Any] = {"portfolio_value": _required_number(members, "followerPortfolio")}
    trader: dict[str, Any] = {}
    trader_portfolio = _number(members, "traderPortfolio")
    if trader_portfolio is not None:
        trader["portfolio_value"] = trader_portfolio
    if "currency" in members:
        follower["currency"] = _text(members, "currency", 12)
        if trader_portfolio is not None:  # The currency is that of the amounts beside it.
            trader["currency"] = follower["currency"]
    if "locale" in members:
        follower["locale"] = _locale(members)
    if "timezone" in members:
        follower["timezone"] = _timezone(members)
    follow: dict[str, Any] = {}
    if "multiplier" in members:
        multiplier = _number(members, "multiplier")
        follow["multiplier"] = _ONE if multiplier is None else multiplier
    if "allocation" in members:
        follow["allocation"] = _number(members, "allocation")
    return ImportLine(
        _id(members, "traderId"), _id(members, "followerId"), trader, follower, follow, _endpoints(members)
    )


def _decode(raw: bytes) -> dict[str, Any]:
    """orjson is several times as fast as the standard library, but it knows no decimals.

    So a line with a number that orjson made a float (every number with a point or an exponent, and every integer
    beyond 64 bits) is read again with exact ones. Producers that write their numbers as strings never pay for it.
    """
    try:
        members = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadLineError(f"The line is not JSON: {error}.") from None
    if type(members) is not dict:
        raise BadLineError("The line is not a JSON object.")
    if any(type(value) is float for value in members.values()):
        try:
            members = json.loads(raw, parse_float=_ExactNumber, parse_int=_ExactNumber)
        except RecursionError:  # orjson goes deeper than the standard library.
            raise BadLineError("The line is nested too deeply.") from None
    return members


class _ExactNumber(str):
    """A JSON number as it was written; only its class tells it from a JSON string."""

    __slots__ = ()


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _text(members: Mapping[str, Any], name: str, limit: int) -> str:
    """A string of at most `limit` characters without control characters; "" where it is missing."""
    value = members.get(name)
    if _is_missing(value):
        return ""
    if type(value) is not str:
        raise BadLineError(f"{name} must be a string.")
    if len(value) > limit:
        raise BadLineError(f"{name} has {len(value):,} characters; {limit} are allowed.")
    if not value.isprintable() and _CONTROL.search(value):
        raise BadLineError(f"{name} holds a control character.")
    return value


def _id(members: Mapping[str, Any], name: str) -> str:
    value = _text(members, name, 128)
    if not value:
        raise BadLineError(f"{name} is missing.")
    return value


def _word(members: Mapping[str, Any], name: str, words: frozenset[str], default: str) -> str:
    value = members.get(name)
    if _is_missing(value):
        return default
    if type(value) is not str:
        raise BadLineError(f"{name} must be a string.")
    if value not in words:
        raise BadLineError(f"{name} “{value[:40]}” is unknown; it is one of {', '.join(sorted(words))}.")
    return value


def _required_number(members: Mapping[str, Any], name: str) -> Decimal:
    number = _number(members, name)
    if number is None:
        raise BadLineError(f"{name} is missing.")
    return number


def _number(members: Mapping[str, Any], name: str) -> Decimal | None:
    """An exact number that is not negative, from a JSON number or a string; None where it is missing.

    Its exponent is never above 0, so that 1e5 and 100000 are stored alike.
    """
    value = members.get(name)
    if _is_missing(value):
        return None
    if type(value) is int:
        number = Decimal(value)
    elif isinstance(value, str):
        number = _decimal(name, value)
    else:
        raise BadLineError(f"{name} must be a number.")
    if not number:
        return _ZERO
    if number.is_signed():
        raise BadLineError(f"{name} must not be negative.")
    if not LEAST_MAGNITUDE <= number <= GREATEST_MAGNITUDE:
        raise BadLineError(f"{name} must be 0, or between 1e-18 and 1e18.")
    exponent = number.as_tuple().exponent
    return number.quantize(_ONE) if isinstance(exponent, int) and exponent > 0 else number


def _decimal(name: str, text: str) -> Decimal:
    text = text.strip()
    if len(text) > _NUMBER_CHARACTERS or not _NUMBER.fullmatch(text):
        raise BadLineError(f"{name} “{text[:40]}” is not a number.")
    try:
        number = Decimal(text)
    except InvalidOperation:  # An exponent beyond what Decimal knows.
        raise BadLineError(f"{name} must be 0, or between 1e-18 and 1e18.") from None
    if len(number.as_tuple().digits) > MAX_DIGITS:
        raise BadLineError(f"{name} has more than {MAX_DIGITS} digits.")
    return number


def _locale(members: Mapping[str, Any]) -> str:
    locale = _text(members, "locale", 35) or "en"
    if not _LOCALE.fullmatch(locale):
        raise BadLineError(f"locale “{locale}” is no language tag such as en or pt-BR.")
    return locale


def _timezone(members: Mapping[str, Any]) -> str:
    timezone = _text(members, "timezone", 64) or "UTC"
    if timezone not in _timezones():
        raise BadLineError(f"timezone “{timezone}” is not in the IANA time zone database.")
    return timezone


@cache
def _timezones() -> frozenset[str]:
    return frozenset(available_timezones())


def _endpoints(members: Mapping[str, Any]) -> list[Address]:
    given = members.get("endpoints")
    if given is None:
        return []
    if type(given) is not list:
        raise BadLineError("endpoints must be a list.")
    if len(given) > MAX_ENDPOINTS:
        raise BadLineError(f"endpoints has {len(given):,} entries; {MAX_ENDPOINTS} are allowed.")
    return [_endpoint(f"endpoints[{position}]", item) for position, item in enumerate(given)]


def _endpoint(path: str, item: object) -> Address:
    if not isinstance(item, dict):
        raise BadLineError(f"{path} must be an object.")
    try:
        channel = _word(item, "channel", _CHANNELS, "")
        address = item.get("address")
        if not channel or _is_missing(address):
            raise BadLineError(f"{'address' if channel else 'channel'} is missing.")
        if type(address) is not str:
            raise BadLineError("address must be a string.")
        if not address.isprintable() and _CONTROL.search(address):
            raise BadLineError("address holds a control character.")
        details: dict[str, Any] = {}
        if "platform" in item:
            details["platform"] = _word(item, "platform", _PLATFORMS, "")
        if "app" in item:
            details["app"] = _text(item, "app", 200)
        if "environment" in item:
            details["environment"] = _word(item, "environment", _ENVIRONMENTS, Environment.PRODUCTION.value)
        return Address(channel, normalise_address(channel, address), details)
    except BadLineError as error:
        raise BadLineError(f"{path}.{error}") from None
    except ValidationError as error:
        raise BadLineError(f"{path}.address: {' '.join(error.messages)}") from None
