"""What dispatch_due does, one test for each line of its table."""

from __future__ import annotations

import itertools
import threading
from datetime import timedelta
from typing import Any

import pytest

from delivery import dispatcher, statements
from delivery.fan_out import fan_out_shard
from delivery.lease import claim
from delivery.models import Batch
from delivery.statements import Patch
from devstack.vendors.client import Sandbox
from followers import clock
from followers.mongo import collection
from tests.pipeline import world

pytestmark = pytest.mark.django_db(transaction=True)
Document = dict[str, Any]


@pytest.fixture
def hinted(monkeypatch: pytest.MonkeyPatch) -> list[Document]:
    """The batches that were hinted, instead of hints in a queue."""
    batches: list[Document] = []

    def note(sent: list[Document]) -> list[Document]:
        batches.extend(sent)
        return []

    monkeypatch.setattr(dispatcher, "send_hints", note)
    return batches


def one_alert(*channels: str, **details: Any) -> tuple[Document, Any]:
    trader = world.make_trader()
    follower = world.make_follower(trader, *channels)
    event = world.trade(trader, **details)
    world.fan_out(event)
    return event, follower


def free(event: Document, follower: Any, due_in_seconds: float = 0) -> None:
    """Takes the alert's deliveries out of their batches, as a recorded retry does."""
    row = world.alert(event, follower)
    at = clock.now() + timedelta(seconds=due_in_seconds)
    for batch in world.unclaimed():
        statements.record(batch["_id"], [Patch(row["_id"], {"batch": None, "next_attempt_at": at})])
        collection(Batch).delete_one({"_id": batch["_id"]})


def expire(event: Document) -> None:
    """The validity ends now; what wakes at its end, wakes now."""
    past = clock.now() - timedelta(seconds=1)
    change = {"$set": {"expires_at": past, "wake_at": past, "deliveries.$[q].next_attempt_at": past}}
    collection(world.Notification).update_many(
        {"event_key": event["eventId"]}, change, array_filters=[{"q.state": "queued"}]
    )


def test_batch_that_nobody_claimed_is_hinted_again_later_and_later(vendors: Sandbox, hinted: list[Document]) -> None:
    one_alert("fcm")
    start = clock.now()
    looks = []
    for second in range(300):
        now = start + timedelta(seconds=second)
        if dispatcher.sweep_once(now).hinted:
            looks.append(second)

    gaps = [later - earlier for earlier, later in itertools.pairwise(looks)]
    assert looks[0] <= 6
    assert gaps[:5] == [5, 10, 20, 40, 60]
    assert set(gaps[5:]) <= {60}
    assert len({b["_id"] for b in hinted}) == 1


def test_two_dispatchers_send_one_hint(vendors: Sandbox, hinted: list[Document]) -> None:
    one_alert("fcm")
    now = clock.now() + timedelta(seconds=6)
    found = world.unclaimed()

    for _ in range(2):  # Both read the batch before either of them hinted.
        dispatcher._look_at(found, now, dispatcher.Sweep())

    assert len(hinted) == 1


def test_hint_that_cannot_be_enqueued_does_not_lengthen_the_wait(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "send_hints", list)
    one_alert("fcm")
    for seconds in (6, 12, 18):
        world.sweep(after_seconds=seconds)
        (batch,) = world.unclaimed()
        assert batch["hints"] == 0
        assert clock.as_utc(batch["next_look_at"]) <= clock.now() + timedelta(seconds=seconds + 5)


@pytest.mark.parametrize("channel", ["apns", "fcm", "onesignal", "discord_dm"])
def test_dead_workers_batch_is_sent_again_where_the_vendor_knows_the_key(vendors: Sandbox, channel: str) -> None:
    event, follower = one_alert(channel)
    (batch,) = world.unclaimed()
    assert claim(batch["_id"], 30) is not None
    world.end_lease(batch["_id"])

    world.sweep()

    name = channel.removesuffix("_dm")
    waiting = world.delivery(world.alert(event, follower), name)
    assert (waiting["state"], waiting["attempts"], waiting["error_code"]) == ("queued", 1, "lease_lost")
    assert world.batch(batch["_id"])["finished_at"] is not None
    world.deliver_all()
    assert world.delivery(world.alert(event, follower), name)["state"] == "sent"


@pytest.mark.parametrize("channel", ["sms", "discord"])
def test_dead_workers_batch_is_unknown_where_a_repeat_would_be_seen_twice(vendors: Sandbox, channel: str) -> None:
    event, follower = one_alert(channel)
    (batch,) = world.unclaimed()
    assert claim(batch["_id"], 30) is not None
    world.end_lease(batch["_id"])

    world.sweep()
    world.sweep(after_seconds=3_600)
    world.deliver_all()

    row = world.alert(event, follower)
    unknown = world.delivery(row, channel)
    assert (unknown["state"], unknown["error_code"], row["state"]) == ("unknown", "crashed_in_send", "failed")
    assert world.accepted(vendors) == 0


def test_live_lease_is_left_alone(vendors: Sandbox, hinted: list[Document]) -> None:
    event, follower = one_alert("sms")
    (batch,) = world.unclaimed()
    lease = claim(batch["_id"], 30)
    assert lease is not None

    assert not world.sweep(after_seconds=29)

    assert world.batch(batch["_id"])["token"] == lease.batch["token"]
    assert world.delivery(world.alert(event, follower), "sms")["state"] == "queued"


def test_dead_workers_shard_is_run_again_by_whoever_comes_next(vendors: Sandbox) -> None:
    trader = world.make_trader()
    world.make_follower(trader)
    event = world.trade(trader)
    (shard,) = world.take_in_trades(event)
    assert claim(shard["_id"], 30) is not None
    world.end_lease(shard["_id"])

    world.sweep()
    assert fan_out_shard(shard["_id"]) is not None
    assert [row["state"] for row in world.alerts(event)] == ["delivered"]


def test_due_row_gets_a_new_batch_and_a_hint(vendors: Sandbox, hinted: list[Document]) -> None:
    event, follower = one_alert("fcm", "sms")
    free(event, follower)

    assert world.sweep().rebatched == 2

    row = world.alert(event, follower)
    assert {d["batch"] for d in row["deliveries"] if d["channel"] != "in_app"} == {b["_id"] for b in hinted}
    assert row["wake_at"] == row["expires_at"]  # From now on the batches do the waking.


def test_row_that_is_not_due_yet_sleeps_on(vendors: Sandbox) -> None:
    event, follower = one_alert("fcm")
    free(event, follower, due_in_seconds=60)
    assert not world.sweep()
    assert world.sweep(after_seconds=61).rebatched == 1


def test_row_past_its_validity_expires_without_a_batch(vendors: Sandbox) -> None:
    event, follower = one_alert("fcm")
    free(event, follower, due_in_seconds=60)
    expire(event)

    assert world.sweep().expired == 1

    row = world.alert(event, follower)
    assert (row["state"], row["wake_at"], world.delivery(row, "fcm")["error_code"]) == (
        "expired",
        None,
        "validity_over",
    )


def test_row_past_its_validity_in_a_batch_that_nobody_claimed_expires(vendors: Sandbox, hinted: list[Document]) -> None:
    event, follower = one_alert("sms")
    expire(event)

    assert world.sweep().expired == 1

    assert world.alert(event, follower)["state"] == "expired"
    world.deliver_all()
    assert vendors.stats("twilio")["requests"] == 0


def test_row_past_its_validity_waits_while_its_worker_lives_and_is_unknown_after_it_died(vendors: Sandbox) -> None:
    event, follower = one_alert("fcm")
    (batch,) = world.unclaimed()
    assert claim(batch["_id"], 30) is not None
    expire(event)

    sweep = world.sweep()
    assert (sweep.waiting, sweep.expired) == (1, 0)
    assert not world.sweep()  # It is not looked at again and again.

    world.end_lease(batch["_id"])
    world.sweep()
    row = world.alert(event, follower)
    assert (world.delivery(row, "fcm")["state"], row["state"]) == ("unknown", "failed")


def test_row_that_carries_a_finished_batch_expires_at_its_end(vendors: Sandbox) -> None:
    event, follower = one_alert("fcm")
    collection(Batch).update_many({}, {"$set": {"finished_at": clock.now(), "next_look_at": None}})
    expire(event)

    assert world.sweep().expired == 1
    assert world.alert(event, follower)["state"] == "expired"


def test_every_priority_gets_its_share_of_a_sweep(vendors: Sandbox, hinted: list[Document], settings: Any) -> None:
    settings.DISPATCH_SWEEP = 10
    for priority in ("critical", "high", "normal"):
        trader = world.make_trader()
        world.make_follower(trader, "fcm")
        for _ in range(12):
            world.fan_out({**world.trade(trader), "priority": priority})

    world.sweep(after_seconds=6)

    by_priority = [b["priority"] for b in hinted]
    assert by_priority == ["critical"] * 7 + ["high"] * 2 + ["normal"]


def test_sweeps_go_on_after_a_failure_and_say_so_once(
    monkeypatch: pytest.MonkeyPatch, settings: Any, capsys: Any
) -> None:
    settings.DISPATCH_INTERVAL_SECONDS = 0.01
    stop, sweeps = threading.Event(), []

    def fail_three_times(now: Any) -> dispatcher.Sweep:
        sweeps.append(now)
        if len(sweeps) <= 3:
            raise ConnectionError("MongoDB is away")
        stop.set()
        return dispatcher.Sweep()

    lines: list[str] = []
    monkeypatch.setattr(dispatcher, "sweep_once", fail_three_times)
    monkeypatch.setattr(dispatcher.logger, "exception", lambda line, **_: lines.append(line))
    dispatcher.run(stop)

    assert len(sweeps) == 4
    assert len(lines) == 1
