"""Readers for the typed fields of an event: text, words of an enumeration, exact numbers, moments and dates."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import MAXYEAR, UTC, date, datetime, timedelta
from decimal import ROUND_DOWN, Context, Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, TypeVar

from notifications.event_json import InvalidEvent, RejectCode, describe

MAX_DIGITS = 34
"""The digits of a Decimal128 coefficient."""

LEAST_MAGNITUDE = Decimal("1e-18")
GREATEST_MAGNITUDE = Decimal("1e18")

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NUMBER_CHARACTERS = 100  # 34 digits, a sign, a point, an exponent and generous leading zeros.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_TIMESTAMP = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}):([0-9]{2})(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_EXACT = Context(prec=2 * MAX_DIGITS, rounding=ROUND_DOWN)
_ZERO = Decimal(0)
_ONE = Decimal(1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Word = TypeVar("Word")


class Sign(StrEnum):
    """Which numbers a field takes; the magnitude is bounded in any case."""

    POSITIVE = "greater than 0"
    NOT_NEGATIVE = "0 or more"
    ANY = "any number"


class Fields:
    """One JSON object of an event, read field by field. Null, "" and blanks count as missing.

    Every method raises `InvalidEvent` that names the field by its path and shows the value.
    """

    __slots__ = ("_members", "_prefix")

    def __init__(self, members: Mapping[str, Any], prefix: str = "") -> None:
        self._members = members
        self._prefix = prefix

    def get(self, name: str) -> Any:
        """Return the JSON value as decoded, None when missing."""
        value = self._members.get(name)
        if isinstance(value, str) and (not value or value.isspace()):
            return None
        return value

    def missing(self, name: str) -> InvalidEvent:
        return InvalidEvent(RejectCode.MISSING_FIELD, f"{self._prefix}{name} is missing or empty.")

    def text(self, name: str, limit: int) -> str:
        """Return a string of at most `limit` characters without control characters, "" when missing."""
        value = self.get(name)
        return "" if value is None else check_text(self._prefix + name, value, limit)

    def required_text(self, name: str, limit: int) -> str:
        return self.text(name, limit) or self._raise_missing(name)

    def word(self, name: str, words: Mapping[str, Word]) -> Word | None:
        """Return the member that `words` holds for the string, None when missing."""
        value = self.get(name)
        if value is None:
            return None
        if type(value) is not str:
            raise wrong_type(self._prefix + name, value, "a string")
        try:
            return words[value]
        except KeyError as err:
            raise InvalidEvent(
                RejectCode.NOT_IN_ENUMERATION,
                f"{self._prefix}{name} is {describe(value)}, not one of {', '.join(words)}.",
            ) from err

    def required_word(self, name: str, words: Mapping[str, Word]) -> Word:
        word = self.word(name, words)
        if word is None:
            raise self.missing(name)
        return word

    def number(self, name: str, sign: Sign) -> Decimal | None:
        """Return the exact number, given as JSON number or string; None when missing."""
        value = self.get(name)
        return None if value is None else parse_number(self._prefix + name, value, sign)

    def required_number(self, name: str, sign: Sign) -> Decimal:
        number = self.number(name, sign)
        if number is None:
            raise self.missing(name)
        return number

    def required_timestamp(self, name: str) -> datetime:
        value = self.get(name)
        if value is None:
            raise self.missing(name)
        return parse_timestamp(self._prefix + name, value)

    def expiry(self, name: str) -> tuple[date | None, datetime | None]:
        """Return (the date as written, the moment if one was given in UTC); (None, None) when missing."""
        value = self.get(name)
        return (None, None) if value is None else parse_expiry(self._prefix + name, value)

    def _raise_missing(self, name: str) -> str:
        raise self.missing(name)


def wrong_type(path: str, value: object, expected: str) -> InvalidEvent:
    return InvalidEvent(RejectCode.WRONG_TYPE, f"{path} is {describe(value)}, not {expected}.")


def check_text(path: str, value: object, limit: int) -> str:
    """Return `value` if it is a string of at most `limit` characters without control characters."""
    if type(value) is not str:  # NumberText, a JSON number, is a str as well.
        raise wrong_type(path, value, "a string")
    if len(value) > limit:
        raise InvalidEvent(
            RejectCode.TOO_LONG, f"{path} has {len(value):,} characters, more than {limit}: {describe(value)}."
        )
    if not value.isprintable() and _CONTROL.search(value):
        raise InvalidEvent(RejectCode.BAD_CHARACTER, f"{path} holds a control character: {describe(value)}.")
    return value


def parse_number(path: str, value: object, sign: Sign) -> Decimal:
    """Return the exact Decimal, without an exponent above 0 and without a negative zero.

    Digits are counted as written, leading zeros apart: 38 digits are refused even if the last ones are zeros.
    """
    if type(value) is int:
        number = Decimal(value)
    elif isinstance(value, str):
        number = _decimal(path, value)
    else:
        raise wrong_type(path, value, "a number")
    if not number:
        if sign is Sign.POSITIVE:
            raise _out_of_range(path, value, sign.value)
        return _ZERO
    if sign is not Sign.ANY and number.is_signed():
        raise _out_of_range(path, value, sign.value)
    if not LEAST_MAGNITUDE <= number.copy_abs() <= GREATEST_MAGNITUDE:
        raise _out_of_range(path, value, "of a magnitude between 1e-18 and 1e18")
    if number.same_quantum(_ONE) or type(value) is int:
        return number
    whole = number.to_integral_value(context=_EXACT)  # Leaves an exponent above 0 as it is.
    return number.quantize(_ONE, context=_EXACT) if whole.same_quantum(number) else number


def _decimal(path: str, text: str) -> Decimal:
    shown = describe(text)
    if not _NUMBER.fullmatch(text):
        raise InvalidEvent(RejectCode.NOT_A_NUMBER, f"{path} is {shown}, which is not a decimal number.")
    if len(text) > MAX_DIGITS and (len(text) > _NUMBER_CHARACTERS or _digits(text) > MAX_DIGITS):
        raise InvalidEvent(RejectCode.TOO_MANY_DIGITS, f"{path} has more than {MAX_DIGITS} digits: {shown}.")
    try:
        return Decimal(text)
    except InvalidOperation as err:  # The text is a number, so only its exponent can be too much for Decimal.
        raise _out_of_range(path, text, "of a magnitude between 1e-18 and 1e18") from err


def _digits(text: str) -> int:
    coefficient = re.split("[eE]", text, maxsplit=1)[0]
    return len(coefficient.lstrip("+-").replace(".", "").lstrip("0"))


def _out_of_range(path: str, value: object, expected: str) -> InvalidEvent:
    return InvalidEvent(RejectCode.OUT_OF_RANGE, f"{path} is {describe(value)}; it must be {expected}.")


def parse_timestamp(path: str, value: object) -> datetime:
    """Return an RFC 3339 timestamp as aware UTC, cut to milliseconds (what MongoDB keeps).

    Taken: `T`, `t` or a blank between date and time, `Z`, `z` or a numeric offset, any number of decimals, and a leap
    second (RFC 3339, section 5.6 and appendix D), which becomes the second after it, as POSIX time has it.
    """
    if type(value) is not str:
        raise wrong_type(path, value, "a string with an RFC 3339 timestamp")
    match = _TIMESTAMP.fullmatch(value)
    if match is None:
        raise _bad_timestamp(path, value, "is not an RFC 3339 timestamp with an offset")
    day, minute, second, decimals, offset = match.groups()
    leap = second == "60"
    millisecond = ((decimals or ".") + "000")[1:4]
    try:
        text = f"{day}T{minute}:{'59' if leap else second}.{millisecond}{'+00:00' if offset in 'Zz' else offset}"
        moment = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as err:
        raise _bad_timestamp(path, value, "is no moment that exists") from err
    if leap:
        if (moment.hour, moment.minute) != (23, 59) or moment.year == MAXYEAR:
            raise _bad_timestamp(path, value, "has a second 60 where no leap second can be")
        moment += timedelta(seconds=1)
    if moment < _EPOCH:
        raise InvalidEvent(RejectCode.OUT_OF_RANGE, f"{path} is {describe(value)}, before 1970.")
    return moment


def _bad_timestamp(path: str, value: str, why: str) -> InvalidEvent:
    return InvalidEvent(RejectCode.BAD_TIMESTAMP, f"{path}, {describe(value)}, {why}.")


def parse_expiry(path: str, value: object) -> tuple[date, datetime | None]:
    """Return (the date as written, the moment in UTC if a time was given).

    Taken: `2026-11-26`, and `2026-11-26T15:30:00+05:30` as for a timestamp. A time without an offset is refused: five
    hours of doubt are too many on the last day.
    """
    if type(value) is not str:
        raise wrong_type(path, value, "a string with a date")
    moment = None if _DATE.fullmatch(value) else _expiry_moment(path, value)
    try:
        return date.fromisoformat(value[:10]), moment
    except ValueError as err:
        raise InvalidEvent(RejectCode.BAD_DATE, f"{path}, {describe(value)}, is no date that exists.") from err


def _expiry_moment(path: str, value: str) -> datetime:
    try:
        return parse_timestamp(path, value)
    except InvalidEvent as err:
        raise InvalidEvent(
            RejectCode.BAD_DATE, f"{path}, {describe(value)}, is neither a date nor a timestamp with an offset."
        ) from err
