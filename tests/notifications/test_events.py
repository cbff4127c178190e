"""Which messages are trade events, what is read from them, and why the others are not."""

from __future__ import annotations

import dataclasses
import json
import string
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from typing import Any

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifications.choices import Action, Priority, ProductType, Right, Side
from notifications.event_json import MAX_DEPTH, MAX_MESSAGE_BYTES
from notifications.events import (
    InvalidEvent,
    RejectCode,
    correlation_id_of,
    instrument_key,
    parse_event,
    traceparent_of,
)
from tests.notifications.builders import DETAILS, EVENT, MISSING, OPTION, message, raw_message, trade
from tests.notifications.malformed import MALFORMED, nested

D = Decimal
C = RejectCode


@pytest.mark.parametrize(("value", "code", "said"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_event_is_refused_with_a_code_and_a_sentence(
    value: bytes | None, code: RejectCode, said: str
) -> None:
    with pytest.raises(InvalidEvent) as refused:
        parse_event(value)
    assert refused.value.code is code
    assert said in refused.value.detail
    assert len(refused.value.detail) < 400
    assert refused.value.detail.encode("utf-8")  # It can be stored, whatever the message held.


def test_every_code_has_a_malformed_event() -> None:
    assert {code for _, code, _ in MALFORMED.values()} == set(RejectCode)


def test_the_contract_example_is_read_field_by_field() -> None:
    event = parse_event(message(), [("correlation-id", b"c-1")], b"T-17")

    assert dataclasses.asdict(event) == {
        "event_id": EVENT["eventId"],
        "version": 1,
        "trader_id": "T-17",
        "executed_at": datetime(2026, 11, 20, 6, 0, 0, 123000, tzinfo=UTC),
        "priority": Priority.HIGH,
        "symbol": "RELIANCE",
        "exchange": "XNSE",
        "side": Side.BUY,
        "action": Action.OPEN,
        "product_type": ProductType.INTRADAY,
        "quantity": D(50),
        "price": D("2945.50"),
        "currency": "INR",
        "trader_portfolio": D(100000),
        "quantity_step": D(1),
        "min_quantity": D(1),
        "min_notional": D(0),
        "contract_multiplier": D(1),
        "position_before": D(0),
        "position_after": D(50),
        "order_id": "O-1",
        "order_status": "FILLED",
        "cum_quantity": D(50),
        "leaves_quantity": D(0),
        "expiry_date": None,
        "expiry_at": None,
        "strike": None,
        "right": None,
        "correlation_id": "c-1",
        "traceparent": "",
        "keyed_by_trader": True,
        "raw": json.loads(message()),
    }
    assert event.order == (event.executed_at, event.event_id)


@pytest.mark.parametrize("nothing", [MISSING, None, "", " "], ids=["absent", "null", "empty", "blank"])
def test_what_is_not_required_has_its_default(nothing: Any) -> None:
    required = {"symbol", "side", "productType", "quantity", "price"}
    event = trade(priority=nothing, **{name: nothing for name in DETAILS if name not in required})

    assert (event.exchange, event.currency, event.order_id, event.order_status) == ("", "", "", "")
    assert event.action is None
    assert event.priority is Priority.HIGH
    assert event.trader_portfolio is None
    assert (event.position_before, event.position_after) == (None, None)
    assert (event.cum_quantity, event.leaves_quantity) == (None, None)
    assert (event.quantity_step, event.contract_multiplier) == (D(1), D(1))
    assert (event.min_quantity, event.min_notional) == (D(0), D(0))


@pytest.mark.parametrize(
    ("action", "given", "expected"),
    [
        ("OPEN", None, Priority.HIGH),
        ("ADD", None, Priority.HIGH),
        (None, None, Priority.HIGH),
        ("REDUCE", None, Priority.CRITICAL),
        ("CLOSE", None, Priority.CRITICAL),
        ("OPEN", "critical", Priority.CRITICAL),
        ("OPEN", "normal", Priority.NORMAL),
        ("CLOSE", "normal", Priority.CRITICAL),
        ("REDUCE", "high", Priority.CRITICAL),
    ],
)
def test_priority_is_taken_over_but_an_exit_is_always_critical(
    action: str | None, given: str | None, expected: Priority
) -> None:
    assert trade(action=action, priority=given).priority is expected


@pytest.mark.parametrize(
    ("literal", "expected"),
    [
        ("50", "50"), ('"50"', "50"), ("0.1", "0.1"), ('"0.10"', "0.10"), ("-2.5", "-2.5"), ('"+3"', "3"),
        ("1e2", "100"), ('"1E+2"', "100"), ("12.5e1", "125"), ("1e18", "1000000000000000000"), ("1e-18", "1E-18"),
        ('"007"', "7"), ('".5"', "0.5"), ('"5."', "5"), ("0.0", "0"), ("-0", "0"), ('"0e999999999"', "0"),
        ("1234567890123456.789012345678901234", "1234567890123456.789012345678901234"),
        ('"000000000000000000000000000000000000000000.1"', "0.1"),
        ("123456789012345678", "123456789012345678"),
        ("-1000000000000000000", "-1000000000000000000"),
    ],
)  # fmt: skip
def test_a_number_is_exact_as_json_number_and_as_string(literal: str, expected: str) -> None:
    with localcontext(prec=3):  # The caller's context has no say.
        assert str(parse_event(raw_message(price=literal)).price) == expected


def test_a_number_never_passes_through_float() -> None:
    assert parse_event(raw_message(price="0.1000000000000000055511151231257827")).price == D(
        "0.1000000000000000055511151231257827"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-20T06:00:00Z", datetime(2026, 11, 20, 6, tzinfo=UTC)),
        ("2026-11-20t06:00:00z", datetime(2026, 11, 20, 6, tzinfo=UTC)),
        ("2026-11-20 06:00:00Z", datetime(2026, 11, 20, 6, tzinfo=UTC)),
        ("2026-11-20T11:30:00+05:30", datetime(2026, 11, 20, 6, tzinfo=UTC)),
        ("2026-11-19T23:00:00-07:00", datetime(2026, 11, 20, 6, tzinfo=UTC)),
        ("2026-11-20T06:00:00-00:00", datetime(2026, 11, 20, 6, tzinfo=UTC)),
        ("2026-11-20T06:00:00.5Z", datetime(2026, 11, 20, 6, 0, 0, 500000, tzinfo=UTC)),
        ("2026-11-20T06:00:00.1239999Z", datetime(2026, 11, 20, 6, 0, 0, 123000, tzinfo=UTC)),
        ("2026-11-20T06:00:00.999999999999Z", datetime(2026, 11, 20, 6, 0, 0, 999000, tzinfo=UTC)),
        ("2016-12-31T23:59:60.250Z", datetime(2017, 1, 1, 0, 0, 0, 250000, tzinfo=UTC)),
        ("2017-01-01T05:29:60+05:30", datetime(2017, 1, 1, tzinfo=UTC)),
        ("1970-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59.999Z", datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)),
    ],
)
def test_executed_at_is_utc_in_whole_milliseconds(text: str, expected: datetime) -> None:
    executed_at = trade(executedAt=text).executed_at
    assert executed_at == expected
    assert executed_at.utcoffset() == timedelta(0)
    assert executed_at.microsecond % 1000 == 0


def test_expiry_is_a_date_or_a_moment() -> None:
    by_date = trade(**OPTION)
    by_moment = trade(**OPTION | {"expiryDate": "2026-11-26T01:30:00+05:30"})

    assert (by_date.expiry_date, by_date.expiry_at) == (date(2026, 11, 26), None)
    assert by_moment.expiry_date == date(2026, 11, 26)  # As written, not as in UTC.
    assert by_moment.expiry_at == datetime(2026, 11, 25, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "right"),
    [("CALL", Right.CALL), ("CE", Right.CALL), ("C", Right.CALL), ("PUT", Right.PUT), ("PE", Right.PUT)],
)
def test_an_option_right_is_taken_as_exchanges_write_it(written: str, right: Right) -> None:
    assert trade(**OPTION | {"right": written}).right is right


def test_unknown_fields_are_kept_and_can_be_stored() -> None:
    unknown = '{"a": [1, 2.50, 123456789012345678901234567890, null, true, "x"]}'
    event = parse_event(raw_message(note=unknown))

    kept = event.raw["tradeDetails"]["note"]
    assert kept == {"a": [1, "2.50", "123456789012345678901234567890", None, True, "x"]}
    assert bson.decode(bson.encode(event.raw)) == event.raw


def test_the_deepest_and_the_largest_message_can_be_stored() -> None:
    deepest = parse_event(raw_message(note=nested(MAX_DEPTH - 2)))
    room = MAX_MESSAGE_BYTES - len(raw_message(note="[]"))
    largest = parse_event(raw_message(note="[" + "9," * (room // 2 - 1) + "9]"))

    assert bson.encode(deepest.raw)
    assert len(bson.encode(largest.raw)) < 16 * 1024 * 1024


def test_letters_of_any_script_make_an_id() -> None:
    event = parse_event(raw_message(traderId=r'"Zoë-\u091f-\ud83d\ude00"'))
    assert event.trader_id == "Zoë-ट-😀"


def test_limits_are_inclusive() -> None:
    event = trade(eventId="e" * 128, traderId="t" * 128, symbol="s" * 64)
    assert (len(event.event_id), len(event.trader_id), len(event.symbol)) == (128, 128, 64)


class TestHeaders:
    @pytest.mark.parametrize("nothing", [MISSING, None, ""], ids=["absent", "null", "empty"])
    def test_ce_id_stands_in_for_a_missing_event_id(self, nothing: Any) -> None:
        assert parse_event(message(eventId=nothing), [("ce_id", b"ce-1")]).event_id == "ce-1"

    def test_the_message_outranks_ce_id(self) -> None:
        assert parse_event(message(), [("ce_id", b"ce-1")]).event_id == EVENT["eventId"]

    @pytest.mark.parametrize(
        ("value", "code"),
        [
            (b"", C.MISSING_FIELD), (b"  ", C.MISSING_FIELD), (None, C.MISSING_FIELD), (b"\xff", C.BAD_UTF8),
            (b"e" * 129, C.TOO_LONG), (b"a\x00b", C.BAD_CHARACTER),
        ],
    )  # fmt: skip
    def test_an_unusable_ce_id_is_refused(self, value: bytes | None, code: RejectCode) -> None:
        with pytest.raises(InvalidEvent) as refused:
            parse_event(message(eventId=None), [("ce_id", value)])
        assert refused.value.code is code

    def test_the_message_key_is_compared_with_the_trader(self) -> None:
        assert parse_event(message(), key=b"T-17").keyed_by_trader
        assert parse_event(message(), key=None).keyed_by_trader
        assert not parse_event(message(), key=b"T-18").keyed_by_trader
        assert not parse_event(message(), key=b"\xff").keyed_by_trader

    @pytest.mark.parametrize("name", ["correlation-id", "Correlation-Id", "CORRELATION-ID"])
    def test_the_correlation_id_is_taken_over(self, name: str) -> None:
        assert correlation_id_of([("other", b"x"), (name, b"order-17/a")]) == "order-17/a"

    def test_the_correlation_id_outranks_traceparent(self) -> None:
        assert correlation_id_of([("traceparent", TRACEPARENT), ("correlation-id", b"c-1")]) == "c-1"

    @pytest.mark.parametrize("useless", [b"", None, b"a b", b"\xc3\xa9", b"x" * 129, b"a\nb"])
    def test_a_useless_correlation_id_gives_way_to_traceparent(self, useless: bytes | None) -> None:
        assert correlation_id_of([("correlation-id", useless), ("traceparent", TRACEPARENT)]) == TRACE_ID

    @pytest.mark.parametrize("traceparent", [b"cc-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01-new"])
    def test_a_later_traceparent_version_may_say_more(self, traceparent: bytes) -> None:
        assert correlation_id_of([("traceparent", traceparent)]) == "1" * 32

    @pytest.mark.parametrize(
        "traceparent",
        [
            b"", b"nonsense", b"ff-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01",
            b"00-" + b"0" * 32 + b"-" + b"2" * 16 + b"-01",
            b"00-" + b"1" * 32 + b"-" + b"0" * 16 + b"-01", b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01-more",
            b"00-" + b"A" * 32 + b"-" + b"2" * 16 + b"-01", b"\xff" * 55,
        ],
    )  # fmt: skip
    def test_without_a_valid_header_each_message_gets_an_id_of_its_own(self, traceparent: bytes) -> None:
        made = {correlation_id_of([("traceparent", traceparent)]) for _ in range(3)}
        assert len(made) == 3
        assert all(len(one) == 32 and set(one) <= set(string.hexdigits) for one in made)


TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01".encode()


class TestExits:
    @pytest.mark.parametrize(
        ("action", "is_exit"), [("OPEN", False), ("ADD", False), (None, False), ("REDUCE", True), ("CLOSE", True)]
    )
    def test_only_reduce_and_close_are_exits(self, action: str | None, is_exit: bool) -> None:
        assert trade(action=action).is_exit is is_exit

    @pytest.mark.parametrize(
        ("action", "before", "after", "closes"),
        [
            ("CLOSE", None, None, True), ("CLOSE", "50", "10", True), ("REDUCE", "50", "0", True),
            ("REDUCE", None, "0", True), ("REDUCE", "-50", "0.00", True), ("REDUCE", "50", "-20", True),
            ("REDUCE", "-50", "20", True), ("REDUCE", "50", "30", False), ("REDUCE", "-50", "-30", False),
            ("REDUCE", "50", None, False), ("REDUCE", None, "30", False), ("OPEN", "0", "0", False),
            (None, "50", "0", False), ("ADD", "50", "-1", False),
        ],
    )  # fmt: skip
    def test_a_position_is_closed_by_close_or_by_reduce_to_nothing(
        self, action: str | None, before: str | None, after: str | None, closes: bool
    ) -> None:
        assert trade(action=action, positionBefore=before, positionAfter=after).closes_position is closes

    @pytest.mark.parametrize(
        ("action", "before", "after", "quantity", "fraction"),
        [
            ("CLOSE", "50", "0", "50", "1"), ("CLOSE", None, None, "50", "1"), ("CLOSE", "50", "10", "40", "1"),
            ("REDUCE", "50", "30", "20", "0.4"), ("REDUCE", "-50", "-30", "20", "0.4"),
            ("REDUCE", "50", "0", "50", "1"), ("REDUCE", "50", "-20", "70", "1"),
            ("REDUCE", "50", None, "20", "0.4"), ("REDUCE", "-50", None, "20", "0.4"),
            ("REDUCE", "50", None, "80", "1"), ("REDUCE", "50", "60", "20", "0.4"), ("REDUCE", "50", "50", "20", "0.4"),
            ("REDUCE", "3", "2", "1", "0." + "3" * 34), ("REDUCE", "3", "1", "2", "0." + "6" * 34),
            ("REDUCE", None, "30", "20", None), ("REDUCE", "0", "30", "20", None), ("REDUCE", None, None, "20", None),
            ("OPEN", "50", "30", "20", None), ("ADD", "50", "70", "20", None), (None, "50", "30", "20", None),
        ],
    )  # fmt: skip
    def test_the_fraction_is_the_share_of_the_position_that_was_given_up(
        self, action: str | None, before: str | None, after: str | None, quantity: str, fraction: str | None
    ) -> None:
        event = trade(action=action, positionBefore=before, positionAfter=after, quantity=quantity)
        assert event.exit_fraction == (None if fraction is None else D(fraction))


class TestInstrumentKey:
    def test_cash_products_of_a_share_are_one_instrument(self) -> None:
        assert trade(productType="INTRADAY").instrument == "XNSE:RELIANCE"
        assert trade(productType="DELIVERY").instrument == "XNSE:RELIANCE"
        assert trade(productType="CRYPTO", exchange=None, symbol="BTC").instrument == ":BTC"

    def test_a_derivative_is_told_by_its_terms(self) -> None:
        assert trade(**OPTION).instrument == "XNSE:RELIANCE:OPTIONS:2026-11-26:24500:CALL"
        assert trade(productType="FUTURES", expiryDate="2026-11-26").instrument == "XNSE:RELIANCE:FUTURES:2026-11-26::"

    @pytest.mark.parametrize("strike", ["24500", "24500.00", "2.45e4", 24500, "0024500"])
    def test_equal_terms_give_equal_keys(self, strike: Any) -> None:
        written_otherwise = trade(
            **OPTION | {"strike": strike, "expiryDate": "2026-11-26T15:30:00+05:30", "right": "CE"}
        )
        assert written_otherwise.instrument == trade(**OPTION).instrument

    def test_a_strike_below_one_is_written_out(self) -> None:
        assert trade(**OPTION | {"strike": "1e-18"}).instrument.endswith(":0.000000000000000001:CALL")
        assert trade(**OPTION | {"strike": "0"}).instrument.endswith(":0:CALL")
        assert trade(**OPTION | {"strike": "100"}).instrument.endswith(":100:CALL")

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (("A:B", "C"), ("A", "B:C")),
            (("A:B", "C"), ("A%3AB", "C")),
            (("A", ":"), ("A:", "")),
            (("", "A"), ("A", "")),
        ],
    )
    def test_a_colon_in_a_part_does_not_move_the_border(self, one: tuple[str, str], other: tuple[str, str]) -> None:
        assert instrument_key(*one, ProductType.DELIVERY) != instrument_key(*other, ProductType.DELIVERY)

    @given(st.tuples(st.text(":%AB3"), st.text(":%AB3")), st.tuples(st.text(":%AB3"), st.text(":%AB3")))
    def test_different_instruments_have_different_keys(self, one: tuple[str, str], other: tuple[str, str]) -> None:
        keys = [instrument_key(*pair, ProductType.DELIVERY) for pair in (one, other)]
        assert (keys[0] == keys[1]) is (one == other)


class TestTraceparent:
    @pytest.mark.parametrize("sent", [TRACEPARENT, b"cc" + TRACEPARENT[2:] + b"-new"])
    def test_a_valid_one_is_kept_as_version_00_has_it(self, sent: bytes) -> None:
        assert traceparent_of([("Traceparent", sent)]) == TRACEPARENT.decode()

    @pytest.mark.parametrize("sent", [b"", b"00-1", TRACEPARENT + b"-new", TRACEPARENT.replace(b"-00f0", b"-GGf0")])
    def test_any_other_is_none(self, sent: bytes) -> None:
        assert traceparent_of([("traceparent", sent)]) == ""
