"""The lines of a followers import: from bytes to checked values, or to the reason why not."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, BinaryIO

import orjson

from followers.members import (
    Address,
    BadValueError,
    ExactNumber,
    read_address,
    read_id,
    read_locale,
    read_number,
    read_required_number,
    read_text,
    read_timezone,
)

MAX_LINE_BYTES = 1024 * 1024
"""A longer line is no follower; it is skipped without ever being held in memory."""

CHUNK_BYTES_PER_LINE = 4096
"""A chunk ends early where its lines are longer than this on average."""

MAX_ENDPOINTS = 100
"""More addresses than one person has; a longer list is a mistake of whoever wrote the file."""


_ONE = Decimal(1)


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
    """Reads one line of the import file (UTF-8 JSON). Raises BadValueError with the reason."""
    members = _decode(raw)
    follower: dict[str, Any] = {"portfolio_value": read_required_number(members, "followerPortfolio")}
    trader: dict[str, Any] = {}
    trader_portfolio = read_number(members, "traderPortfolio")
    if trader_portfolio is not None:
        trader["portfolio_value"] = trader_portfolio
    if "currency" in members:
        follower["currency"] = read_text(members, "currency", 12)
        if trader_portfolio is not None:  # The currency is that of the amounts beside it.
            trader["currency"] = follower["currency"]
    if "locale" in members:
        follower["locale"] = read_locale(members)
    if "timezone" in members:
        follower["timezone"] = read_timezone(members)
    follow: dict[str, Any] = {}
    if "multiplier" in members:
        multiplier = read_number(members, "multiplier")
        follow["multiplier"] = _ONE if multiplier is None else multiplier
    if "allocation" in members:
        follow["allocation"] = read_number(members, "allocation")
    return ImportLine(
        read_id(members, "traderId"), read_id(members, "followerId"), trader, follower, follow, _endpoints(members)
    )


def _decode(raw: bytes) -> dict[str, Any]:
    """orjson is several times as fast as the standard library, but it knows no decimals.

    So a line with a number that orjson made a float (every number with a point or an exponent, and every integer
    beyond 64 bits) is read again with exact ones. Producers that write their numbers as strings never pay for it.
    """
    try:
        members = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadValueError(f"The line is not JSON: {error}.") from None
    if type(members) is not dict:
        raise BadValueError("The line is not a JSON object.")
    if any(type(value) is float for value in members.values()):
        try:
            members = json.loads(raw, parse_float=ExactNumber, parse_int=ExactNumber)
        except RecursionError:  # orjson goes deeper than the standard library.
            raise BadValueError("The line is nested too deeply.") from None
    return members


def _endpoints(members: Mapping[str, Any]) -> list[Address]:
    given = members.get("endpoints")
    if given is None:
        return []
    if type(given) is not list:
        raise BadValueError("endpoints must be a list.")
    if len(given) > MAX_ENDPOINTS:
        raise BadValueError(f"endpoints has {len(given):,} entries; {MAX_ENDPOINTS} are allowed.")
    return [_endpoint(f"endpoints[{position}]", item) for position, item in enumerate(given)]


def _endpoint(path: str, item: object) -> Address:
    if not isinstance(item, dict):
        raise BadValueError(f"{path} must be an object.")
    try:
        return read_address(item)
    except BadValueError as error:
        raise BadValueError(f"{path}.{error}") from None
