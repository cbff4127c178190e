"""From a stored trade to a stored alert for each follower."""

from __future__ import annotations

from datetime import timedelta
from decimal import ROUND_DOWN, Decimal
from typing import Any

import pytest

from delivery import fan_out as fan_out_module
from delivery.fan_out import bucket_range, fan_out_shard
from devstack.vendors.client import Sandbox
from followers import clock
from followers.models import Follow
from followers.mongo import collection
from notifications import statements
from notifications.models import TradeEvent
from tests.pipeline import world

pytestmark = pytest.mark.django_db(transaction=True)


def test_each_follower_gets_one_alert_with_their_own_quantity(vendors: Sandbox) -> None:
    trader = world.make_trader(portfolio="100000")
    followers = {world.make_follower(trader, "fcm", portfolio=str(value)): value for value in (10_000, 25_000, 33_333)}
    event = world.trade(trader, quantity="50", quantityStep="0.01")

    world.fan_out(event)

    for follower, value in followers.items():
        row = world.alert(event, follower)
        exact = Decimal(50) * value / Decimal(100_000)
        assert row["sizing"]["suggested_qty"].to_decimal() == exact.quantize(Decimal("0.01"), ROUND_DOWN)
        assert row["sizing"]["ratio"].to_decimal() == Decimal(value) / 100_000
        assert world.states(row) == {"in_app": "sent", "fcm": "queued"}
        assert row["state"] == "pending"
        assert row["wake_at"] == row["expires_at"]
    assert len(world.alerts(event)) == 3


def test_follower_without_endpoints_is_reached_in_app_alone(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader)
    event = world.trade(trader)

    world.fan_out(event)

    row = world.alert(event, follower)
    assert (row["state"], row["wake_at"], world.states(row)) == ("delivered", None, {"in_app": "sent"})
    assert [e["_id"] for e in world.entries(follower)] == [row["_id"]]


@pytest.mark.parametrize(
    ("portfolio", "details", "reason"),
    [
        ("100", {}, "below_min_qty"),
        ("10000", {"minNotional": "1000000"}, "below_min_notional"),
        (None, {}, "no_portfolio"),
        ("10000", {"currency": "USD", "traderPortfolio": "1200"}, "currency_mismatch"),
    ],
)
def test_entry_that_comes_to_nothing_is_skipped_with_its_reason(
    vendors: Sandbox, portfolio: str | None, details: dict[str, Any], reason: str
) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm", portfolio=portfolio)
    event = world.trade(trader, **details)

    world.fan_out(event)

    row = world.alert(event, follower)
    assert (row["state"], row["sizing"]["reason"], row["deliveries"], row["wake_at"]) == ("skipped", reason, [], None)
    assert world.entries(follower) == []


@pytest.mark.parametrize("action", ["REDUCE", "CLOSE"])
@pytest.mark.parametrize("portfolio", ["1", None])
def test_exit_is_never_skipped_for_size(vendors: Sandbox, action: str, portfolio: str | None) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "sms", portfolio=portfolio)
    event = world.trade(trader, action=action, side="SELL", quantity="20", positionBefore="50", positionAfter="30")

    world.fan_out(event)

    row = world.alert(event, follower)
    assert row["priority"] == "critical"
    assert world.states(row) == {"in_app": "sent", "sms": "queued"}
    assert row["sizing"]["exit_fraction"].to_decimal() == (Decimal("0.4") if action == "REDUCE" else 1)


def test_running_a_shard_again_changes_nothing(vendors: Sandbox) -> None:
    trader = world.make_trader()
    followers = [world.make_follower(trader, "fcm", "sms") for _ in range(5)]
    event = world.trade(trader)
    (shard,) = world.take_in_trades(event)
    fan_out_shard(shard["_id"])
    before = world.alerts(event)
    batches = {b["_id"] for b in world.unclaimed()}

    world.collection(world.Batch).update_one(
        {"_id": shard["_id"]},
        {"$set": {"finished_at": None, "token": None, "next_look_at": clock.now(), "failures": 1}},
    )
    assert fan_out_shard(shard["_id"]) is not None

    assert world.alerts(event) == before
    assert {b["_id"] for b in world.unclaimed()} == batches
    assert all(len(world.entries(f)) == 1 for f in followers)


def test_crash_between_batches_and_rows_leaves_a_shard_that_completes_when_run_again(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    trader = world.make_trader()
    world.make_follower(trader, "fcm")
    event = world.trade(trader)
    (shard,) = world.take_in_trades(event)

    def crash(documents: list[Any]) -> None:
        raise RuntimeError("the worker dies here")

    with monkeypatch.context() as patch:
        patch.setattr(statements, "insert_notifications", crash)
        assert fan_out_shard(shard["_id"]) is None
    assert world.alerts(event) == []
    assert "dies here" in world.batch(shard["_id"])["error"]

    assert fan_out_shard(shard["_id"]) is not None
    world.deliver_all()
    assert [row["state"] for row in world.alerts(event)] == ["delivered"]
    assert vendors.stats("fcm")["accepted"] == 1


def test_shards_cover_every_bucket_once() -> None:
    for shards in (1, 2, 3, 6, 7, 63, 64):
        ranges = [bucket_range(shard, shards) for shard in range(shards)]
        assert [bucket for low, high in ranges for bucket in range(low, high + 1)] == list(range(256))


def test_large_audience_is_sharded_and_everybody_is_told(vendors: Sandbox, settings: Any) -> None:
    settings.FAN_OUT_SINGLE_SHARD_MAX = 20
    settings.FAN_OUT_CHUNK = 3
    trader = world.make_trader()
    followers = [world.make_follower(trader) for _ in range(40)]
    event = world.trade(trader)

    shards = world.take_in_trades(event)
    assert len(shards) == 2
    for shard in shards[:-1]:
        fan_out_shard(shard["_id"])
    assert world.stored_event(event)["state"] == "pending"
    fan_out_shard(shards[-1]["_id"])

    assert world.stored_event(event)["state"] == "done"
    assert {row["follower_id"] for row in world.alerts(event)} == {f.pk for f in followers}


def test_chunks_page_through_one_bucket_without_missing_anybody(vendors: Sandbox, settings: Any) -> None:
    settings.FAN_OUT_CHUNK = 2
    trader = world.make_trader()
    followers = [world.make_follower(trader) for _ in range(7)]
    Follow.objects.all().update(bucket=7)
    event = world.trade(trader)

    world.fan_out(event)

    assert {row["follower_id"] for row in world.alerts(event)} == {f.pk for f in followers}


def test_only_those_who_followed_when_the_trade_came_are_told(vendors: Sandbox) -> None:
    trader, now = world.make_trader(), clock.now()
    follower = world.make_follower(trader)
    world.make_follower(trader, since=now + timedelta(hours=1))
    world.make_follower(trader, ended_at=now - timedelta(minutes=1))
    later = world.make_follower(trader, ended_at=now + timedelta(hours=1))
    event = world.trade(trader)

    world.fan_out(event)

    assert {row["follower_id"] for row in world.alerts(event)} == {follower.pk, later.pk}


def test_trader_without_followers_is_done_at_once(vendors: Sandbox) -> None:
    event = world.trade(world.make_trader())
    world.fan_out(event)
    assert (world.stored_event(event)["state"], world.alerts(event)) == ("done", [])


def test_community_channel_gets_one_post_without_a_quantity(vendors: Sandbox) -> None:
    trader = world.make_trader()
    world.add_endpoint("discord", trader=trader)
    world.make_follower(trader, "discord")
    event = world.trade(trader, quantity="70")

    world.fan_out(event)
    world.deliver_all()

    post = world.alert(event, None)
    assert (post["sizing"], world.states(post)) == (None, {"discord": "sent"})
    texts = [message["body"]["content"] for message in vendors.accepted("discord")]
    assert len(texts) == 2
    assert sum("Your quantity: 7" in text for text in texts) == 1


def test_two_devices_on_one_channel_are_never_in_the_same_batch(vendors: Sandbox) -> None:
    trader = world.make_trader()
    for _ in range(3):
        world.make_follower(trader, "fcm", "fcm")
    event = world.trade(trader)

    world.fan_out(event)

    batches = world.unclaimed()
    assert sorted(len(b["ids"]) for b in batches) == [3, 3]
    world.deliver_all()
    assert [row["state"] for row in world.alerts(event)] == ["delivered"] * 3
    assert vendors.stats("fcm")["accepted"] == 6


def test_channels_without_a_vendor_key_travel_in_small_batches(vendors: Sandbox, settings: Any) -> None:
    settings.DELIVERY_BATCH, settings.UNKEYED_BATCH = 10, 2
    trader = world.make_trader()
    for _ in range(5):
        world.make_follower(trader, "fcm", "sms")

    world.fan_out(world.trade(trader))

    sizes = sorted((b["channel"], len(b["ids"])) for b in world.unclaimed())
    assert sizes == [("fcm", 5), ("sms", 1), ("sms", 2), ("sms", 2)]


def test_channel_without_credentials_is_skipped_with_its_reason(vendors: Sandbox, settings: Any) -> None:
    settings.TWILIO_ACCOUNT_SID = settings.TWILIO_AUTH_TOKEN = settings.TWILIO_FROM = ""
    trader = world.make_trader()
    follower = world.make_follower(trader, "sms", "fcm")
    event = world.trade(trader)

    world.fan_out(event)
    world.deliver_all()

    row = world.alert(event, follower)
    assert (world.delivery(row, "sms")["state"], world.delivery(row, "sms")["error_code"]) == ("skipped", "channel_off")
    assert row["state"] == "delivered"  # Everything that was wanted was reached.


def test_fan_out_that_comes_too_late_expires_everything_and_fills_no_inbox(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm")
    event = world.trade(trader)
    (shard,) = world.take_in_trades(event)
    world.collection(world.TradeEvent).update_one({}, {"$set": {"expires_at": clock.now() - timedelta(seconds=1)}})

    fan_out_shard(shard["_id"])

    row = world.alert(event, follower)
    assert (row["state"], world.states(row)) == ("expired", {"in_app": "expired", "fcm": "expired"})
    assert world.entries(follower) == []


def test_inbox_keeps_the_newest_entries_by_order(vendors: Sandbox, settings: Any) -> None:
    settings.INAPP_KEEP = 3
    trader = world.make_trader()
    follower = world.make_follower(trader)
    now = clock.now()
    events = [world.trade(trader, executed_at=now - timedelta(minutes=10 - i)) for i in range(6)]

    for event in (events[5], events[0], events[3], events[1], events[4], events[2]):
        world.fan_out(event)

    assert [e["event_key"] for e in world.entries(follower)] == [events[i]["eventId"] for i in (5, 4, 3)]


def test_expired_entries_take_no_place_of_valid_ones(vendors: Sandbox, settings: Any) -> None:
    settings.INAPP_KEEP = 2
    trader = world.make_trader()
    follower = world.make_follower(trader)
    now = clock.now()
    events = [world.trade(trader, executed_at=now - timedelta(minutes=10 - i)) for i in range(3)]
    world.fan_out(events[0], events[1])
    world.collection(world.InAppEntry).update_one(
        {"event_key": events[1]["eventId"]}, {"$set": {"expires_at": now - timedelta(seconds=1)}}
    )

    world.fan_out(events[2])

    valid = [e["event_key"] for e in world.entries(follower) if clock.as_utc(e["expires_at"]) > clock.now()]
    assert valid == [events[2]["eventId"], events[0]["eventId"]]


def test_failed_push_or_hint_does_not_fail_the_shard(vendors: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    trader = world.make_trader()
    world.make_follower(trader, "fcm")
    monkeypatch.setattr(fan_out_module, "send_hints", list)  # As when the queue is away.
    event = world.trade(trader)

    world.fan_out(event)

    assert world.stored_event(event)["state"] == "done"
    assert len(world.unclaimed()) == 1


def test_a_shard_waits_for_its_event_that_a_new_primary_lacks(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader)
    event = world.trade(trader)
    (shard,) = world.take_in_trades(event)
    collection(TradeEvent).delete_many({})

    assert fan_out_shard(shard["_id"]) is None
    assert (world.batch(shard["_id"])["failures"], world.batch(shard["_id"])["token"]) == (0, None)

    world.take_in_trades(event)  # Kafka has it until it is confirmed.
    fan_out_shard(shard["_id"])
    assert world.alert(event, follower)["state"] == "delivered"


def test_a_shard_whose_event_never_comes_fails_at_last(vendors: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    trader = world.make_trader()
    world.make_follower(trader)
    (shard,) = world.take_in_trades(world.trade(trader))
    collection(TradeEvent).delete_many({})
    monkeypatch.setattr(fan_out_module, "EVENT_COMES_WITHIN", timedelta(0))

    fan_out_shard(shard["_id"])

    assert world.batch(shard["_id"])["failures"] == 1
