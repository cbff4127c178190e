"""The guards of the protocol that another guard would hide: each is looked at alone.

The numbers are those of docs/protocol.md.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from delivery import dispatcher, statements
from delivery.fan_out import fan_out_shard
from delivery.lease import Lease, claim, take_over
from delivery.models import Batch
from devstack.vendors.client import Sandbox
from followers import clock
from followers.mongo import collection
from notifications import statements as notifications
from tests.pipeline import world
from tests.pipeline.world import WorkerDied, crash_in, deliver_once, free_all_rows

pytestmark = pytest.mark.django_db(transaction=True)


def test_5_stale_reading_takes_no_row_out_of_its_batch(vendors: Sandbox) -> None:
    trader = world.make_trader()
    for _ in range(3):
        world.make_follower(trader, "sms")
    event = world.trade(trader)
    world.fan_out(event)
    free_all_rows()
    now = clock.now()
    stale = statements.due_rows("high", now, 100)
    dispatcher._rebatch(stale, "high", now, dispatcher.Sweep())
    first = [world.delivery(row, "sms")["batch"] for row in world.alerts(event)]

    dispatcher._rebatch(stale, "high", now, dispatcher.Sweep())

    assert [world.delivery(row, "sms")["batch"] for row in world.alerts(event)] == first


def test_7_batch_that_is_found_half_full_waits_for_its_fan_out(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    trader = world.make_trader()
    for _ in range(2):
        world.make_follower(trader, "fcm")
    event = world.trade(trader)
    (shard,) = world.take_in_trades(event)
    insert = notifications.insert_notifications

    def deliver_between(documents: list[Any]) -> None:
        insert(documents[:1])
        deliver_once()
        insert(documents[1:])

    monkeypatch.setattr(notifications, "insert_notifications", deliver_between)
    fan_out_shard(shard["_id"])
    world.deliver_all()
    assert [row["state"] for row in world.alerts(event)] == ["delivered"] * 2


def _lost() -> tuple[Lease, Any]:
    """A worker's lease that has run out, and its batch as a dispatcher then reads it."""
    trader = world.make_trader()
    world.make_follower(trader, "sms")
    world.fan_out(world.trade(trader))
    (batch,) = world.unclaimed()
    lease = claim(batch["_id"], 30)
    assert lease is not None
    world.end_lease(batch["_id"])
    return lease, world.batch(batch["_id"])


def test_4_worker_that_lost_its_batch_cannot_renew_give_back_or_finish_it(vendors: Sandbox) -> None:
    lease, seen = _lost()
    assert take_over(seen, 30) is not None
    held = world.batch(seen["_id"])
    assert not statements.renew(lease.batch, 30)
    assert not statements.give_back(lease.batch, clock.now())
    assert not statements.finish(lease.batch, clock.now())
    assert world.batch(seen["_id"]) == held


def test_4_one_of_two_dispatchers_takes_over_and_no_hint_claims_what_is_held(vendors: Sandbox) -> None:
    _lease, seen = _lost()
    assert claim(seen["_id"], 30) is None
    assert take_over(seen, 30) is not None
    world.end_lease(seen["_id"])
    assert take_over(seen, 30) is None


def test_4_lease_that_was_renewed_since_the_dispatcher_read_it_is_left_alone(vendors: Sandbox) -> None:
    lease, seen = _lost()
    lease.renew()
    assert take_over(seen, 30) is None


def test_6_renewals_and_marks_are_durable_too(vendors: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    lease, _seen = _lost()
    weak: list[Any] = []

    def note(model: Any) -> Any:
        weak.append(model)
        return collection(model)

    monkeypatch.setattr(statements, "quick", note)
    monkeypatch.setattr(notifications, "quick", note)
    statements.renew(lease.batch, 30)
    statements.requeue_rows(lease.batch, lease.batch["ids"], clock.now(), 5)
    notifications.mark_superseded({}, "E-x")
    assert weak == []


def test_8_ties_of_time_go_by_event_id(vendors: Sandbox, settings: Any) -> None:
    settings.INAPP_KEEP = 1
    at = clock.now() - timedelta(minutes=1)
    for flip in (False, True):
        for order in (None, "O-1"):
            trader = world.make_trader()
            follower = world.make_follower(trader)
            details = {"orderId": order} if order else {}
            settings.INAPP_KEEP = 5 if order else 1
            a, b = (world.trade(trader, executed_at=at, **details) for _ in range(2))
            for event in (b, a) if flip else (a, b):
                world.fan_out(event)
            newest = max(a["eventId"], b["eventId"])
            assert [e["event_key"] for e in world.entries(follower)] == [newest], (flip, order)


def test_10_tie_of_time_goes_by_event_id(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm")
    at = clock.now() - timedelta(minutes=1)
    entry = world.trade(trader, executed_at=at)
    exit_ = world.trade(trader, action="CLOSE", side="SELL", executed_at=at)
    assert entry["eventId"] < exit_["eventId"]
    world.fan_out(exit_)
    world.fan_out(entry)
    assert world.alert(entry, follower)["state"] == "cancelled"


def test_10_withdrawn_entry_leaves_no_trace_in_inbox(vendors: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm")
    entry = world.trade(trader, executed_at=clock.now() - timedelta(minutes=2))
    exit_ = world.trade(trader, action="CLOSE", side="SELL", executed_at=clock.now() - timedelta(minutes=1))
    (shard,) = world.take_in_trades(entry)
    insert = notifications.insert_notifications

    def exit_too(documents: list[Any]) -> None:
        monkeypatch.setattr(notifications, "insert_notifications", insert)
        world.fan_out(exit_)
        insert(documents)

    monkeypatch.setattr(notifications, "insert_notifications", exit_too)
    fan_out_shard(shard["_id"])
    row = world.alert(entry, follower)
    assert row["superseded_by"] == exit_["eventId"]
    assert [e["event_key"] for e in world.entries(follower)] == [exit_["eventId"]]


def test_10_exit_marks_rows_in_batches(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm")
    entry = world.trade(trader, executed_at=clock.now() - timedelta(minutes=2))
    world.fan_out(entry)
    exit_ = world.trade(trader, action="CLOSE", side="SELL")
    world.fan_out(exit_)
    assert world.alert(entry, follower)["superseded_by"] == exit_["eventId"]


def test_10_entry_after_exit_makes_no_batch_and_no_inbox_line(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm")
    entry = world.trade(trader, executed_at=clock.now() - timedelta(minutes=2))
    world.fan_out(world.trade(trader, action="CLOSE", side="SELL", executed_at=clock.now() - timedelta(minutes=1)))
    world.deliver_all()
    (shard,) = world.take_in_trades(entry)
    inserted: list[Any] = []
    monkeypatch.setattr(statements, "insert_batches", inserted.extend)
    fan_out_shard(shard["_id"])
    assert inserted == []
    assert world.alert(entry, follower)["state"] == "cancelled"


def test_11_suspects_never_travel_with_others(vendors: Sandbox) -> None:
    trader = world.make_trader()
    for _ in range(30):
        world.make_follower(trader, "fcm")
    event = world.trade(trader)
    world.fan_out(event)
    (batch,) = world.unclaimed()
    crash_in(batch["_id"])
    world.sweep()
    assert sorted(len(b["ids"]) for b in world.unclaimed()) == [10, 20]


def test_12_rebatched_rows_wait_in_their_batch(vendors: Sandbox) -> None:
    trader = world.make_trader()
    for _ in range(3):
        world.make_follower(trader, "fcm")
    world.fan_out(world.trade(trader))
    free_all_rows()
    world.sweep()
    assert len(world.unclaimed()) == 1
    assert statements.due_rows("high", clock.now() + timedelta(minutes=1), 100) == []


def test_12_full_worker_postpones(vendors: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    trader = world.make_trader()
    world.make_follower(trader, "fcm")
    world.fan_out(world.trade(trader))
    (batch,) = world.unclaimed()
    collection(Batch).update_one({"_id": batch["_id"]}, {"$set": {"next_look_at": clock.now() + timedelta(minutes=9)}})
    world.refuse_batches(monkeypatch)
    deliver_once()
    (batch,) = world.unclaimed()
    wait = clock.as_utc(batch["next_look_at"]) - clock.now()
    assert timedelta(0) < wait <= timedelta(seconds=5)


def test_12_hints_of_one_sweep_count(vendors: Sandbox, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    settings.HINTS_MAX = 1
    monkeypatch.setattr(dispatcher, "queue_depths", lambda queues: dict.fromkeys(queues, 0))
    monkeypatch.setattr(dispatcher, "send_hints", lambda batches: [])
    for _ in range(4):
        trader = world.make_trader()
        world.make_follower(trader, "fcm")
        world.fan_out(world.trade(trader))
    assert world.sweep(after_seconds=60).hinted == 2


def test_7_worker_that_dies_before_its_shard_is_marked_leaves_it_to_be_run_again(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    trader = world.make_trader()
    world.make_follower(trader, "fcm")
    event = world.trade(trader)
    (shard,) = world.take_in_trades(event)

    def die(*args: Any) -> None:
        raise WorkerDied

    with monkeypatch.context() as patch:
        patch.setattr(notifications, "finish_shard", die)
        with pytest.raises(WorkerDied):
            fan_out_shard(shard["_id"])
    world.end_lease(shard["_id"])
    world.sweep()
    fan_out_shard(shard["_id"])
    assert world.stored_event(event)["state"] == "done"


def test_10_mark_alone_withdraws(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm")
    entry = world.trade(trader, executed_at=clock.now() - timedelta(minutes=2))
    world.fan_out(entry)
    notifications.mark_superseded({"_id": world.alert(entry, follower)["_id"]}, "E-exit")
    world.deliver_all()
    assert world.alert(entry, follower)["state"] == "cancelled"


def test_10_community_after_exit_makes_no_batch(vendors: Sandbox) -> None:
    trader = world.make_trader()
    world.add_endpoint("discord", trader=trader)
    entry = world.trade(trader, executed_at=clock.now() - timedelta(minutes=2))
    world.fan_out(world.trade(trader, action="CLOSE", side="SELL", executed_at=clock.now() - timedelta(minutes=1)))
    world.deliver_all()
    world.fan_out(entry)
    assert world.unclaimed() == []
    assert world.alert(entry, None)["state"] == "cancelled"


def test_11_suspects_and_innocents_share_no_batch(vendors: Sandbox) -> None:
    trader = world.make_trader()
    for _ in range(3):
        world.make_follower(trader, "fcm")
    suspect, innocent = world.trade(trader), world.trade(trader)
    world.fan_out(innocent)
    free_all_rows()
    world.fan_out(suspect)
    (batch,) = world.unclaimed()
    crash_in(batch["_id"])
    world.sweep()  # Settles the orphans; rows are woken in the same sweep.
    suspects = {r["_id"] for r in world.alerts(suspect)}
    made = [set(b["ids"]) for b in world.unclaimed()]
    assert made != []
    assert all(ids <= suspects or not ids & suspects for ids in made)
