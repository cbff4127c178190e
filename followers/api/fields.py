"""The kinds of values that calls take, as the schema shows them; where a serializer reads a call, they check too."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

CONTROL = r"\x00-\x1f\x7f-\x9f"
"""Characters that no name, id or address may hold."""

ID_PATTERN = rf"^[^{CONTROL}]*[^\s{CONTROL}][^{CONTROL}]*$"
TEXT_PATTERN = r"^[^\x00]*[^\s\x00][^\x00]*$"
CLOCK_PATTERN = r"^([01]\d|2[0-3]):[0-5]\d$"
_NUMBER_PATTERN = r"^\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$"


class IdField(serializers.RegexField):
    """Somebody's id in the platform's own system: 1 to 128 characters, and not all of them spaces."""

    def __init__(self, **options: Any) -> None:
        super().__init__(ID_PATTERN, max_length=128, trim_whitespace=False, **options)


class WordsField(serializers.RegexField):
    """Words for people to read."""

    def __init__(self, max_length: int, **options: Any) -> None:
        super().__init__(TEXT_PATTERN, max_length=max_length, trim_whitespace=False, **options)


@extend_schema_field(
    {"type": ["string", "number"], "pattern": _NUMBER_PATTERN, "maxLength": 100, "minimum": 0, "maximum": 1e18}
)
class NumberField(serializers.CharField):
    """An exact number from 0 to 1e18: a string or a JSON number, of at most 34 digits."""


@extend_schema_field(
    {"type": ["string", "number", "null"], "pattern": rf"{_NUMBER_PATTERN}|^\s*$", "maxLength": 100, "minimum": 0,
     "maximum": 1e18}
)  # fmt: skip
class OptionalNumberField(serializers.CharField):
    """The same, or null for none."""


@extend_schema_field(
    {
        "type": ["string", "number"],
        "pattern": r"^([1-9][0-9]{0,14}(\.[0-9]{1,8})?|0\.[0-9]{0,7}[1-9])$",
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 1e16,
    }
)
class AmountField(serializers.CharField):
    """A positive amount of money: a string, or a JSON number that is rounded up to 8 decimals."""


def one_of(*names: str) -> dict[str, Any]:
    """JSON schema: exactly one of these members is there."""
    return {"oneOf": [{"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in names]}
