"""From a message's bytes to a JSON object that MongoDB can hold, or to the reason why not.

Everything here defends against input: no message may raise anything but `InvalidEvent`, cost more than a few times
its size in time and memory, or lose a digit to binary floating point.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

MAX_MESSAGE_BYTES = 1024 * 1024
"""Kafka's default `max.message.bytes` is 1 MiB and 12 bytes. BSON may need six times a JSON text's size, and a MongoDB
document ends at 16 MB, so that a message of this size can always be stored."""

MAX_DEPTH = 64
"""Levels of nesting. MongoDB refuses documents of more than 100, our own levels around the message included."""

_INT_CHARACTERS = 18
"""An integer of at most so many characters fits BSON's 64 bits; a longer one is kept as text."""


class RejectCode(StrEnum):
    """Why a message is not a trade event. Stable: support searches for them and metrics count them."""

    EMPTY_MESSAGE = "empty_message"  # A tombstone or no bytes at all.
    TOO_LARGE = "too_large"  # More bytes than MAX_MESSAGE_BYTES.
    BAD_UTF8 = "bad_utf8"  # The message, or a header that is needed, is not UTF-8.
    BAD_JSON = "bad_json"  # Not one JSON text.
    DUPLICATE_KEY = "duplicate_key"  # A name twice in one object: it is not known which is meant.
    TOO_DEEP = "too_deep"  # Nested more than MAX_DEPTH levels.
    BAD_CHARACTER = "bad_character"  # NUL, half of a surrogate pair, or a control character in an id or word.
    MISSING_FIELD = "missing_field"  # Required and absent, null or empty.
    WRONG_TYPE = "wrong_type"  # Another JSON type than the field's.
    UNKNOWN_VERSION = "unknown_version"  # An event version that this release does not know.
    NOT_IN_ENUMERATION = "not_in_enumeration"  # A word outside the field's list.
    NOT_A_NUMBER = "not_a_number"  # NaN, Infinity or a text that is no decimal number.
    TOO_MANY_DIGITS = "too_many_digits"  # More than Decimal128's 34.
    OUT_OF_RANGE = "out_of_range"  # A magnitude or sign, or a time, outside what the contract allows.
    TOO_LONG = "too_long"  # An id, symbol or word with more characters than it may have.
    BAD_TIMESTAMP = "bad_timestamp"  # Not RFC 3339 with an offset, or no such moment.
    BAD_DATE = "bad_date"  # Neither an ISO 8601 date nor a timestamp with an offset.


class InvalidEvent(Exception):  # noqa: N818 - It says what the message is; nothing of ours went wrong.
    """The message is not a trade event and never will be: it is set aside, never tried again.

    `code` is a `RejectCode`; `detail` is a sentence for a person that names the field and the value, shortened.
    """

    def __init__(self, code: RejectCode, detail: str) -> None:
        super().__init__(f"{code.value}: {detail}")
        self.code = code
        self.detail = detail


class NumberText(str):
    """A JSON number as it was written. Only its class tells it from a JSON string; BSON and JSON take it for text."""

    __slots__ = ()


class _Constant(str):
    """NaN, Infinity or -Infinity, which Python's decoder lets through and JSON (RFC 8259, section 6) does not know."""

    __slots__ = ()


def describe(value: object, limit: int = 60) -> str:
    """Show a JSON value in a sentence, cut to about `limit` characters."""
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    shown = text[:limit]
    if type(value) is str:
        shown = json.dumps(shown, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
    return shown if len(text) <= limit else f"{shown}…"


def _integer(text: str) -> int | NumberText:
    """Keep what BSON's 64 bits hold as an integer; the rest stays text (and never meets Python's digit limit)."""
    return int(text) if len(text) <= _INT_CHARACTERS else NumberText(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise InvalidEvent(RejectCode.DUPLICATE_KEY, f"The name {describe(name)} stands twice in one object.")
            seen.add(name)
    return members


_decoder = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=NumberText, parse_int=_integer, parse_constant=_Constant
)


def decode_object(value: bytes | None) -> dict[str, Any]:
    """Return the JSON object in `value`.

    Integers of up to 18 characters are `int`, every other number is `NumberText`; so nothing passes through float and
    the result can be stored in MongoDB as it is.

    Raises
    ------
    InvalidEvent
        For whatever is not such an object: see the first eight codes, `not_a_number` and `wrong_type`.
    """
    if not value:
        raise InvalidEvent(RejectCode.EMPTY_MESSAGE, "The message has no value.")
    if len(value) > MAX_MESSAGE_BYTES:
        raise InvalidEvent(
            RejectCode.TOO_LARGE, f"The message has {len(value):,} bytes, more than {MAX_MESSAGE_BYTES:,}."
        )
    try:
        text = value.decode("utf-8")
        decoded = _decoder.decode(text)
    except UnicodeDecodeError as err:
        raise InvalidEvent(RejectCode.BAD_UTF8, f"Byte {err.start} of the message is not UTF-8.") from err
    except json.JSONDecodeError as err:
        raise InvalidEvent(RejectCode.BAD_JSON, f"The message is not JSON: {err.msg} at character {err.pos}.") from err
    except RecursionError as err:
        raise InvalidEvent(RejectCode.TOO_DEEP, f"The message is nested more than {MAX_DEPTH} levels.") from err
    if type(decoded) is not dict:
        raise InvalidEvent(RejectCode.WRONG_TYPE, f"The message is {describe(decoded)}, not an object.")
    if _may_hide_trouble(value):
        _check_tree(decoded)
    return decoded


def _may_hide_trouble(value: bytes) -> bool:
    """Tell in four quick scans whether the slow walk could find anything; an ordinary event needs none.

    NUL and half surrogates can only have come in as `\\u` escapes: raw, the first is not JSON and the second not UTF-8.
    """
    return (
        b"\\u" in value or b"NaN" in value or b"Infinity" in value or value.count(b"{") + value.count(b"[") > MAX_DEPTH
    )


def _check_tree(root: dict[str, Any]) -> None:
    """Refuse, anywhere in the message, what could not be stored or is not JSON."""
    waiting: list[tuple[str, Any, int]] = [("", root, 1)]
    while waiting:
        path, node, depth = waiting.pop()
        if isinstance(node, str):
            _check_text(path, node)
            continue
        if not isinstance(node, dict | list):
            continue
        if depth > MAX_DEPTH:
            raise InvalidEvent(RejectCode.TOO_DEEP, f"{describe(path)} is nested more than {MAX_DEPTH} levels.")
        if isinstance(node, list):
            waiting.extend((f"{path[:100]}[{i}]", item, depth + 1) for i, item in enumerate(node))
            continue
        for name, item in node.items():
            _check_text(f"A name in {path or 'the message'}", name)
            waiting.append((f"{path[:100]}.{name[:100]}" if path else name[:100], item, depth + 1))


def _check_text(path: str, text: str) -> None:
    if isinstance(text, _Constant):
        raise InvalidEvent(RejectCode.NOT_A_NUMBER, f"{path} is {text}, which is not a number.")
    if "\x00" in text:
        raise InvalidEvent(RejectCode.BAD_CHARACTER, f"{path} holds a NUL character: {describe(text)}.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as err:
        raise InvalidEvent(
            RejectCode.BAD_CHARACTER, f"{path} holds half of a surrogate pair at character {err.start}."
        ) from err
