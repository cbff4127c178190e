"""The proof raises no false alarm: whoever is owed nothing is not missed, and work under way is no gap."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId

from delivery import fan_out, proof
from delivery.choices import BatchKind
from delivery.deliver import deliver_batch
from delivery.fan_out import fan_out_shard
from delivery.lease import claim
from delivery.models import Batch
from delivery.operations import rerun_fan_out
from delivery.proof import Proof, prove
from delivery.statements import delivery_batch, postpone
from delivery.vendors import close_channels, open_channels
from devstack.vendors.client import Sandbox
from followers import clock
from followers.models import Follow, Follower
from followers.mongo import collection, database
from notifications.choices import FanOutState
from notifications.models import Notification, TradeEvent
from notifications.statements import event_id
from tests.pipeline import world

pytestmark = pytest.mark.django_db(transaction=True)
Document = dict[str, Any]


@pytest.fixture(autouse=True)
def _second_look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "SECOND_LOOK_SECONDS", 0.0)


def proved() -> Proof:
    found = prove()
    assert found.holds, found.tally.named()
    return found


def ago(**time: float) -> datetime:
    return clock.now() - timedelta(**time)


# --- Whoever is owed nothing -----------------------------------------------------------------------------------------
def test_whoever_began_after_the_trade_or_ended_before_it_is_owed_nothing() -> None:
    trader = world.make_trader()
    world.make_follower(trader)
    world.make_follower(trader, ended_at=ago(minutes=1))
    event = world.trade(trader)
    world.fan_out(event)
    world.make_follower(trader, since=clock.now())

    assert proved().as_json()["alerts"] == {"owed": 1, "found": 1, "stored": 1}


def test_whoever_was_entered_later_with_a_since_in_the_past_was_not_there_to_be_told() -> None:
    trader = world.make_trader()
    event = world.trade(trader)
    world.fan_out(event)
    change_event(event, received_at=ago(seconds=5))  # An ObjectId tells the time to the second.
    world.make_follower(trader, since=ago(days=30))

    assert proved().tally.owed == 0


@pytest.mark.parametrize("told", [False, True])
def test_whoever_ends_between_receipt_and_fan_out_may_or_may_not_be_told(told: bool) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader)
    event = world.trade(trader)
    (shard,) = world.take_in_trades(event)
    ended_at = clock.as_utc(world.stored_event(event)["received_at"]) + timedelta(milliseconds=1)
    if not told:
        Follow.objects.filter(follower=follower).update(ended_at=ended_at)
    fan_out_shard(shard["_id"])
    if told:
        Follow.objects.filter(follower=follower).update(ended_at=ended_at)

    found = proved()

    assert (found.tally.owed, found.tally.alerts) == (0, int(told))


def test_whoever_was_not_stored_yet_when_the_fan_out_read_is_owed_nothing() -> None:
    """An import takes a follow's `since` before it writes the follow."""
    trader = world.make_trader()
    since = clock.now()
    event = world.trade(trader)
    world.fan_out(event)
    world.make_follower(trader, since=since)

    assert proved().tally.owed == 0


@pytest.mark.parametrize("when", ["before", "after"])
def test_whoever_was_erased_is_owed_nothing(when: str) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader)
    event = world.trade(trader)
    if when == "before":  # Its follow stays behind, as a crash between the two leaves it.
        collection(Follower).delete_one({"_id": follower.pk})
    world.fan_out(event)
    if when == "after":
        follower.delete()

    assert proved().tally.owed == 0


def test_events_that_fan_out_to_nobody_owe_nothing() -> None:
    trader = world.make_trader()
    world.make_follower(trader)
    expired = world.trade(trader, executed_at=ago(days=5))
    world.fan_out(expired, world.trade("T-unknown"))

    found = proved()

    assert found.tally.events == {FanOutState.EXPIRED: 1, FanOutState.DONE: 1}
    assert found.tally.owed == 0


def test_a_community_channel_that_came_later_is_owed_nothing(vendors: Sandbox) -> None:
    trader = world.make_trader()
    world.fan_out(world.trade(trader))
    world.add_endpoint("discord", trader=trader)

    proved()


def change_event(event: Document, **fields: Any) -> None:
    collection(TradeEvent).update_one({"_id": event_id(event["eventId"])}, {"$set": fields})


# --- Work under way --------------------------------------------------------------------------------------------------
def test_an_event_that_is_stored_before_its_shards_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    trader = world.make_trader()
    event = world.trade(trader)
    world.take_in_trades(event)
    shard = collection(Batch).find_one_and_delete({})
    assert shard is not None

    def store_it(seconds: float) -> None:  # Other threads sleep as well.
        collection(Batch).replace_one({"_id": shard["_id"]}, shard, upsert=True)

    monkeypatch.setattr(proof.time, "sleep", store_it)

    proved()


def test_a_shard_in_a_workers_hands_and_one_that_waits_for_its_next_try_are_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trader = world.make_trader()
    world.make_follower(trader)
    (first, second) = world.take_in_trades(world.trade(trader), world.trade(trader, symbol="TCS"))
    assert claim(first["_id"], 30) is not None

    def fail(*args: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(fan_out, "writer_for", fail)
    fan_out_shard(second["_id"])

    assert proved().tally.events == {FanOutState.PENDING: 2}


def test_of_a_trade_in_shards_only_those_that_are_done_are_asked_for(settings: Any) -> None:
    settings.FAN_OUT_SINGLE_SHARD_MAX = 1
    trader = world.make_trader()
    for _ in range(40):
        world.make_follower(trader)
    shards = world.take_in_trades(world.trade(trader))
    for shard in shards[::2]:
        fan_out_shard(shard["_id"])
    half = proved()
    assert half.tally.events == {FanOutState.PENDING: 1}
    assert 0 < half.tally.owed < 40

    for shard in shards[1::2]:
        fan_out_shard(shard["_id"])

    assert (proved().tally.owed, proved().tally.found) == (40, 40)


def test_a_fan_out_that_is_run_again_proves_once_it_is_done(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.SHARD_MAX_FAILURES = 1
    trader = world.make_trader()
    follower = world.make_follower(trader)
    event = world.trade(trader)
    with monkeypatch.context() as patch:
        patch.setattr(fan_out, "push_alerts", lambda *args: None)
        patch.setattr("notifications.statements.finish_shard", _die)
        world.fan_out(event)
    assert not prove().holds
    rerun_fan_out(event_id(event["eventId"]))
    proved()
    for shard in world.unclaimed(BatchKind.FAN_OUT):
        fan_out_shard(shard["_id"])
    assert proved().tally.found == 1

    collection(Notification).delete_one({"_id": world.alert(event, follower)["_id"]})

    assert not prove().holds


def _die(*args: Any) -> None:
    raise RuntimeError("the primary is gone")


def test_batches_that_are_claimed_postponed_or_wait_to_be_hinted_are_under_way(vendors: Sandbox) -> None:
    trader = world.make_trader()
    world.make_follower(trader, "fcm", "sms", "apns")
    world.fan_out(world.trade(trader))
    claimed, postponed, _ = world.unclaimed()
    assert claim(claimed["_id"], 30) is not None
    postpone(postponed["_id"], clock.now() + timedelta(minutes=5))  # As an open breaker does.

    assert proved().tally.under_way == 3


def test_a_batch_that_names_alerts_which_are_not_stored_yet_is_no_gap() -> None:
    collection(Batch).insert_one(delivery_batch("fcm", "high", [ObjectId()], clock.now()))

    proved()


def test_retries_exits_and_what_expires_are_no_gaps(vendors: Sandbox) -> None:
    vendors.behave("fcm", rules=[{"status": 503, "code": "unavailable"}])
    vendors.behave("apns", rules=[{"code": "dead"}])
    trader = world.make_trader()
    for _ in range(4):
        world.make_follower(trader, "fcm", "apns", "sms")
    entry = world.trade(trader, positionBefore="0", positionAfter="50")
    world.fan_out(entry)
    world.deliver_once()
    assert proved().tally.deliveries["fcm", "queued"] == 4  # Waiting for its next try.

    world.fan_out(world.trade(trader, action="CLOSE", side="SELL", positionBefore="50", positionAfter="0"))
    assert proved().tally.deliveries["fcm", "cancelled"] == 4

    past = {"expires_at": ago(seconds=1), "wake_at": ago(seconds=1), "deliveries.$[d].next_attempt_at": ago(seconds=1)}
    collection(Notification).update_many({"state": "pending"}, {"$set": past}, array_filters=[{"d.state": "queued"}])
    proved()
    world.sweep()
    assert proved().tally.under_way == 0


def test_past_its_validity_a_delivery_needs_no_batch(vendors: Sandbox) -> None:
    """Rows that are stored under a batch which was found empty, and finished, after their validity."""
    trader = world.make_trader()
    world.make_follower(trader, "fcm")
    event = world.trade(trader)
    world.fan_out(event)
    collection(Batch).update_many({"kind": "deliver"}, {"$set": {"finished_at": clock.now(), "next_look_at": None}})
    now = clock.now()
    past = {"expires_at": now, "wake_at": now, "deliveries.$[d].next_attempt_at": now}
    collection(Notification).update_many({}, {"$set": past}, array_filters=[{"d.state": "queued"}])

    proved()
    world.sweep()

    assert [row["state"] for row in world.alerts(event)] == ["expired"]
    proved()


# --- A system that runs ----------------------------------------------------------------------------------------------
@pytest.fixture
def _restless_database() -> Iterator[None]:
    """Reads that are not of one snapshot let writes in after each document, as large ones do all the time."""
    admin = database().client.admin
    before = admin.command({"getParameter": 1, "internalQueryExecYieldIterations": 1})
    admin.command({"setParameter": 1, "internalQueryExecYieldIterations": 1})
    yield
    value = before["internalQueryExecYieldIterations"]
    admin.command({"setParameter": 1, "internalQueryExecYieldIterations": value})


@pytest.mark.slow
@pytest.mark.usefixtures("_restless_database")
def test_while_everything_runs_no_proof_raises_an_alarm(vendors: Sandbox, settings: Any) -> None:
    """Trades come in, exits among them; vendors fail, leases run out, people come and go, and proofs run throughout."""
    quick = {"retry_base_seconds": 0.05, "retry_cap_seconds": 0.2}
    settings.CHANNEL_POLICIES = {n: replace(p, **quick) for n, p in settings.CHANNEL_POLICIES.items()}
    settings.FAN_OUT_CHUNK, settings.FAN_OUT_SINGLE_SHARD_MAX, settings.DELIVERY_BATCH = 7, 20, 5
    for vendor in ("fcm", "twilio"):
        vendors.behave(vendor, rules=[{"match": {"fraction": 0.4, "fraction_of": "requests"}, "status": 503}])
    traders = [world.make_trader() for _ in range(3)]
    for trader, count in zip(traders, (5, 15, 40), strict=True):
        world.add_endpoint("discord", trader=trader, registered_at=ago(days=1))
        for _ in range(count):
            world.make_follower(trader, "fcm", "sms")
    stop = threading.Event()
    failures: list[BaseException] = []
    jobs = (_trade(traders), _fan_out, _fan_out, _deliver_some, _dispatch, _come_and_go(traders))
    threads = [threading.Thread(target=_repeat, args=(job, stop, failures)) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        proofs = [prove() for _ in range(25)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures
    assert [p.tally.named() for p in proofs if not p.holds] == []
    assert any(p.tally.under_way for p in proofs)
    assert any(p.tally.events[FanOutState.PENDING] for p in proofs)
    assert proofs[-1].tally.found > proofs[0].tally.found


def _repeat(job: Callable[[], Any], stop: threading.Event, failures: list[BaseException]) -> None:
    while not stop.is_set():
        try:
            job()
        except BaseException as error:
            failures.append(error)
            return


def _trade(traders: list[Any]) -> Callable[[], None]:
    turns = itertools.cycle([("OPEN", "BUY", "0", "50"), ("CLOSE", "SELL", "50", "0")])
    generator = random.Random(4)

    def publish() -> None:
        action, side, before, after = next(turns)
        trader = generator.choice(traders)
        world.take_in_trades(world.trade(trader, action=action, side=side, positionBefore=before, positionAfter=after))

    return publish


def _fan_out() -> None:
    for batch in world.unclaimed(BatchKind.FAN_OUT)[:20]:
        if random.random() < 0.1:
            _crash(batch["_id"])
        fan_out_shard(batch["_id"])


def _deliver_some() -> None:
    async def run() -> None:
        await open_channels()
        try:
            for batch in (await asyncio.to_thread(world.unclaimed))[:30]:
                if random.random() < 0.1:
                    await asyncio.to_thread(_crash, batch["_id"])
                await deliver_batch(batch["_id"])
        finally:
            await close_channels()

    asyncio.run(run())


def _crash(batch: ObjectId) -> None:
    """A worker claims the batch, unless somebody was faster, and dies."""
    if claim(batch, 30) is not None:
        world.end_lease(batch)


def _dispatch() -> None:
    world.sweep()


def _come_and_go(traders: list[Any]) -> Callable[[], None]:
    def change() -> None:
        trader = random.choice(traders)
        follower = world.make_follower(trader, "fcm", since=clock.now())
        leaving = Follow.objects.filter(trader=trader, ended_at=None).order_by("?").first()
        assert leaving is not None
        Follow.objects.filter(pk=leaving.pk).update(ended_at=clock.now())
        if random.random() < 0.3:
            follower.delete()

    return change
