"""Rare moments in which an alert could be lost, reach the wrong person, or be called what it is not."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from delivery import dispatcher, fan_out, stopping
from delivery import vendors as open_vendors
from delivery.channels.twilio_sms import TwilioSmsChannel
from delivery.deliver import deliver_batch
from delivery.fan_out import fan_out_shard
from delivery.lease import claim
from delivery.models import Batch
from devstack.vendors.client import Sandbox
from followers import clock
from followers import statements as followers
from followers.models import Endpoint, Follow
from followers.mongo import collection
from notifications import statements as notifications
from notifications.models import Notification, TradeEvent
from tests.pipeline import world
from tests.pipeline.world import WorkerDied

pytestmark = pytest.mark.django_db(transaction=True)


def fcm_state(event: Any, follower: Any) -> str:
    return str(world.delivery(world.alert(event, follower), "fcm")["state"])


def test_hint_that_comes_before_the_channels_are_open_skips_nothing(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm")
    event = world.trade(trader)
    world.fan_out(event)
    (batch,) = world.unclaimed()

    asyncio.run(deliver_batch(batch["_id"]))
    assert fcm_state(event, follower) == "queued"

    world.deliver_all()
    assert fcm_state(event, follower) == "sent"


def test_stopping_worker_starts_no_send_and_spends_no_attempt(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    trader = world.make_trader()
    followers_ = [world.make_follower(trader, "sms") for _ in range(3)]
    event = world.trade(trader)
    world.fan_out(event)
    (batch,) = world.unclaimed()
    load = fan_out.batches.load

    def stop_meanwhile(claimed: Any) -> Any:
        stopping.start_nothing_more()
        return load(claimed)

    monkeypatch.setattr(fan_out.batches, "load", stop_meanwhile)

    async def run() -> None:
        await open_vendors.open_channels()
        await deliver_batch(batch["_id"])
        await open_vendors.close_channels()

    asyncio.run(run())
    monkeypatch.undo()
    stopping.start_again()

    assert vendors.stats("twilio")["requests"] == 0
    for follower in followers_:
        sms = world.delivery(world.alert(event, follower), "sms")
        assert (sms["state"], sms["attempts"], sms["batch"]) == ("queued", 0, None)


def test_device_that_another_person_registered_gets_nothing_of_the_former_owner(vendors: Sandbox) -> None:
    trader = world.make_trader()
    former, owner = world.make_follower(trader, "fcm"), world.make_follower(world.make_trader())
    event = world.trade(trader)
    world.fan_out(event)
    Endpoint.objects.filter(follower=former).update(follower=owner)

    world.deliver_all()

    sent = world.delivery(world.alert(event, former), "fcm")
    assert (sent["state"], sent["error_code"]) == ("skipped", "endpoint_inactive")
    assert vendors.stats("fcm")["accepted"] == 0


def test_one_failure_of_ours_keeps_the_other_outcomes_of_its_batch(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    trader = world.make_trader()
    dead, *others = [world.make_follower(trader, "sms") for _ in range(5)]
    address = Endpoint.objects.get(follower=dead).address
    vendors.behave("twilio", rules=[{"match": {"address": address}, "code": "dead"}])
    event = world.trade(trader)
    world.fan_out(event)

    def fail(*args: Any) -> bool:
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(followers, "deactivate_endpoint", fail)
    world.deliver_all()

    assert [world.delivery(world.alert(event, f), "sms")["state"] for f in others] == ["sent"] * 4
    assert world.delivery(world.alert(event, dead), "sms")["error_code"] == "21614"


def test_send_that_fails_in_itself_is_unknown_and_keeps_the_others(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    trader = world.make_trader()
    broken, *others = [world.make_follower(trader, "sms") for _ in range(5)]
    address = Endpoint.objects.get(follower=broken).address
    event = world.trade(trader)
    world.fan_out(event)
    request = TwilioSmsChannel.request

    def fail(self: TwilioSmsChannel, message: Any, now: Any) -> Any:
        if message.address == address:
            raise RuntimeError("nobody foresaw this")
        return request(self, message, now)

    monkeypatch.setattr(TwilioSmsChannel, "request", fail)
    world.deliver_all()

    assert [world.delivery(world.alert(event, f), "sms")["state"] for f in others] == ["sent"] * 4
    sms = world.delivery(world.alert(event, broken), "sms")
    assert (sms["state"], sms["error_code"]) == ("unknown", "internal_error")


def test_absurd_retry_after_waits_until_the_validity_ends(vendors: Sandbox) -> None:
    vendors.behave("twilio", rules=[{"match": {"first_n": 1}, "code": "throttled", "retry_after": 10**15}])
    trader = world.make_trader()
    followers_ = [world.make_follower(trader, "sms") for _ in range(3)]
    event = world.trade(trader)

    world.fan_out(event)
    world.deliver_all()

    rows = [world.alert(event, f) for f in followers_]
    assert sorted(world.delivery(row, "sms")["state"] for row in rows) == ["queued", "sent", "sent"]
    (waiting,) = [row for row in rows if row["state"] == "pending"]
    assert abs(waiting["wake_at"] - waiting["expires_at"]) < timedelta(seconds=1)


@pytest.mark.parametrize("how", ["exit", "validity", "attempts"])
def test_what_may_have_been_accepted_is_never_called_unsent(vendors: Sandbox, how: str, settings: Any) -> None:
    if how == "attempts":
        policy = replace(settings.CHANNEL_POLICIES["fcm"], max_attempts=1)
        settings.CHANNEL_POLICIES = {**settings.CHANNEL_POLICIES, "fcm": policy}
    vendors.behave("fcm", rules=[{"match": {"first_n": 1}, "accept_then_reset": True}])
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm")
    event = world.trade(trader, executed_at=clock.now() - timedelta(minutes=1))
    world.fan_out(event)
    world.deliver_all()
    assert vendors.stats("fcm")["accepted"] == 1

    if how == "exit":
        world.fan_out(world.trade(trader, action="CLOSE", side="SELL"))
    elif how == "validity":
        past = clock.now() - timedelta(seconds=1)
        collection(Notification).update_many({}, {"$set": {"expires_at": past, "wake_at": past}})
        world.sweep()

    assert fcm_state(event, follower) == "unknown"


def test_direct_message_in_doubt_is_not_repeated_when_its_nonce_is_forgotten(vendors: Sandbox) -> None:
    vendors.behave("discord", rules=[{"match": {"first_n": 1}, "accept_then_reset": True}])
    trader = world.make_trader()
    follower = world.make_follower(trader, "discord_dm")
    event = world.trade(trader)
    world.fan_out(event)
    world.deliver_all()
    collection(Notification).update_many({}, {"$set": {"created_at": clock.now() - timedelta(minutes=30)}})

    world.sweep(after_seconds=300)
    world.deliver_all()

    assert world.delivery(world.alert(event, follower), "discord")["state"] == "unknown"
    assert vendors.stats("discord")["accepted"] == 1


def test_fan_out_that_died_before_it_looked_for_the_exit_sends_no_entry_when_run_again(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm")
    entry = world.trade(trader, executed_at=clock.now() - timedelta(minutes=2))
    exit_ = world.trade(trader, action="CLOSE", side="SELL", executed_at=clock.now() - timedelta(minutes=1))
    (shard,) = world.take_in_trades(entry)
    insert = notifications.insert_notifications

    def insert_and_die(documents: list[Any]) -> None:
        monkeypatch.setattr(notifications, "insert_notifications", insert)
        world.fan_out(exit_)
        insert(documents)
        raise WorkerDied

    monkeypatch.setattr(notifications, "insert_notifications", insert_and_die)
    with pytest.raises(WorkerDied):
        fan_out_shard(shard["_id"])
    (batch,) = [b for b in world.unclaimed() if b["priority"] == "high"]
    assert claim(batch["_id"], 30) is not None  # The same SIGKILL took the worker that had just claimed it.
    world.end_lease(shard["_id"])
    world.end_lease(batch["_id"])

    for seconds in (0, 1, 10):
        world.sweep(after_seconds=seconds)
        fan_out_shard(shard["_id"])
        world.deliver_all()

    assert [m["body"]["data"]["action"] for m in vendors.accepted("fcm")] == ["CLOSE"]
    assert fcm_state(entry, follower) == "unknown"  # For all that is known, the dead worker had sent it.


def test_exit_that_arrives_expired_still_keeps_waiting_entries_from_being_sent(vendors: Sandbox) -> None:
    vendors.behave("fcm", rules=[{"match": {"first_n": 1}, "status": 503}])
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm")
    entry = world.trade(trader, productType="DELIVERY", executed_at=clock.now() - timedelta(hours=23))
    world.fan_out(entry)
    world.deliver_all()
    exit_ = world.trade(trader, action="CLOSE", side="SELL", executed_at=clock.now() - timedelta(hours=22, minutes=50))
    assert world.take_in_trades(exit_) != []
    collection(TradeEvent).update_one(
        {"external_id": exit_["eventId"]}, {"$set": {"state": "expired", "expires_at": clock.now()}}
    )

    world.sweep(after_seconds=60)
    world.deliver_all()

    assert fcm_state(entry, follower) == "cancelled"


def test_event_is_failed_even_if_its_worker_dies_while_giving_up(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.SHARD_MAX_FAILURES = 1
    trader = world.make_trader()
    world.make_follower(trader, "fcm")
    event = world.trade(trader)
    (shard,) = world.take_in_trades(event)

    def fail(*args: Any) -> None:
        raise RuntimeError("this shard cannot be written")

    def die(*args: Any) -> None:
        raise WorkerDied

    monkeypatch.setattr(fan_out, "_run", fail)
    monkeypatch.setattr(fan_out.batches, "give_up", die)
    with pytest.raises(WorkerDied):
        fan_out_shard(shard["_id"])

    assert world.stored_event(event)["state"] == "failed"


def test_given_up_shard_is_not_run_by_a_stale_hint(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.SHARD_MAX_FAILURES = 1
    trader = world.make_trader()
    world.make_follower(trader, "fcm")
    (shard,) = world.take_in_trades(world.trade(trader))
    runs: list[int] = []

    def fail(*args: Any) -> None:
        runs.append(1)
        raise RuntimeError("this shard cannot be written")

    monkeypatch.setattr(fan_out, "_run", fail)
    for _ in range(3):
        fan_out_shard(shard["_id"])
    assert runs == [1]


def test_empty_batches_of_a_shard_that_failed_for_good_come_to_an_end(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.SHARD_MAX_FAILURES = 2
    trader = world.make_trader()
    world.make_follower(trader, "fcm")
    event = world.trade(trader)
    (shard,) = world.take_in_trades(event)

    def fail(documents: list[Any]) -> None:
        raise RuntimeError("the rows cannot be written")

    with monkeypatch.context() as patch:
        patch.setattr(notifications, "insert_notifications", fail)
        for _ in range(2):
            fan_out_shard(shard["_id"])
    assert len(world.unclaimed()) == 2
    collection(TradeEvent).update_many({}, {"$set": {"expires_at": clock.now() - timedelta(seconds=1)}})

    world.deliver_all()

    assert world.unclaimed() == []


def test_orphan_whose_address_cannot_be_read_is_settled_like_the_others(vendors: Sandbox) -> None:
    trader = world.make_trader()
    followers_ = [world.make_follower(trader, "discord") for _ in range(3)]
    unreadable = {"$set": {"address": "1.00000000.AAAA"}}
    collection(Endpoint).update_one({"follower_id": followers_[0].pk}, unreadable)
    event = world.trade(trader)
    world.fan_out(event)
    (batch,) = world.unclaimed()
    assert claim(batch["_id"], 30) is not None
    world.end_lease(batch["_id"])

    world.sweep()

    assert [world.delivery(world.alert(event, f), "discord")["state"] for f in followers_] == ["unknown"] * 3


def test_one_bad_row_does_not_keep_the_lower_priorities_asleep(vendors: Sandbox) -> None:
    trader, other = world.make_trader(), world.make_trader()
    world.make_follower(trader, "fcm")
    world.make_follower(other, "fcm")
    world.fan_out(world.trade(trader, action="CLOSE", side="SELL"))
    broken = {"wake_at": clock.now(), "deliveries.$[q].batch": None, "deliveries.$[q].next_attempt_at": "soon"}
    collection(Notification).update_many({}, {"$set": broken}, array_filters=[{"q.state": "queued"}])
    collection(Batch).delete_many({})
    world.fan_out(world.trade(other))

    assert world.sweep(after_seconds=10).hinted == 1


def test_follower_whose_figures_cannot_be_read_costs_nobody_else_the_alert(vendors: Sandbox) -> None:
    trader = world.make_trader()
    broken, fine = world.make_follower(trader, "fcm"), world.make_follower(trader, "fcm")
    collection(Follow).update_one({"follower_id": broken.pk}, {"$set": {"multiplier": None}})
    event = world.trade(trader)

    world.fan_out(event)
    world.deliver_all()

    row = world.alert(event, broken)
    assert (row["state"], row["sizing"]["reason"]) == ("skipped", "unreadable_figures")
    assert world.alert(event, fine)["state"] == "delivered"


def test_known_row_that_is_gone_after_all_is_woken_at_once(vendors: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm")
    event = world.trade(trader)
    (shard,) = world.take_in_trades(event)
    collection(Batch).update_one({"_id": shard["_id"]}, {"$set": {"failures": 1}})
    monkeypatch.setattr(notifications, "existing_notifications", set)
    fan_out_shard(shard["_id"])

    world.sweep()
    world.deliver_all()

    assert fcm_state(event, follower) == "sent"


def test_run_again_shard_pushes_nothing_that_was_there_before(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    trader = world.make_trader()
    world.make_follower(trader)
    (shard,) = world.take_in_trades(world.trade(trader))
    fan_out_shard(shard["_id"])
    pushed: list[Any] = []
    monkeypatch.setattr(fan_out, "push_alerts", lambda entries, removed: pushed.extend(entries))
    again = {"finished_at": None, "token": None, "next_look_at": clock.now(), "failures": 1}
    collection(Batch).update_one({"_id": shard["_id"]}, {"$set": again})

    fan_out_shard(shard["_id"])

    assert pushed == []


@pytest.mark.parametrize(
    ("before", "after", "share"), [("50", "45", "10 %"), ("3000000", "2999999", "less than 0.01 %")]
)
def test_community_is_told_how_much_of_the_position_the_trader_leaves(
    vendors: Sandbox, before: str, after: str, share: str
) -> None:
    trader = world.make_trader()
    world.add_endpoint("discord", trader=trader)
    details: dict[str, Any] = {"action": "REDUCE", "side": "SELL", "positionBefore": before, "positionAfter": after}

    world.fan_out(world.trade(trader, **details))
    world.deliver_all()

    (message,) = vendors.accepted("discord")
    assert f"The trader is leaving {share} of this position." in message["body"]["content"]


def test_small_sweep_does_not_spin(settings: Any) -> None:
    settings.DISPATCH_SWEEP = 5
    assert not dispatcher.Sweep().is_full
