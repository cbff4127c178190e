"""A vendor in trouble: what the breaker, the holds and the policies make of a batch, and that no attempt is lost."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.conf import settings
from redis import asyncio as async_redis

from delivery.breakers import breaker_id, force_breaker
from delivery.choices import BreakerStatus
from delivery.guards.breaker import PROBES, State, opened
from delivery.guards.gate import Gate
from delivery.guards.shared import encoded, state_key
from delivery.guards.waves import WAVE_REASON
from delivery.lease import Lease
from delivery.models import Breaker, BreakerChange
from delivery.vendors import open_vendor
from devstack.vendors.client import Sandbox
from followers import clock
from followers import statements as followers
from followers.models import Endpoint, Follower
from followers.mongo import collection
from tests.pipeline import world

pytestmark = pytest.mark.django_db(transaction=True)
AUDIENCE = 60


def audience(size: int, channel: str = "fcm") -> tuple[dict[str, Any], list[Follower]]:
    """A trade that has been fanned out to so many followers on one channel."""
    trader = world.make_trader()
    followers = [world.make_follower(trader, channel) for _ in range(size)]
    event = world.trade(trader)
    world.fan_out(event)
    return event, followers


def policy(settings: Any, channel: str, **changes: Any) -> None:
    changed = replace(settings.CHANNEL_POLICIES[channel], **changes)
    settings.CHANNEL_POLICIES = {**settings.CHANNEL_POLICIES, channel: changed}


def deliveries(event: dict[str, Any], channel: str = "fcm") -> list[dict[str, Any]]:
    return [world.delivery(row, channel) for row in world.alerts(event)]


@pytest.fixture
def open_breaker(vendors: Sandbox, settings: Any) -> None:
    """FCM has failed often enough; the pause to its next probe is long."""
    settings.BREAKER_PAUSE_SECONDS = 60.0
    vendors.behave("fcm", rules=[{"match": {}, "status": 500, "latency_ms": 1}])
    audience(AUDIENCE)
    world.deliver_once()
    vendors.behave_well("fcm")


def test_failing_vendor_opens_its_breaker_and_its_history_says_why(open_breaker: None) -> None:
    (change,) = collection(BreakerChange).find()
    assert (change["channel"], change["status_before"], change["status_after"]) == ("fcm", "closed", "open")
    assert "of 60 calls" in change["reason"]
    stored = Breaker.objects.get(channel="fcm")
    assert (stored.status, stored.reason) == ("open", change["reason"])
    assert stored.next_probe_at is not None


def test_while_it_is_open_alerts_wait_and_no_attempt_is_spent(open_breaker: None, vendors: Sandbox) -> None:
    requests = vendors.stats("fcm")["requests"]
    event, _ = audience(5)
    world.deliver_once()

    assert {(d["state"], d["attempts"]) for d in deliveries(event)} == {("queued", 0)}
    assert vendors.stats("fcm")["requests"] == requests
    batch = next(b for b in world.unclaimed() if len(b["ids"]) == 5)
    assert clock.as_utc(batch["next_look_at"]) > clock.now() + timedelta(seconds=30)


def test_while_it_is_open_the_other_channels_do_not_notice(open_breaker: None) -> None:
    event, _ = audience(5, "onesignal")
    world.deliver_once()
    assert {d["state"] for d in deliveries(event, "onesignal")} == {"sent"}


def test_what_waits_for_an_open_breaker_expires_in_time(open_breaker: None) -> None:
    event, _ = audience(5)
    world.deliver_once()
    world.sweep(after_seconds=86_401)
    assert {(d["state"], d["error_code"], d["attempts"]) for d in deliveries(event)} == {
        ("expired", "validity_over", 0)
    }


def test_probes_that_go_well_let_the_rest_of_their_batch_follow(vendors: Sandbox, settings: Any) -> None:
    settings.BREAKER_PAUSE_SECONDS = 0.1
    vendors.behave("fcm", rules=[{"match": {}, "status": 500}])
    audience(AUDIENCE)
    world.deliver_once()
    vendors.behave_well("fcm")
    event, _ = audience(20)

    world.deliver_once()

    found = deliveries(event)
    assert {(d["state"], d["attempts"]) for d in found} == {("sent", 1)}
    assert Counter(d["attempt_log"][0]["breaker"] for d in found) == {"half_open": PROBES, "closed": 20 - PROBES}
    changes = [(c["status_before"], c["status_after"]) for c in collection(BreakerChange).find().sort("_id", 1)]
    assert changes == [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]


def test_probes_that_fail_are_few_and_the_rest_goes_back_without_an_attempt(vendors: Sandbox, settings: Any) -> None:
    settings.BREAKER_PAUSE_SECONDS = 0.1
    vendors.behave("fcm", rules=[{"match": {}, "status": 500}])
    audience(AUDIENCE)
    world.deliver_once()
    event, _ = audience(20)

    world.deliver_once()

    assert Counter((d["state"], d["attempts"]) for d in deliveries(event)) == {
        ("queued", 1): PROBES,
        ("queued", 0): 20 - PROBES,
    }
    assert {d["batch"] for d in deliveries(event)} == {None}
    assert Breaker.objects.get(channel="fcm").status == "open"


def test_forced_open_by_staff_stops_a_healthy_channel_until_it_is_left_to_itself(vendors: Sandbox) -> None:
    audience(1)
    world.deliver_once()
    (row,) = Breaker.objects.filter(channel="fcm")
    assert row.pk == breaker_id("fcm", row.account)
    event, _ = audience(3)
    assert force_breaker(row.pk, BreakerStatus.OPEN, "sam", "The vendor asked us to.", clock.now())

    world.deliver_once()
    assert {d["state"] for d in deliveries(event)} == {"queued"}

    assert force_breaker(row.pk, None, "sam", "It is over.", clock.now())
    assert not force_breaker(row.pk, None, "sam", "Again.", clock.now())
    world.deliver_once()
    assert {d["state"] for d in deliveries(event)} == {"sent"}
    history = [(c["status_after"], c["by"], c["reason"]) for c in collection(BreakerChange).find().sort("_id", 1)]
    assert history == [
        ("open", "sam", "forced by staff: The vendor asked us to."),
        ("closed", "sam", "left to itself again: It is over."),
    ]


def test_batch_of_200_sends_asks_redis_a_few_times_and_not_per_send(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    execute = async_redis.Redis.execute_command

    def count(self: async_redis.Redis, *args: Any, **options: Any) -> Any:
        asked.append(str(args[0]))
        return execute(self, *args, **options)

    event, _ = audience(200)
    monkeypatch.setattr(async_redis.Redis, "execute_command", count)
    world.deliver_once()

    assert Counter(d["state"] for d in deliveries(event)) == {"sent": 200}
    assert 0 < len(asked) < 50, "The gates' exchanges four times a second, and the turn under FCM's rate."


# --- Limits -----------------------------------------------------------------------------------------------------------
def test_webhook_whose_bucket_is_empty_is_left_alone_until_it_fills(vendors: Sandbox) -> None:
    vendors.behave("discord", bucket_limit=1, bucket_seconds=30)
    trader = world.make_trader()
    follower = world.make_follower(trader, "discord")
    first, second = world.trade(trader), world.trade(trader)
    world.fan_out(first)
    world.deliver_once()
    assert world.delivery(world.alert(first, follower), "discord")["state"] == "sent"

    world.fan_out(second)
    world.deliver_once()

    waiting = world.delivery(world.alert(second, follower), "discord")
    assert (waiting["state"], waiting["attempts"], waiting["attempt_log"]) == ("queued", 0, [])
    assert waiting["next_attempt_at"] > clock.now().replace(tzinfo=None) + timedelta(seconds=20)
    assert vendors.stats("discord")["accepted"] == 1


def test_attempt_never_comes_before_its_retry_after(vendors: Sandbox) -> None:
    vendors.behave("onesignal", rules=[{"match": {"first_n": 1}, "code": "throttled", "retry_after": 7}])
    event, _ = audience(1, "onesignal")
    before = clock.now()
    world.deliver_once()
    (waiting,) = deliveries(event, "onesignal")
    assert waiting["next_attempt_at"] >= before.replace(tzinfo=None) + timedelta(seconds=7)


# --- Our own set-up ---------------------------------------------------------------------------------------------------
def told_of_the_set_up(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.levelname for record in caplog.records if "does not take our set-up" in record.getMessage()]


def test_revoked_credential_opens_the_breaker_with_the_first_alert_and_is_told_once(
    vendors: Sandbox, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.BREAKER_PAUSE_SECONDS = 60.0
    vendors.behave("twilio", rules=[{"match": {}, "code": "auth"}])
    event, _ = audience(1, "sms")
    world.deliver_once()

    assert Breaker.objects.get(channel="sms").status == "open"
    (change,) = collection(BreakerChange).find()
    assert change["reason"].startswith("20003: Twilio refused our account")
    assert told_of_the_set_up(caplog) == ["ERROR"]
    later, _ = audience(1, "sms")
    world.deliver_once()
    assert [(d["state"], d["attempts"]) for d in deliveries(event, "sms")] == [("queued", 1)]
    assert [(d["state"], d["attempts"]) for d in deliveries(later, "sms")] == [("queued", 0)]
    assert told_of_the_set_up(caplog) == ["ERROR"]


def test_refusal_of_one_alert_among_accepted_alerts_is_no_revoked_credential(
    vendors: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    trader = world.make_trader()
    refused, *_others = [world.make_follower(trader, "onesignal") for _ in range(5)]
    address = Endpoint.objects.get(follower=refused).address
    vendors.behave("onesignal", rules=[{"match": {"address": address}, "code": "auth"}])
    world.fan_out(world.trade(trader))
    world.deliver_once()
    assert Breaker.objects.get(channel="onesignal").status == "closed"
    assert told_of_the_set_up(caplog) == []


def test_what_is_about_some_addresses_only_opens_nothing(vendors: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    vendors.behave("fcm", rules=[{"match": {}, "status": 401, "code": "THIRD_PARTY_AUTH_ERROR"}])
    event, _ = audience(AUDIENCE)
    world.deliver_once()
    assert {(d["state"], d["error_code"]) for d in deliveries(event)} == {("queued", "THIRD_PARTY_AUTH_ERROR")}
    assert Breaker.objects.get(channel="fcm").status == "closed"
    assert told_of_the_set_up(caplog) == []


# --- Policies ---------------------------------------------------------------------------------------------------------
def test_policy_can_leave_what_is_in_doubt_to_a_person(vendors: Sandbox, settings: Any) -> None:
    policy(settings, "fcm", resend_in_doubt=False)
    vendors.behave("fcm", rules=[{"match": {}, "accept_then_reset": True}])
    event, _ = audience(1)
    world.deliver_once()
    (unknown,) = deliveries(event)
    assert (unknown["state"], unknown["attempts"]) == ("unknown", 1)


def test_policy_counts_for_a_worker_that_died_as_well(vendors: Sandbox, settings: Any) -> None:
    policy(settings, "fcm", resend_in_doubt=False)
    event, _ = audience(3)
    (batch,) = world.unclaimed()
    world.crash_in(batch["_id"])
    world.sweep()
    assert {(d["state"], d["error_code"]) for d in deliveries(event)} == {("unknown", "crashed_in_send")}


def test_wave_of_dead_addresses_without_a_success_deactivates_nobody(vendors: Sandbox) -> None:
    rule = {"match": {}, "status": 400, "code": "BadDeviceToken"}
    vendors.behave("apns", rules=[rule])
    event, _ = audience(30, "apns")
    world.deliver_once()
    assert Endpoint.objects.filter(active=False).count() == 0
    assert {(d["state"], d["error_code"]) for d in deliveries(event, "apns")} == {("queued", "BadDeviceToken")}
    assert Breaker.objects.get(channel="apns").status == "open"


def test_wave_that_comes_in_small_batches_deactivates_nobody_either(
    vendors: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    longer_ago = world.add_endpoint("apns", follower=world.make_follower(world.make_trader()))
    by_hand = world.add_endpoint("apns", follower=world.make_follower(world.make_trader()))
    for endpoint, reason, seconds in ((longer_ago, "BadDeviceToken", 61), (by_hand, "support", 0)):
        at = clock.now() - timedelta(seconds=seconds)
        Endpoint.objects.filter(pk=endpoint.pk).update(active=False, deactivated_reason=reason, deactivated_at=at)
    vendors.behave("apns", rules=[{"match": {}, "status": 400, "code": "BadDeviceToken"}])
    events = [audience(6, "apns")[0] for _ in range(4)]

    world.deliver_once()

    assert set(Endpoint.objects.filter(active=False).values_list("pk", flat=True)) == {longer_ago.pk, by_hand.pk}
    assert Endpoint.objects.filter(active=True).exclude(deactivated_reason="", deactivated_at=None).count() == 0
    states = Counter(d["state"] for event in events for d in deliveries(event, "apns"))
    assert states == {"failed": 18, "queued": 6}
    assert [r.levelname for r in caplog.records if "active again" in r.getMessage()] == ["WARNING"]


def test_addresses_of_a_wave_come_back_once_and_under_the_lease_of_the_batch(
    vendors: Sandbox, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.LEASE_SECONDS = 1.5
    policy(settings, "apns", timeout_seconds=1.0)
    vendors.behave("apns", rules=[{"match": {}, "status": 400, "code": "BadDeviceToken", "latency_ms": 300}])
    revived: list[bool] = []
    renewed = threading.Event()
    renew, reactivate = Lease.renew, followers.reactivate_endpoints

    def noted(self: Lease) -> None:
        renew(self)
        renewed.set()

    def slowly(*args: Any) -> int:
        renewed.clear()
        revived.append(renewed.wait(5))
        return reactivate(*args)

    monkeypatch.setattr(Lease, "renew", noted)
    monkeypatch.setattr(followers, "reactivate_endpoints", slowly)
    events = [audience(25, "apns")[0] for _ in range(3)]
    world.deliver_all()

    assert revived == [True]
    states = {(d["state"], d["error_code"]) for event in events for d in deliveries(event, "apns")}
    assert states == {("queued", "BadDeviceToken")}


def test_probes_that_are_refused_like_the_wave_keep_the_breaker_open_and_deactivate_nobody(
    vendors: Sandbox, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.BREAKER_PAUSE_SECONDS = 0.1
    vendors.behave("apns", rules=[{"match": {}, "status": 400, "code": "BadDeviceToken"}])
    audience(30, "apns")
    world.deliver_once()
    event, _ = audience(20, "apns")

    world.deliver_once()

    assert Counter((d["state"], d["attempts"]) for d in deliveries(event, "apns")) == {
        ("queued", 1): PROBES,
        ("queued", 0): 20 - PROBES,
    }
    assert Endpoint.objects.filter(active=False).count() == 0
    assert [c["status_after"] for c in collection(BreakerChange).find().sort("_id", 1)] == ["open", "half_open", "open"]
    assert told_of_the_set_up(caplog) == ["ERROR"]


@pytest.mark.parametrize(
    ("reason", "is_heard", "stays"),
    [
        (f"BadDeviceToken {WAVE_REASON}", False, True),
        ("20 slow or unanswered of 20 calls within 4 s", True, False),
    ],
    ids=["a wave, this worker has not heard of it", "slowness"],
)
def test_address_is_active_again_only_if_a_wave_was_recognised_while_it_was_given_up(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch, reason: str, is_heard: bool, stays: bool
) -> None:
    vendors.behave("apns", rules=[{"match": {}, "status": 400, "code": "BadDeviceToken"}])
    _event, (follower,) = audience(1, "apns")
    deactivate = followers.deactivate_endpoint

    def overtaken(*args: Any) -> bool:
        """Another worker's breaker opens meanwhile."""
        changed = deactivate(*args)
        vendor = open_vendor("apns")
        assert vendor is not None
        raw = encoded(opened(State(), time.time(), 60.0, reason))
        with redis.Redis.from_url(settings.REDIS_URL) as client:
            client.set(state_key(vendor.gate.name), raw)
        if is_heard:
            vendor.gate.heard(raw)
        return changed

    monkeypatch.setattr(followers, "deactivate_endpoint", overtaken)
    world.deliver_once()
    assert Endpoint.objects.get(follower=follower).active == stays


def test_fault_of_the_breaker_costs_no_outcome(vendors: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: Gate, reason: str) -> bool:
        raise ValueError("a state that nobody can read")

    monkeypatch.setattr(Gate, "trip", broken)
    vendors.behave("twilio", rules=[{"match": {}, "code": "auth"}])
    vendors.behave("apns", rules=[{"match": {}, "status": 400, "code": "BadDeviceToken"}])
    refused, _ = audience(1, "sms")
    wave, _ = audience(30, "apns")
    world.deliver_once()
    assert [(d["state"], d["error_code"], d["attempts"]) for d in deliveries(refused, "sms")] == [
        ("queued", "20003", 1)
    ]
    assert {(d["state"], d["attempts"]) for d in deliveries(wave, "apns")} == {("queued", 1)}
    assert Endpoint.objects.filter(active=False).count() == 0


def test_bad_tokens_among_good_ones_are_dead(vendors: Sandbox) -> None:
    trader = world.make_trader()
    followers = [world.make_follower(trader, "apns") for _ in range(30)]
    dead = [e.address for e in Endpoint.objects.filter(follower__in=followers[:22])]
    vendors.behave("apns", rules=[{"match": {"addresses": dead}, "status": 400, "code": "BadDeviceToken"}])
    event = world.trade(trader)
    world.fan_out(event)
    world.deliver_once()
    assert Endpoint.objects.filter(active=False).count() == 22
    assert Counter(d["state"] for d in deliveries(event, "apns")) == {"failed": 22, "sent": 8}
