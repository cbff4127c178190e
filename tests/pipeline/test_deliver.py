"""One batch: claimed, sent, recorded."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from devstack.vendors.client import Sandbox
from followers import clock
from followers.models import Endpoint
from tests.pipeline import world

pytestmark = pytest.mark.django_db(transaction=True)
ALL_CHANNELS = ("apns", "fcm", "sms", "discord", "onesignal")
VENDOR = {"sms": "twilio"}


def test_every_channel_sends_and_records_what_the_vendor_said(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, *ALL_CHANNELS)
    event = world.trade(trader)
    before = clock.now()

    world.fan_out(event)
    world.deliver_all()

    row = world.alert(event, follower)
    assert row["state"] == "delivered"
    assert row["wake_at"] is None
    assert world.states(row) == {"in_app": "sent", **dict.fromkeys(ALL_CHANNELS, "sent")}
    for channel in ALL_CHANNELS:
        sent = world.delivery(row, channel)
        (message,) = vendors.accepted(VENDOR.get(channel, channel))
        assert sent["provider_message_id"] == message["headers"].get("apns-id", message["message_id"])
        assert (sent["attempts"], sent["batch"], sent["next_attempt_at"], sent["error_code"]) == (1, None, None, "")
        assert before <= sent["sent_at"].replace(tzinfo=before.tzinfo) <= clock.now()
        (attempt,) = sent["attempt_log"]
        assert attempt["outcome"] == "sent"
        assert attempt["latency_ms"] > 0
    assert all(b["finished_at"] is not None for b in world.collection(world.Batch).find())


def test_quantity_reaches_every_vendor_exactly(vendors: Sandbox) -> None:
    trader = world.make_trader()
    world.make_follower(trader, *ALL_CHANNELS, portfolio="12345.67")
    event = world.trade(trader, quantity="50", quantityStep="0.001")

    world.fan_out(event)
    world.deliver_all()

    for channel in ALL_CHANNELS:
        (message,) = vendors.accepted(VENDOR.get(channel, channel))
        assert "6.172" in str(message["body"])  # 50 × 12,345.67 / 100,000 = 6.172835, rounded down to the step.


def test_passing_trouble_is_retried_later_and_counted(vendors: Sandbox) -> None:
    vendors.behave("fcm", rules=[{"match": {"first_n": 1}, "status": 503}])
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm")
    event = world.trade(trader)

    world.fan_out(event)
    world.deliver_all()

    waiting = world.delivery(world.alert(event, follower), "fcm")
    assert (waiting["state"], waiting["attempts"], waiting["batch"]) == ("queued", 1, None)
    wait = waiting["next_attempt_at"] - waiting["last_attempt_at"]
    assert timedelta(seconds=10) <= wait <= timedelta(seconds=31)
    assert world.alert(event, follower)["wake_at"] == waiting["next_attempt_at"]

    world.sweep(after_seconds=31)
    world.deliver_all()
    done = world.delivery(world.alert(event, follower), "fcm")
    assert (done["state"], done["attempts"], [a["outcome"] for a in done["attempt_log"]]) == (
        "sent",
        2,
        ["retry", "sent"],
    )


def test_throttled_delivery_waits_as_asked_and_spends_no_attempt(vendors: Sandbox) -> None:
    vendors.behave("twilio", rules=[{"match": {"first_n": 1}, "code": "throttled", "retry_after": 42}])
    trader = world.make_trader()
    follower = world.make_follower(trader, "sms")
    event = world.trade(trader)

    world.fan_out(event)
    world.deliver_all()

    waiting = world.delivery(world.alert(event, follower), "sms")
    assert (waiting["state"], waiting["attempts"]) == ("queued", 0)
    wait = (waiting["next_attempt_at"] - waiting["last_attempt_at"]).total_seconds()
    assert 42 <= wait < 43


def test_dead_token_is_deactivated_and_spoils_nothing_else(vendors: Sandbox) -> None:
    trader = world.make_trader()
    dead = world.make_follower(trader, "fcm")
    others = [world.make_follower(trader, "fcm") for _ in range(5)]
    endpoint = Endpoint.objects.get(follower=dead)
    vendors.behave("fcm", rules=[{"match": {"address": endpoint.address}, "code": "dead"}])
    event = world.trade(trader)

    world.fan_out(event)
    world.deliver_all()

    endpoint.refresh_from_db()
    assert (endpoint.active, endpoint.deactivated_reason) == (False, "UNREGISTERED")
    assert endpoint.deactivated_at is not None
    failed = world.delivery(world.alert(event, dead), "fcm")
    assert (failed["state"], failed["error_code"]) == ("failed", "UNREGISTERED")
    assert {world.alert(event, f)["state"] for f in others} == {"delivered"}


def test_sms_without_an_answer_is_unknown_and_never_sent_again(vendors: Sandbox) -> None:
    vendors.behave("twilio", rules=[{"match": {"first_n": 1}, "accept_then_reset": True}])
    trader = world.make_trader()
    follower = world.make_follower(trader, "sms")
    event = world.trade(trader)

    world.fan_out(event)
    world.deliver_all()
    world.sweep(after_seconds=3_600)
    world.deliver_all()

    row = world.alert(event, follower)
    assert (world.delivery(row, "sms")["state"], row["state"], row["wake_at"]) == ("unknown", "failed", None)
    assert vendors.stats("twilio")["accepted"] == 1


@pytest.mark.parametrize("channel", ["apns", "fcm", "onesignal", "discord_dm"])
def test_keyed_channel_without_an_answer_is_sent_again_under_the_same_key(vendors: Sandbox, channel: str) -> None:
    vendor = channel.removesuffix("_dm")
    vendors.behave(vendor, rules=[{"match": {"first_n": 1}, "accept_then_reset": True}])
    trader = world.make_trader()
    follower = world.make_follower(trader, channel)
    event = world.trade(trader)

    world.fan_out(event)
    world.deliver_all()
    world.sweep(after_seconds=60)
    world.deliver_all()

    assert world.delivery(world.alert(event, follower), vendor)["state"] == "sent"
    stats = vendors.stats(vendor)
    assert stats["duplicates"] == 0
    assert stats["repeats_under_key"] + stats["replays"] == 1


def test_what_expired_in_the_queue_is_not_sent(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm")
    event = world.trade(trader)
    world.fan_out(event)
    world.collection(world.Notification).update_one({}, {"$set": {"expires_at": clock.now() - timedelta(seconds=1)}})

    world.deliver_all()

    row = world.alert(event, follower)
    assert (row["state"], world.delivery(row, "fcm")["error_code"]) == ("expired", "validity_over")
    assert vendors.stats("fcm")["requests"] == 0


def test_endpoint_deactivated_meanwhile_is_skipped(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm")
    event = world.trade(trader)
    world.fan_out(event)
    Endpoint.objects.update(active=False)

    world.deliver_all()

    sent = world.delivery(world.alert(event, follower), "fcm")
    assert (sent["state"], sent["error_code"]) == ("skipped", "endpoint_inactive")


def test_alert_that_cannot_be_decrypted_fails_alone(vendors: Sandbox) -> None:
    trader = world.make_trader()
    broken, fine = world.make_follower(trader, "fcm"), world.make_follower(trader, "fcm")
    world.collection(Endpoint).update_one({"follower_id": broken.pk}, {"$set": {"address": "1.00000000.AAAA"}})
    event = world.trade(trader)

    world.fan_out(event)
    world.deliver_all()

    assert world.delivery(world.alert(event, broken), "fcm")["error_code"] == "address_unreadable"
    assert world.alert(event, fine)["state"] == "delivered"


def test_attempts_end_at_the_maximum_with_the_vendors_last_words(vendors: Sandbox, settings: Any) -> None:
    settings.CHANNEL_POLICIES = {
        **settings.CHANNEL_POLICIES,
        "fcm": replace(
            settings.CHANNEL_POLICIES["fcm"], max_attempts=2, retry_base_seconds=0.001, retry_cap_seconds=0.001
        ),
    }
    vendors.behave("fcm", rules=[{"match": {}, "status": 500, "retry_after": 0}])
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm")
    event = world.trade(trader)

    world.fan_out(event)
    for _ in range(3):
        world.deliver_all()
        world.sweep(after_seconds=60)

    failed = world.delivery(world.alert(event, follower), "fcm")
    assert (failed["state"], failed["attempts"], failed["error_code"]) == ("failed", 2, "attempts_exhausted")
    assert "INTERNAL" in failed["error_message"]
    assert sum(vendors.stats("fcm")["refused"].values()) == 2


def test_retry_that_would_come_after_the_validity_expires_instead(vendors: Sandbox) -> None:
    vendors.behave("fcm", rules=[{"match": {}, "status": 503, "retry_after": 7200}])
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm")
    event = world.trade(trader, productType="CRYPTO")

    world.fan_out(event)
    world.deliver_all()
    row = world.alert(event, follower)
    assert world.delivery(row, "fcm")["next_attempt_at"] == row["expires_at"]

    world.sweep(after_seconds=301)
    assert world.alert(event, follower)["state"] == "expired"


def test_validity_that_ends_another_day_is_told_with_its_date(vendors: Sandbox) -> None:
    trader = world.make_trader()
    world.make_follower(trader, "sms")
    event = world.trade(trader, productType="DELIVERY")  # 24 hours.

    world.fan_out(event)
    world.deliver_all()

    (message,) = vendors.accepted("twilio")
    ends = clock.as_utc(world.alerts(event)[0]["expires_at"])
    assert f"Valid until {ends:%d %b %H:%M} UTC." in message["body"]["Body"]
