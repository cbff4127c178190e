"""How much each follower is told to trade, checked against exact fractions."""

from __future__ import annotations

import dataclasses
from decimal import Decimal, localcontext
from fractions import Fraction
from math import floor
from typing import Any

import pytest
from bson.decimal128 import Decimal128
from hypothesis import given, settings
from hypothesis import strategies as st

from notifications.choices import Reason
from notifications.sizing import Sizer, Sizing, SizingInputs, size_alert
from tests.notifications.builders import trade

D = Decimal


def inputs(**fields: Any) -> SizingInputs:
    """The trade of the contract's example: 50 bought at 100 by a trader with 100,000 INR."""
    figures: dict[str, Any] = {"executed_qty": "50", "price": "100", "trader_portfolio": "100000"} | fields
    return SizingInputs(**_as_decimals(figures))


def size(portfolio: str | None = "10000", *, of: SizingInputs | None = None, **follow: Any) -> Sizing:
    """Size for a follower with 10,000."""
    return size_alert(of or inputs(), None if portfolio is None else D(portfolio), **_as_decimals(follow))


def _as_decimals(figures: dict[str, Any]) -> dict[str, Any]:
    return {k: D(v) if isinstance(v, str) and k != "currency" else v for k, v in figures.items()}


class TestQuantity:
    def test_a_tenth_of_the_portfolio_trades_a_tenth(self) -> None:
        sizing = size()
        assert (sizing.suggested_qty, sizing.ratio, sizing.notional) == (D(5), D("0.1"), D(500))
        assert (sizing.reason, sizing.is_estimate, sizing.capped, sizing.exit_fraction) == ("", False, False, None)

    def test_the_multiplier_scales_the_quantity_and_not_the_ratio(self) -> None:
        sizing = size(multiplier="2.5")
        assert (sizing.suggested_qty, sizing.ratio) == (D(12), D("0.1"))

    def test_an_allocation_stands_in_for_the_portfolio(self) -> None:
        sizing = size("10000", allocation="4000")
        assert (sizing.suggested_qty, sizing.ratio, sizing.follower_portfolio) == (D(2), D("0.04"), D(4000))

    def test_an_allocation_is_enough_without_a_portfolio(self) -> None:
        assert size(None, allocation="4000").suggested_qty == D(2)

    def test_it_multiplies_before_it_divides(self) -> None:
        # 3 * 10 / 30 is 1; a ratio of 0.333… times 3 would be less, and round down to 0.
        assert size("10", of=inputs(executed_qty="3", trader_portfolio="30")).suggested_qty == D(1)

    @pytest.mark.parametrize(
        ("step", "quantity"),
        [
            ("1", "17"),
            ("5", "15"),
            ("0.01", "17.28"),
            ("0.25", "17.25"),
            ("18", "0"),
            ("3.3", "16.5"),
            ("1e-18", "17.285"),
        ],
    )
    def test_it_rounds_down_to_the_step(self, step: str, quantity: str) -> None:
        assert size("34570", of=inputs(quantity_step=step)).suggested_qty == D(quantity)

    def test_the_callers_decimal_context_has_no_say(self) -> None:
        with localcontext(prec=2):
            assert size("123456", of=inputs(executed_qty="7777", price="-123.45")).notional == D("1185243.45")


class TestCap:
    def test_max_notional_caps_the_quantity_to_whole_steps(self) -> None:
        sizing = size("100000", max_notional="1234")
        assert (sizing.suggested_qty, sizing.notional, sizing.capped) == (D(12), D(1200), True)

    def test_a_cap_that_does_not_bite_is_not_reported(self) -> None:
        sizing = size(max_notional="500")
        assert (sizing.suggested_qty, sizing.capped) == (D(5), False)

    def test_the_contract_multiplier_counts(self) -> None:
        sizing = size("100000", of=inputs(contract_multiplier="75"), max_notional="20000")
        assert (sizing.suggested_qty, sizing.notional) == (D(2), D(15000))

    def test_a_price_below_zero_counts_by_its_magnitude(self) -> None:
        sizing = size("100000", of=inputs(price="-37.63"), max_notional="100")
        assert (sizing.suggested_qty, sizing.notional) == (D(2), D("75.26"))

    def test_at_price_zero_there_is_no_cap(self) -> None:
        sizing = size(of=inputs(price="0"), max_notional="1")
        assert (sizing.suggested_qty, sizing.notional, sizing.capped) == (D(5), D(0), False)

    @pytest.mark.parametrize("nothing", ["0", "-5", "99.99"])
    def test_a_cap_below_one_step_leaves_nothing(self, nothing: str) -> None:
        sizing = size(max_notional=nothing)
        assert (sizing.suggested_qty, sizing.capped, sizing.reason) == (D(0), True, Reason.BELOW_MIN_QTY)


class TestReasons:
    @pytest.mark.parametrize("portfolio", [None, "0", "-1"])
    def test_a_follower_without_a_portfolio_is_skipped(self, portfolio: str | None) -> None:
        sizing = size(portfolio)
        assert (sizing.reason, sizing.suggested_qty, sizing.ratio) == (Reason.NO_PORTFOLIO, D(0), D(0))

    @pytest.mark.parametrize("allocation", ["0", "-1"])
    def test_an_allocation_of_nothing_is_no_portfolio(self, allocation: str) -> None:
        assert size("10000", allocation=allocation).reason == Reason.NO_PORTFOLIO

    @pytest.mark.parametrize("portfolio", [None, "0", "-1"])
    def test_without_the_traders_portfolio_everybody_is_skipped(self, portfolio: str | None) -> None:
        assert size(of=inputs(trader_portfolio=portfolio)).reason == Reason.NO_PORTFOLIO

    @pytest.mark.parametrize("figure", ["NaN", "sNaN", "Infinity", "1e6000"])
    @pytest.mark.parametrize("name", ["portfolio", "multiplier", "allocation"])
    def test_a_figure_beyond_all_reason_skips_one_follower_and_raises_nothing(self, name: str, figure: str) -> None:
        follow: dict[str, Any] = {name: figure}
        assert size(**follow).reason == Reason.NO_PORTFOLIO
        assert size(**follow, max_notional="500").reason == Reason.NO_PORTFOLIO

    @pytest.mark.parametrize("figure", ["NaN", "sNaN", "1e6000"])
    def test_a_cap_beyond_all_reason_skips_rather_than_trades_without_a_cap(self, figure: str) -> None:
        assert size(max_notional=figure).reason == Reason.NO_PORTFOLIO

    @pytest.mark.parametrize("currency", ["USD", "usd"])
    def test_another_currency_is_a_mismatch(self, currency: str) -> None:
        assert size(of=inputs(currency="INR"), currency=currency).reason == Reason.CURRENCY_MISMATCH

    @pytest.mark.parametrize(
        ("trades", "followers"), [("INR", "INR"), ("INR", "inr"), ("INR", ""), ("", "USD"), ("", "")]
    )
    def test_an_equal_or_unknown_currency_is_none(self, trades: str, followers: str) -> None:
        assert size(of=inputs(currency=trades), currency=followers).reason == ""

    @pytest.mark.parametrize(
        ("minimum", "reason"), [("5", ""), ("5.000001", Reason.BELOW_MIN_QTY), ("6", Reason.BELOW_MIN_QTY)]
    )
    def test_the_minimum_quantity_is_tested_after_rounding(self, minimum: str, reason: str) -> None:
        sizing = size("11999", of=inputs(min_quantity=minimum))
        assert (sizing.suggested_qty, sizing.reason) == (D(5), reason)

    @pytest.mark.parametrize("multiplier", ["0", "-1", "0.19"])
    def test_a_quantity_of_nothing_is_below_any_minimum(self, multiplier: str) -> None:
        sizing = size(of=inputs(min_quantity="0"), multiplier=multiplier)
        assert (sizing.suggested_qty, sizing.reason) == (D(0), Reason.BELOW_MIN_QTY)

    @pytest.mark.parametrize(("minimum", "reason"), [("500", ""), ("500.01", Reason.BELOW_MIN_NOTIONAL), ("0", "")])
    def test_the_minimum_notional_is_tested_on_what_is_suggested(self, minimum: str, reason: str) -> None:
        sizing = size("11999", of=inputs(min_notional=minimum))
        assert (sizing.suggested_qty, sizing.notional, sizing.reason) == (D(5), D(500), reason)

    def test_a_cap_can_push_an_order_below_the_minimum(self) -> None:
        assert size(of=inputs(min_quantity="5"), max_notional="499").reason == Reason.BELOW_MIN_QTY


class TestExits:
    EXIT = inputs(is_exit=True, exit_fraction="0.4", min_quantity="100", min_notional="1000000", currency="INR")

    def test_an_exit_carries_the_fraction_and_an_estimate(self) -> None:
        sizing = size(of=self.EXIT)
        assert (sizing.exit_fraction, sizing.suggested_qty, sizing.is_estimate) == (D("0.4"), D(5), True)

    @pytest.mark.parametrize(
        "follower",
        [
            {"portfolio": None}, {"portfolio": "0"}, {"portfolio": "1"}, {"portfolio": "NaN"}, {"currency": "USD"},
            {"multiplier": "0"}, {"max_notional": "0"}, {"allocation": "0"}, {},
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("traders", ["100000", None])
    @pytest.mark.parametrize("fraction", ["0.4", None])
    def test_an_exit_is_never_skipped(
        self, follower: dict[str, Any], traders: str | None, fraction: str | None
    ) -> None:
        leaving = dataclasses.replace(
            self.EXIT,
            trader_portfolio=None if traders is None else D(traders),
            exit_fraction=None if fraction is None else D(fraction),
        )
        sizing = size(of=leaving, **follower)
        assert sizing.reason == ""
        assert sizing.is_estimate
        assert sizing.exit_fraction == leaving.exit_fraction


class TestInputs:
    def test_an_event_brings_its_own_figures(self) -> None:
        event = trade(action="REDUCE", positionBefore="50", positionAfter="30", quantity="20", minNotional="10")
        assert SizingInputs.of(event, D(7), "USD") == SizingInputs(
            executed_qty=D(20),
            price=D("2945.50"),
            trader_portfolio=D(100000),
            currency="INR",
            quantity_step=D(1),
            min_quantity=D(1),
            min_notional=D(10),
            contract_multiplier=D(1),
            is_exit=True,
            exit_fraction=D("0.4"),
        )

    def test_the_trader_fills_in_what_the_event_leaves_out(self) -> None:
        taken = SizingInputs.of(trade(traderPortfolio=None, currency=None), D(7), "USD")
        assert (taken.trader_portfolio, taken.currency) == (D(7), "USD")

    def test_a_sizing_says_what_it_was_made_from(self) -> None:
        of = inputs(currency="INR")
        sizing = size("10000", of=of, allocation="4000", multiplier="2", max_notional="300", currency="INR")
        assert sizing.trade is of
        assert (sizing.follower_portfolio, sizing.multiplier, sizing.max_notional) == (D(4000), D(2), D(300))
        assert sizing.currency == "INR"


def _numbers(least: str = "1e-18", most: str = "1e18") -> st.SearchStrategy[Decimal]:
    """Decimals as the contract allows them: at most 34 digits, magnitude 1e-18 to 1e18, everyday ones among them."""
    wild = st.builds(
        lambda digits, exponent: D(digits).scaleb(exponent), st.integers(1, 10**34 - 1), st.integers(-51, 18)
    )
    tame = st.integers(1, 10**7).map(lambda cents: D(cents).scaleb(-2))
    return (tame | wild).filter(lambda number: D(least) <= number <= D(most))


def _cut(number: Fraction, digits: int = 34) -> Fraction:
    """Cut a fraction ≥ 0 to so many significant digits."""
    if not number:
        return number
    exponent = len(str(floor(number))) if number >= 1 else 1 - len(str(floor(1 / number)))
    for scale in (Fraction(10) ** (digits - exponent), Fraction(10) ** (digits - exponent - 1)):
        if floor(number * scale) < 10**digits:
            return floor(number * scale) / scale
    raise AssertionError(number)


class TestAgainstFractions:
    @settings(max_examples=500)
    @given(
        executed=_numbers(), portfolio=_numbers(), traders=_numbers(), multiplier=_numbers(), step=_numbers(),
        price=_numbers() | st.just(D(0)), negative=st.booleans(), contract=_numbers(), cap=st.none() | _numbers(),
        least_qty=st.just(D(0)) | _numbers(), least_notional=st.just(D(0)) | _numbers(),
    )  # fmt: skip
    def test_every_figure_is_what_exact_fractions_say(
        self, executed: D, portfolio: D, traders: D, multiplier: D, step: D, price: D, negative: bool, contract: D,
        cap: D | None, least_qty: D, least_notional: D,
    ) -> None:  # fmt: skip
        of = SizingInputs(
            executed, -price if negative else price, traders, "", step, least_qty, least_notional, contract
        )
        sizing = Sizer(of).size(portfolio, None, multiplier, cap)

        wanted = Fraction(executed) * Fraction(portfolio) * Fraction(multiplier) / Fraction(traders)
        capped = False
        if cap is not None and price:
            allowed = Fraction(cap) / (Fraction(price) * Fraction(contract))
            capped = floor(allowed / Fraction(step)) < floor(wanted / Fraction(step))
            wanted = min(wanted, allowed)
        quantity = _cut(floor(wanted / Fraction(step)) * Fraction(step))
        notional = quantity * Fraction(price) * Fraction(contract)
        assert Fraction(sizing.suggested_qty) == quantity
        assert Fraction(sizing.notional) == _cut(notional)
        assert Fraction(sizing.ratio) == _cut(Fraction(portfolio) / Fraction(traders))
        assert sizing.capped is capped
        if not quantity or quantity < Fraction(least_qty):
            assert sizing.reason == Reason.BELOW_MIN_QTY
        elif notional < Fraction(least_notional):
            assert sizing.reason == Reason.BELOW_MIN_NOTIONAL
        else:
            assert sizing.reason == ""

    @given(portfolio=_numbers(), traders=_numbers(), step=_numbers(most="1e6"), executed=_numbers())
    def test_whatever_is_stored_survives_decimal128(self, portfolio: D, traders: D, step: D, executed: D) -> None:
        sizing = Sizer(SizingInputs(executed, D("0.07"), traders, quantity_step=step)).size(portfolio)
        for number in (sizing.suggested_qty, sizing.ratio, sizing.notional):
            assert Decimal128(number).to_decimal() == number

    @given(st.lists(_numbers(), min_size=2, max_size=5))
    def test_one_sizer_gives_each_follower_what_a_new_one_would(self, portfolios: list[D]) -> None:
        sizer = Sizer(inputs())
        assert [sizer.size(p) for p in portfolios] == [size_alert(inputs(), p) for p in portfolios]

    @given(quantity=st.integers(1, 10**9), step=st.integers(1, 10**6))
    def test_a_copy_of_the_traders_own_portfolio_loses_no_step(self, quantity: int, step: int) -> None:
        of = inputs(executed_qty=str(D(quantity * step).scaleb(-6)), quantity_step=str(D(step).scaleb(-6)))
        assert size("100000", of=of).suggested_qty == of.executed_qty
