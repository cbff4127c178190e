"""Decimal ↔ Decimal128, quickly: the hot paths convert a dozen numbers for each alert.

pymongo converts in Python, digit by digit and under a context, at some 20 µs a number. The numbers here are finite and
have at most 34 digits, so that their binary form (IEEE 754-2008, decimal128 in binary integer encoding) is a sign, an
exponent and one integer, which takes 2 µs.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final, cast

from bson import Decimal128

EXPONENT_BIAS: Final = 6176
_LOW: Final = (1 << 64) - 1
_SIGN: Final = 1 << 63
_HIGH_COEFFICIENT: Final = (1 << 49) - 1
_LARGE_OR_SPECIAL: Final = 0b11 << 61  # The other encoding, for infinities, NaN and what no 34 digits reach.
_MAX_COEFFICIENT: Final = 10**34 - 1
_MAX_EXPONENT: Final = 6111


def to_decimal128(value: Decimal | None) -> Decimal128 | None:
    """A number as MongoDB stores it; None stays None. Raises what Decimal128 raises for one that does not fit."""
    if value is None:
        return None
    text = str(value)  # Without an exponent for all numbers of a usual size, and then twice as quick as `as_tuple`.
    whole, _, fraction = text.partition(".")
    plain = whole + fraction
    if plain.isdigit():
        sign, coefficient, exponent = 0, int(plain), -len(fraction)
    else:
        sign, digits, power = value.as_tuple()
        if not isinstance(power, int):
            return Decimal128(value)
        coefficient, exponent = int("".join(map(str, digits))), power
    if coefficient > _MAX_COEFFICIENT or not -EXPONENT_BIAS <= exponent <= _MAX_EXPONENT:
        return Decimal128(value)
    high = (coefficient >> 64) | ((exponent + EXPONENT_BIAS) << 49) | (_SIGN if sign else 0)
    return Decimal128(cast(Any, (high, coefficient & _LOW)))  # The pair is its documented binary form.


def to_decimal(value: Decimal128 | None) -> Decimal | None:
    """A stored number, exactly, its trailing zeros included; None stays None."""
    return None if value is None else decimal_of(value)


def decimal_of(value: Decimal128) -> Decimal:
    """A stored number that is certainly there."""
    high, low = value.__getstate__()  # The pair that its constructor takes, without packing it into bytes first.
    if high & _LARGE_OR_SPECIAL == _LARGE_OR_SPECIAL:
        return value.to_decimal()
    coefficient = ((high & _HIGH_COEFFICIENT) << 64) | low
    if coefficient > _MAX_COEFFICIENT:
        return value.to_decimal()
    exponent = ((high >> 49) & 0x3FFF) - EXPONENT_BIAS
    if not exponent and not high & _SIGN:
        return Decimal(coefficient)
    return Decimal(f"{'-' if high & _SIGN else ''}{coefficient}E{exponent}")
