"""Taking trades in, on a real MongoDB: what is stored, what is set aside, and that repeating changes nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pymongo.collection import Collection

from delivery import intake
from delivery.intake import Intake, Outcome, shards_for, take_in
from delivery.intake_documents import KEPT_VALUE_BYTES, IncomingMessage
from delivery.models import Batch
from delivery.statements import shard_batch_id
from followers.models import Follow, Follower, Trader
from followers.mongo import collection
from followers.statements import audience_size_up_to
from notifications.choices import FanOutState
from notifications.models import RejectedEvent, TradeEvent
from notifications.statements import event_id, finish_shard
from notifications.validity import expires_at
from tests.notifications.builders import EVENT, MISSING, OPTION, message, raw_message

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2026, 11, 20, 6, 0, 5, 123_456, tzinfo=UTC)  # Five seconds after the example was executed.
LATER = NOW + timedelta(seconds=30)
TOPIC = "trade.executed"


@pytest.fixture
def trader() -> Trader:
    return Trader.objects.create(external_id="T-17", portfolio_value=Decimal("250000"), currency="INR")


def incoming(value: bytes | None, offset: int = 0, **fields: Any) -> IncomingMessage:
    return IncomingMessage(TOPIC, fields.pop("partition", 0), offset, fields.pop("key", b"T-17"), value, **fields)


def take_values(values: Sequence[bytes | None], now: datetime = NOW) -> Intake:
    return take_in([incoming(value, offset) for offset, value in enumerate(values)], now)


def everything() -> dict[str, Any]:
    """All that an intake writes, to compare two databases by."""
    return {
        "events": list(TradeEvent.objects.order_by("pk").values()),
        "rejected": list(
            RejectedEvent.objects.order_by("offset").values("topic", "partition", "offset", "code", "value")
        ),
        "batches": sorted(Batch.objects.values_list("pk", "event", "shard")),
    }


# --- What is stored --------------------------------------------------------------------------------------------------
def test_an_event_is_stored_with_every_field_of_the_model(trader: Trader) -> None:
    value = message(action="REDUCE", positionBefore="100", positionAfter="60", extra={"kept": "é"}, quantity="40.5")
    result = take_in([incoming(value, headers=(("correlation-id", b"c-1"),))], NOW)

    stored: Any = TradeEvent.objects.get()
    assert result.outcomes == {Outcome.ACCEPTED: 1}
    assert (stored.pk, stored.external_id) == (event_id(EVENT["eventId"]), EVENT["eventId"])
    assert (stored.trader_id, stored.trader_external_id) == (trader.pk, "T-17")
    assert stored.executed_at == datetime(2026, 11, 20, 6, 0, 0, 123_000, tzinfo=UTC)
    assert stored.received_at == NOW.replace(microsecond=123_000)
    assert stored.expires_at == datetime(2026, 11, 20, 9, 50, tzinfo=UTC)  # Ten minutes before Mumbai's close.
    assert (stored.priority, stored.correlation_id, stored.side, stored.action) == ("critical", "c-1", "BUY", "REDUCE")
    assert (stored.instrument, stored.symbol, stored.exchange) == ("XNSE:RELIANCE", "RELIANCE", "XNSE")
    assert (stored.quantity, stored.price, stored.currency) == (Decimal("40.5"), Decimal("2945.50"), "INR")
    assert (stored.position_before, stored.position_after, stored.exit_fraction) == (100, 60, Decimal("0.4"))
    assert stored.trader_portfolio == 100_000
    assert (stored.quantity_step, stored.min_quantity, stored.min_notional, stored.contract_multiplier) == (1, 1, 0, 1)
    assert (stored.order_id, stored.closes_position, stored.strike, stored.right) == ("O-1", False, None, "")
    assert stored.payload == value.decode()
    assert json.loads(stored.payload)["tradeDetails"]["extra"] == {"kept": "é"}
    assert (stored.state, stored.shards, stored.shards_done, stored.fanned_out_at) == ("pending", 1, [], None)


def test_the_document_has_the_columns_of_the_model_and_no_other(trader: Trader) -> None:
    take_values([message(), b"not json"])

    for model in (TradeEvent, RejectedEvent, Batch):
        document = collection(model).find_one()
        assert document is not None
        assert set(document) == {"_id"} | {f.column for f in model._meta.concrete_fields} - {"id"}


def test_an_option_keeps_its_contract_terms(trader: Trader) -> None:
    take_values([message(**OPTION)])

    stored: Any = TradeEvent.objects.get()
    assert (stored.expiry_date, stored.strike, stored.right) == ("2026-11-26", 24500, "CALL")
    assert stored.instrument == "XNSE:RELIANCE:OPTIONS:2026-11-26:24500:CALL"


def test_numbers_of_34_digits_come_through_exactly(trader: Trader) -> None:
    number = "1234567890123456.789012345678901234"
    take_values([message(quantity=number)])

    assert TradeEvent.objects.get().quantity == Decimal(number)


def test_the_traders_own_figures_stand_in_and_stay(trader: Trader) -> None:
    take_values([message(traderPortfolio=MISSING, currency=MISSING)])
    Trader.objects.update(portfolio_value=Decimal(1), currency="USD")

    stored: Any = TradeEvent.objects.get()
    assert (stored.trader_portfolio, stored.currency) == (250_000, "INR")


def test_a_portfolio_in_another_currency_does_not_stand_in(trader: Trader) -> None:
    take_values([message(traderPortfolio=MISSING, currency="USD")])

    stored: Any = TradeEvent.objects.get()
    assert (stored.trader_portfolio, stored.currency) == (None, "USD")


def test_an_event_makes_one_shard_batch_and_returns_it(trader: Trader) -> None:
    result = take_values([message()])

    batch = Batch.objects.get()
    assert [b["_id"] for b in result.batches] == [batch.pk] == [shard_batch_id(EVENT["eventId"], 0)]
    assert (batch.kind, batch.event, batch.shard, batch.priority) == ("fan_out", event_id(EVENT["eventId"]), 0, "high")
    assert batch.correlation_id == TradeEvent.objects.get().correlation_id
    assert batch.next_look_at is not None
    assert batch.next_look_at > NOW


@pytest.mark.parametrize(("follows", "shards"), [(3, 1), (4, 2), (7, 3)])
def test_a_large_audience_is_cut_into_shards(trader: Trader, settings: Any, follows: int, shards: int) -> None:
    settings.FAN_OUT_SINGLE_SHARD_MAX = 3
    for number in range(follows):
        Follow.objects.create(trader=trader, follower=Follower.objects.create(external_id=f"F-{number}"))

    result = take_values([message()])

    assert TradeEvent.objects.get().shards == shards
    assert (
        sorted(b["shard"] for b in result.batches)
        == list(range(shards))
        == list(Batch.objects.order_by("shard").values_list("shard", flat=True))
    )


@pytest.mark.parametrize(
    ("follows", "shards"), [(0, 1), (1_800, 1), (1_801, 2), (10_000, 6), (115_200, 64), (1_000_000, 64)]
)
def test_shards_grow_with_the_audience_up_to_64(settings: Any, follows: int, shards: int) -> None:
    settings.FAN_OUT_SINGLE_SHARD_MAX = 1_800
    assert shards_for(follows) == shards


def test_the_audience_is_counted_once_a_trader_and_poll(trader: Trader, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[Any] = []

    def count(*args: Any) -> int:
        counted.append(args)
        return audience_size_up_to(*args)

    monkeypatch.setattr(intake, "audience_size_up_to", count)

    take_values([message(eventId=f"E-{n}") for n in range(20)])

    assert counted == [(trader.pk, 64 * 1_800)]  # What the most shards hold: counting on would change nothing.
    assert TradeEvent.objects.count() == 20


def test_an_event_that_has_expired_is_stored_and_fans_out_to_nobody(trader: Trader) -> None:
    result = take_values([message()], now=datetime(2026, 11, 20, 6, 5, 0, 123_000, tzinfo=UTC))

    assert result.outcomes == {Outcome.EXPIRED: 1}
    assert (TradeEvent.objects.get().state, Batch.objects.count(), result.batches) == (FanOutState.EXPIRED, 0, [])


def test_an_unknown_traders_event_is_stored_as_done() -> None:
    result = take_values([message()])

    stored: Any = TradeEvent.objects.get()
    assert result.outcomes == {Outcome.UNKNOWN_TRADER: 1}
    assert (stored.trader_id, stored.state, stored.fanned_out_at) == (None, "done", NOW.replace(microsecond=123_000))
    assert Batch.objects.count() == 0


def test_the_header_ce_id_is_an_event_id(trader: Trader) -> None:
    take_in([incoming(message(eventId=MISSING), headers=(("ce_id", b"from-header"),))], NOW)

    assert TradeEvent.objects.get().external_id == "from-header"


# --- Duplicates ------------------------------------------------------------------------------------------------------
def test_the_first_of_two_events_with_one_id_stays(trader: Trader) -> None:
    take_values([message(quantity="50")])
    result = take_values([message(quantity="999")], now=LATER)

    assert result.outcomes == {Outcome.DUPLICATE: 1}
    assert TradeEvent.objects.get().quantity == 50
    assert Batch.objects.count() == 1


def test_the_first_stays_also_within_one_poll(trader: Trader) -> None:
    result = take_values([message(quantity="50"), message(quantity="999"), message(eventId="other")])

    assert result.outcomes == {Outcome.ACCEPTED: 2, Outcome.DUPLICATE: 1}
    assert TradeEvent.objects.get(external_id=EVENT["eventId"]).quantity == 50
    assert Batch.objects.count() == 2


def test_a_duplicate_of_a_pending_event_is_hinted_again(trader: Trader) -> None:
    take_values([message()])
    Batch.objects.all().delete()  # As if the first process had died before this step.

    result = take_values([message()], now=LATER)

    assert [b["_id"] for b in result.batches] == [Batch.objects.get().pk]


def test_a_duplicate_makes_no_batch_for_shards_that_are_done(trader: Trader, settings: Any) -> None:
    settings.FAN_OUT_SINGLE_SHARD_MAX = 1
    for number in range(3):
        Follow.objects.create(trader=trader, follower=Follower.objects.create(external_id=f"F-{number}"))
    take_values([message()])
    Batch.objects.all().delete()
    finish_shard(event_id(EVENT["eventId"]), 1, NOW)

    result = take_values([message()], now=LATER)

    assert {b["shard"] for b in result.batches} == {0, 2}


@pytest.mark.parametrize("state", [FanOutState.DONE, FanOutState.FAILED, FanOutState.EXPIRED])
def test_a_duplicate_of_a_finished_event_makes_no_batch(trader: Trader, state: FanOutState) -> None:
    take_values([message()])
    Batch.objects.all().delete()
    TradeEvent.objects.update(state=state)

    result = take_values([message()], now=LATER)

    assert (result.batches, Batch.objects.count()) == ([], 0)
    assert TradeEvent.objects.get().state == state


# --- Crashes between two steps ---------------------------------------------------------------------------------------
class Crash(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["traders_by_external_id", "store_events", "insert_batches", "store_rejected"])
def test_a_crash_and_a_redelivery_end_in_the_same_state(
    trader: Trader, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    header = (("correlation-id", b"c-1"),)
    messages = [
        incoming(message(), 0, headers=header),
        incoming(b"{", 1, headers=header),
        incoming(message(eventId="E-2", traderId="nobody"), 2, headers=header),
        incoming(message(eventId="E-3", executedAt="2026-11-19T06:00:00Z"), 3, headers=header),
    ]
    take_in(messages, NOW)
    undisturbed = everything()
    for model in (TradeEvent, RejectedEvent, Batch):
        model.objects.all().delete()
    original = getattr(intake, step)

    def crash(*args: Any) -> None:
        if when == "after":
            original(*args)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(intake, step, crash)
        with pytest.raises(Crash):
            take_in(messages, NOW)
    take_in(messages, NOW)

    assert everything() == undisturbed
    assert len(undisturbed["events"]) == 3
    assert len(undisturbed["rejected"]) == len(undisturbed["batches"]) == 1


@pytest.mark.parametrize("change", [{"traderId": "nobody"}, {"executedAt": "2026-11-19T06:00:00Z"}, {}])
def test_the_last_write_of_an_event_is_acknowledged_by_a_majority_also_where_no_shard_follows(
    trader: Trader, monkeypatch: pytest.MonkeyPatch, change: dict[str, str]
) -> None:
    once = [incoming(message(**change), 0)]
    concerns: list[tuple[str, Any]] = []
    insert_many = Collection.insert_many

    def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
        concerns.append((self.name, self.write_concern.document["w"]))
        return insert_many(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Collection, "insert_many", noted)
        take_in(once, NOW)
        first = list(concerns)
        concerns.clear()
        TradeEvent.objects.update(state="done", shards_done=[0])  # Nothing of it waits any more.
        take_in(once, NOW)

    assert first[0] == ("notifications_tradeevent", 1)
    assert first[-1] == ("delivery_batch" if not change else "notifications_tradeevent", "majority")
    assert concerns == [("notifications_tradeevent", 1), ("notifications_tradeevent", "majority")]


# --- Messages that are no events -------------------------------------------------------------------------------------
REJECTS: dict[str, tuple[bytes | None, str]] = {
    "tombstone": (None, "empty_message"),
    "no bytes": (b"", "empty_message"),
    "too large": (b'{"a":"' + b"x" * 1024 * 1024 + b'"}', "too_large"),
    "bad utf-8": (b'{"eventId": "\xff"}', "bad_utf8"),
    "utf-16": (message().decode().encode("utf-16"), "bad_utf8"),
    "not json": (b"hello", "bad_json"),
    "half of a json": (message()[:-5], "bad_json"),
    "two jsons": (message() + message(), "bad_json"),
    "a list": (b"[]", "wrong_type"),
    "a string": (b'"event"', "wrong_type"),
    "null": (b"null", "wrong_type"),
    "key twice": (b'{"eventId": "a", "eventId": "b"}', "duplicate_key"),
    "too deep": (raw_message(quantity="[" * 100 + "]" * 100), "too_deep"),
    "very deep": (b"[" * 200_000, "too_deep"),
    "nul in id": (message(eventId="a\x00b"), "bad_character"),
    "half a surrogate": (raw_message(symbol='"\\ud800"'), "bad_character"),
    "newline in symbol": (message(symbol="A\nB"), "bad_character"),
    "no event id": (message(eventId=MISSING), "missing_field"),
    "empty event id": (message(eventId=""), "missing_field"),
    "no version": (message(version=MISSING), "missing_field"),
    "no trader": (message(traderId=MISSING), "missing_field"),
    "null trader": (message(traderId=None), "missing_field"),
    "no time": (message(executedAt=MISSING), "missing_field"),
    "no details": (message(tradeDetails=None), "missing_field"),
    "no symbol": (message(symbol=" "), "missing_field"),
    "no side": (message(side=MISSING), "missing_field"),
    "no product": (message(productType=MISSING), "missing_field"),
    "no quantity": (message(quantity=""), "missing_field"),
    "no price": (message(price=None), "missing_field"),
    "option without terms": (message(productType="OPTIONS"), "missing_field"),
    "id is a number": (message(eventId=7), "wrong_type"),
    "details is a list": (message(tradeDetails=[]), "wrong_type"),
    "quantity is true": (message(quantity=True), "wrong_type"),
    "version is text": (message(version="1"), "wrong_type"),
    "version 2": (message(version=2), "unknown_version"),
    "side LONG": (message(side="LONG"), "not_in_enumeration"),
    "action HOLD": (message(action="HOLD"), "not_in_enumeration"),
    "product SPOT": (message(productType="SPOT"), "not_in_enumeration"),
    "priority urgent": (message(priority="urgent"), "not_in_enumeration"),
    "quantity nan": (raw_message(quantity="NaN"), "not_a_number"),
    "price infinity": (raw_message(price="-Infinity"), "not_a_number"),
    "price words": (message(price="cheap"), "not_a_number"),
    "price with comma": (message(price="2,945.50"), "not_a_number"),
    "35 digits": (message(price="1." + "1" * 35), "too_many_digits"),
    "quantity 0": (message(quantity="0"), "out_of_range"),
    "quantity negative": (message(quantity="-5"), "out_of_range"),
    "portfolio 0": (message(traderPortfolio=0), "out_of_range"),
    "price too large": (message(price="1e19"), "out_of_range"),
    "before 1970": (message(executedAt="1969-12-31T23:59:59Z"), "out_of_range"),
    "long id": (message(eventId="x" * 129), "too_long"),
    "long symbol": (message(symbol="x" * 65), "too_long"),
    "time without offset": (message(executedAt="2026-11-20T06:00:00"), "bad_timestamp"),
    "no such day": (message(executedAt="2026-02-30T06:00:00Z"), "bad_timestamp"),
    "no such expiry": (message(productType="FUTURES", expiryDate="2026-13-01"), "bad_date"),
}


def test_bad_messages_are_set_aside_and_harm_no_good_one(trader: Trader) -> None:
    good = {f"good-{number}" for number in range(len(REJECTS))}
    values: list[bytes | None] = []
    for number, (value, _) in enumerate(REJECTS.values()):
        values += [message(eventId=f"good-{number}"), value]

    result = take_values(values)

    assert result.outcomes == {Outcome.ACCEPTED: len(good), Outcome.REJECTED: len(REJECTS)}
    assert set(TradeEvent.objects.values_list("external_id", flat=True)) == good
    assert Batch.objects.count() == len(good)
    rows = {row.offset: row for row in RejectedEvent.objects.all()}
    assert {name: (rows[2 * n + 1].code, rows[2 * n + 1].value) for n, name in enumerate(REJECTS)} == {
        name: (code, value) for name, (value, code) in REJECTS.items()
    }
    assert all(row.reason and row.replayed_at is None and row.topic == TOPIC for row in rows.values())


def test_a_rejected_message_is_kept_once_and_as_it_came() -> None:
    headers = (("ce_id", b"\xff\x00"), ("correlation-id", "é".encode()), ("empty", None))
    bad = IncomingMessage(TOPIC, 7, 2**40, b"\xffkey", b"\xff{", headers)

    take_in([bad], NOW)
    take_in([bad], LATER)

    row: Any = RejectedEvent.objects.get()
    assert (row.topic, row.partition, row.offset, row.key, row.value) == (TOPIC, 7, 2**40, b"\xffkey", b"\xff{")
    assert row.headers == [["ce_id", {"base64": "/wA="}], ["correlation-id", "é"], ["empty", None]]
    assert (row.code, row.received_at) == ("bad_utf8", NOW.replace(microsecond=123_000))


def test_a_message_beyond_what_mongodb_holds_is_kept_in_part() -> None:
    take_in(
        [incoming(b"x" * (20 * 1024 * 1024), key=b"k" * 5_000_000, headers=(("big", b"h" * 9_000_000), ("x", b"y")))],
        NOW,
    )

    row: Any = RejectedEvent.objects.get()
    assert len(row.value) == KEPT_VALUE_BYTES
    assert "bytes are kept" in row.reason
    assert row.code == "too_large"


def test_a_fault_of_our_own_sets_one_message_aside(trader: Trader, monkeypatch: pytest.MonkeyPatch) -> None:
    original = expires_at

    def faulty(event: Any, rules: Any) -> datetime:
        if event.symbol == "TRIP":
            raise ZeroDivisionError("of ours")
        return original(event, rules)

    monkeypatch.setattr(intake, "expires_at", faulty)
    result = take_values([message(eventId="E-1", symbol="TRIP"), message(eventId="E-2")])

    assert result.outcomes == {Outcome.ACCEPTED: 1, Outcome.REJECTED: 1}
    row: Any = RejectedEvent.objects.get()
    assert (row.code, row.reason) == ("internal_error", "ZeroDivisionError: of ours")


@pytest.mark.parametrize(
    ("values", "trailing"),
    [([], 0), ([b"x"], 1), ([message(), b"x", b"x"], 2), ([b"x", message()], 0)],
)
def test_rejects_after_the_last_good_message_are_counted(values: list[bytes], trailing: int) -> None:
    assert take_values(values).trailing_rejects == trailing
