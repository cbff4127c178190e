"""The quick conversions give exactly what pymongo's own give."""

from __future__ import annotations

from decimal import Decimal

import pytest
from bson import Decimal128
from hypothesis import given
from hypothesis import strategies as st

from followers.decimals import decimal_of, to_decimal, to_decimal128

numbers = st.builds(
    lambda sign, coefficient, exponent: Decimal((sign, tuple(map(int, str(coefficient))), exponent)),
    st.integers(0, 1),
    st.integers(0, 10**34 - 1),
    st.integers(-6176, 6111),
)


@given(numbers)
def test_every_number_is_stored_as_pymongo_stores_it(number: Decimal) -> None:
    assert to_decimal128(number) == Decimal128(number)


@given(numbers)
def test_every_number_is_read_as_pymongo_reads_it(number: Decimal) -> None:
    stored = Decimal128(number)
    assert decimal_of(stored).as_tuple() == stored.to_decimal().as_tuple()


@pytest.mark.parametrize("special", ["NaN", "Infinity", "-Infinity"])
def test_special_values_pass_through(special: str) -> None:
    assert str(to_decimal128(Decimal(special))) == special
    assert str(decimal_of(Decimal128(special))) == special


def test_too_many_digits_are_refused_as_pymongo_refuses_them() -> None:
    number = Decimal("1." + "1" * 40)
    with pytest.raises(ArithmeticError):
        Decimal128(number)
    with pytest.raises(ArithmeticError):
        to_decimal128(number)


def test_nothing_stays_nothing() -> None:
    assert to_decimal128(None) is None
    assert to_decimal(None) is None
