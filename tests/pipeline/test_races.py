"""The races of the claim protocol. Each was seen to fail with its guard removed, here or in test_guards.py, which looks
at each guard alone.

The numbers are those of docs/protocol.md.
"""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo.collection import Collection
from pymongo.errors import AutoReconnect

from delivery import deliver, dispatcher, fan_out, statements
from delivery.fan_out import fan_out_shard
from delivery.guards.gate import Permit
from delivery.lease import Lease, LeaseLostError, claim
from delivery.models import Batch
from delivery.statements import Patch
from delivery.vendors import close_channels, open_channels, open_vendor
from devstack.vendors.client import Sandbox
from followers import clock
from followers.mongo import collection
from notifications import statements as notifications
from tests.pipeline import world
from tests.pipeline.world import crash_in, deliver_once, free_all_rows

pytestmark = pytest.mark.django_db(transaction=True)


def test_1_backlog_longer_than_any_grace_keeps_every_hint_valid(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    hinted = _hints_noted(monkeypatch)
    trader = world.make_trader()
    world.make_follower(trader, "fcm")
    event = world.trade(trader)
    world.fan_out(event)
    (batch,) = world.unclaimed()

    for minutes in range(1, 20):
        world.sweep(after_seconds=minutes * 61)

    assert set(hinted) == {batch["_id"]}
    assert [b["_id"] for b in world.unclaimed()] == [batch["_id"]]
    world.deliver_all()
    assert [row["state"] for row in world.alerts(event)] == ["delivered"]


def test_2_two_channels_that_record_at_the_same_time_keep_each_others_retry(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm", "sms")
    event = world.trade(trader)
    world.fan_out(event)
    fcm, sms = sorted(world.unclaimed(), key=lambda b: b["channel"])
    rows = {b["channel"]: statements.load(b) for b in (fcm, sms)}  # Both have read before either writes.
    soon, later = clock.now() + timedelta(seconds=5), clock.now() + timedelta(seconds=50)

    for batch, at in ((fcm, soon), (sms, later)):
        (row,) = rows[batch["channel"]]
        statements.record(batch["_id"], [Patch(row["_id"], {"batch": None, "next_attempt_at": at}, spent=1)])

    stored = world.alert(event, follower)
    assert world.delivery(stored, "fcm")["next_attempt_at"] == soon.replace(tzinfo=None)
    assert world.delivery(stored, "sms")["next_attempt_at"] == later.replace(tzinfo=None)
    assert stored["wake_at"] == soon.replace(tzinfo=None)


def test_3_recorded_retry_is_not_taken_for_an_unknown_outcome(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendors.behave("twilio", rules=[{"match": {"first_n": 1}, "code": "throttled", "retry_after": 1}])
    trader = world.make_trader()
    follower = world.make_follower(trader, "sms")
    event = world.trade(trader)
    world.fan_out(event)
    (batch,) = world.unclaimed()
    monkeypatch.setattr(statements, "finish", lambda batch, now: False)  # The worker dies before it finishes the batch.
    world.deliver_all()
    monkeypatch.undo()

    world.end_lease(batch["_id"])
    world.sweep()

    assert world.delivery(world.alert(event, follower), "sms")["state"] == "queued"


def test_4_paused_worker_starts_nothing_after_its_lease(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "sms")
    event = world.trade(trader)
    world.fan_out(event)
    (batch,) = world.unclaimed()
    lease = claim(batch["_id"], 30)
    assert lease is not None
    lease._started -= 25  # The process was paused for so long between its claim and its sends.

    asyncio.run(_deliver_under(lease))

    assert vendors.stats("twilio")["requests"] == 0
    waiting = world.delivery(world.alert(event, follower), "sms")
    assert (waiting["state"], waiting["batch"], waiting["attempts"]) == ("queued", None, 0)


def test_4_outcome_of_a_worker_that_lost_its_lease_is_not_written(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "sms")
    event = world.trade(trader)
    world.fan_out(event)
    (batch,) = world.unclaimed()
    lease = claim(batch["_id"], 30)
    assert lease is not None
    world.end_lease(batch["_id"])
    world.sweep()
    assert world.delivery(world.alert(event, follower), "sms")["state"] == "unknown"

    row = world.alert(event, follower)
    statements.record(batch["_id"], [Patch(row["_id"], {"state": "sent", "batch": None}, spent=1)])

    assert world.delivery(world.alert(event, follower), "sms")["state"] == "unknown"
    with pytest.raises(LeaseLostError):
        lease.renew()
    assert lease.remaining == 0


def test_5_two_dispatchers_never_batch_the_same_row_twice(vendors: Sandbox) -> None:
    trader = world.make_trader()
    for _ in range(10):
        world.make_follower(trader, "sms")
    event = world.trade(trader)
    world.fan_out(event)
    free_all_rows()
    now = clock.now()
    stale = statements.due_rows("high", now, 100)
    assert len(stale) == 10

    together = threading.Barrier(2)

    def dispatch() -> None:
        together.wait()
        dispatcher._rebatch(stale, "high", now, dispatcher.Sweep())

    threads = [threading.Thread(target=dispatch) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    world.deliver_all()
    assert {row["state"] for row in world.alerts(event)} == {"delivered"}
    assert vendors.stats("twilio")["accepted"] == 10


def test_5_batch_is_never_seen_before_its_rows_carry_it(vendors: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    trader = world.make_trader()
    world.make_follower(trader, "fcm")
    event = world.trade(trader)
    world.fan_out(event)
    free_all_rows()
    update_many = Collection.update_many
    seen: list[int] = []

    def look_first(self: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("session") is not None:  # Between the insert of the batch and the naming of its rows.
            seen.append(len(world.unclaimed()))
            world.deliver_all()
        return update_many(self, *args, **kwargs)

    monkeypatch.setattr(Collection, "update_many", look_first)
    world.sweep()
    monkeypatch.undo()

    assert seen == [0]
    world.deliver_all()
    assert [row["state"] for row in world.alerts(event)] == ["delivered"]


def test_6_claim_whose_answer_was_lost_is_still_ours(vendors: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    trader = world.make_trader()
    world.make_follower(trader, "sms")
    event = world.trade(trader)
    world.fan_out(event)
    (batch,) = world.unclaimed()
    find_one_and_update = Collection.find_one_and_update
    calls: list[int] = []

    def lose_the_answer(self: Any, *args: Any, **kwargs: Any) -> Any:
        answer = find_one_and_update(self, *args, **kwargs)
        calls.append(1)
        if len(calls) == 1:
            raise AutoReconnect("the connection broke after the server had claimed")
        return answer

    monkeypatch.setattr(Collection, "find_one_and_update", lose_the_answer)
    lease = claim(batch["_id"], 30)

    assert lease is not None
    assert len(calls) == 2
    assert lease.batch["token"] == world.batch(batch["_id"])["token"]


def test_6_what_precedes_an_offset_a_claim_and_an_outcome_are_durable(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: dict[str, set[Any]] = {}

    def note(name: str) -> None:
        original = getattr(Collection, name)

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            concern = self.write_concern.document
            written.setdefault(f"{self.name}.{name}", set()).add((concern["w"], concern["j"]))
            return original(self, *args, **kwargs)

        monkeypatch.setattr(Collection, name, call)

    trader = world.make_trader()
    world.make_follower(trader, "fcm")
    for name in ("insert_many", "find_one_and_update", "update_many"):
        note(name)
    shards = world.take_in_trades(world.trade(trader))
    fan_out_shard(shards[0]["_id"])
    world.deliver_all()

    waits_for_the_next_write = {  # Which confirms them; see followers.mongo.one_primary.
        "notifications_tradeevent.insert_many": {(1, False)},
        "delivery_batch.insert_many": {("majority", True), (1, False)},  # A shard's batch, and those of its alerts.
        "notifications_inappentry.insert_many": {(1, False)},
    }
    others = {call: concerns for call, concerns in written.items() if call not in waits_for_the_next_write}
    assert {call: concerns for call, concerns in others.items() if concerns != {("majority", True)}} == {}
    assert {call: written[call] for call in waits_for_the_next_write} == waits_for_the_next_write
    assert set(written) >= {
        "notifications_tradeevent.insert_many",
        "delivery_batch.insert_many",
        "notifications_notification.insert_many",
        "notifications_inappentry.insert_many",
        "delivery_batch.find_one_and_update",  # Claims.
        "notifications_notification.update_many",  # Outcomes.
    }


def test_7_event_is_done_only_when_every_shard_is(vendors: Sandbox, settings: Any) -> None:
    settings.FAN_OUT_SINGLE_SHARD_MAX = 1
    trader = world.make_trader()
    for _ in range(4):
        world.make_follower(trader)
    event = world.trade(trader)
    shards = world.take_in_trades(event)
    lost = shards[2]

    for shard in (*shards[:2], *shards[3:]):
        fan_out_shard(shard["_id"])
    for again in range(3):  # The same shards over and over must not stand in for the missing one.
        notifications.finish_shard(world.stored_event(event)["_id"], again if again < 2 else 3, clock.now())
    assert world.stored_event(event)["state"] == "pending"

    fan_out_shard(lost["_id"])
    assert world.stored_event(event)["state"] == "done"
    assert len(world.alerts(event)) == 4


def test_7_batch_that_is_found_empty_waits_for_its_fan_out(vendors: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard is paused between its batches and its rows; a dispatcher's hint has the batch delivered meanwhile."""
    trader = world.make_trader()
    world.make_follower(trader, "fcm")
    event = world.trade(trader)
    (shard,) = world.take_in_trades(event)
    insert = notifications.insert_notifications

    def deliver_first(documents: list[Any]) -> None:
        if world.unclaimed():
            deliver_once()
        insert(documents)

    monkeypatch.setattr(notifications, "insert_notifications", deliver_first)
    fan_out_shard(shard["_id"])

    world.deliver_all()
    assert [row["state"] for row in world.alerts(event)] == ["delivered"]
    assert all(b["finished_at"] for b in collection(Batch).find())


def test_7_rows_stored_while_a_batch_is_being_loaded_are_sent(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows arrive, and the shard is done, between the first reading of the rows and the look at the shard."""
    trader = world.make_trader()
    world.make_follower(trader, "fcm")
    event = world.trade(trader)
    (shard,) = world.take_in_trades(event)
    held: list[list[Any]] = []
    monkeypatch.setattr(notifications, "insert_notifications", held.append)
    monkeypatch.setattr(notifications, "finish_shard", lambda *args: None)
    fan_out_shard(shard["_id"])
    monkeypatch.undo()
    read_event = notifications.event

    def complete_the_shard(event_oid: ObjectId) -> Any:
        notifications.insert_notifications(held[0])
        notifications.finish_shard(event_oid, 0, clock.now())
        return read_event(event_oid)

    monkeypatch.setattr(notifications, "event", complete_the_shard)
    deliver_once()
    monkeypatch.undo()

    world.deliver_all()
    assert [row["state"] for row in world.alerts(event)] == ["delivered"]


@pytest.mark.parametrize("newer_first", [True, False])
def test_8_older_trade_that_is_late_never_replaces_a_newer_entry(
    vendors: Sandbox, settings: Any, newer_first: bool
) -> None:
    settings.INAPP_KEEP = 1
    trader = world.make_trader()
    follower = world.make_follower(trader)
    older = world.trade(trader, executed_at=clock.now() - timedelta(minutes=2))
    newer = world.trade(trader, executed_at=clock.now() - timedelta(minutes=1))

    for event in (newer, older) if newer_first else (older, newer):
        world.fan_out(event)

    assert [e["event_key"] for e in world.entries(follower)] == [newer["eventId"]]


@pytest.mark.parametrize("newer_first", [True, False])
def test_8_newest_fill_of_an_order_is_the_one_that_stays(vendors: Sandbox, newer_first: bool) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader)
    older = world.trade(trader, orderId="O-1", executed_at=clock.now() - timedelta(minutes=2))
    newer = world.trade(trader, orderId="O-1", executed_at=clock.now() - timedelta(minutes=1))
    other = world.trade(trader, orderId="O-2", executed_at=clock.now() - timedelta(minutes=3))

    for event in (other, newer, older) if newer_first else (other, older, newer):
        world.fan_out(event)

    assert [e["event_key"] for e in world.entries(follower)] == [newer["eventId"], other["eventId"]]


def test_10_entry_fanned_out_after_its_exit_is_withdrawn(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm")
    entry = world.trade(trader, executed_at=clock.now() - timedelta(minutes=2))
    exit_ = world.trade(trader, action="CLOSE", side="SELL", executed_at=clock.now() - timedelta(minutes=1))

    world.fan_out(exit_)
    world.fan_out(entry)
    world.deliver_all()

    row = world.alert(entry, follower)
    assert (row["state"], world.delivery(row, "fcm")["error_code"]) == ("cancelled", "superseded_by_exit")
    assert row["superseded_by"] == exit_["eventId"]
    assert [m["body"]["data"]["action"] for m in vendors.accepted("fcm")] == ["CLOSE"]


@pytest.mark.parametrize("when", ["before the rows", "after the rows"])
def test_10_entry_inserted_while_its_exit_fans_out_is_withdrawn(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm")
    entry = world.trade(trader, executed_at=clock.now() - timedelta(minutes=2))
    exit_ = world.trade(trader, action="CLOSE", side="SELL", executed_at=clock.now() - timedelta(minutes=1))
    (shard,) = world.take_in_trades(entry)
    insert = notifications.insert_notifications

    def fan_the_exit_out_too(documents: list[Any]) -> None:
        monkeypatch.setattr(notifications, "insert_notifications", insert)
        if when == "before the rows":
            world.fan_out(exit_)
            insert(documents)
        else:
            insert(documents)
            world.fan_out(exit_)

    monkeypatch.setattr(notifications, "insert_notifications", fan_the_exit_out_too)
    fan_out_shard(shard["_id"])
    world.deliver_all()

    assert world.delivery(world.alert(entry, follower), "fcm")["state"] == "cancelled"
    assert [m["body"]["data"]["action"] for m in vendors.accepted("fcm")] == ["CLOSE"]


def test_10_entry_is_not_sent_between_its_insert_and_its_own_look_for_an_exit(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its fan-out is paused after the insert; a dispatcher's hint has the batch claimed before the mark is made."""
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm")
    entry = world.trade(trader, executed_at=clock.now() - timedelta(minutes=2))
    exit_ = world.trade(trader, action="CLOSE", side="SELL", executed_at=clock.now() - timedelta(minutes=1))
    (shard,) = world.take_in_trades(entry)
    insert = notifications.insert_notifications

    def pause_after_insert(documents: list[Any]) -> None:
        monkeypatch.setattr(notifications, "insert_notifications", insert)
        world.fan_out(exit_)
        insert(documents)
        deliver_once()

    monkeypatch.setattr(notifications, "insert_notifications", pause_after_insert)
    fan_out_shard(shard["_id"])

    assert world.delivery(world.alert(entry, follower), "fcm")["state"] == "cancelled"
    assert [m["body"]["data"]["action"] for m in vendors.accepted("fcm")] == ["CLOSE"]


def test_10_exit_withdraws_what_waits_and_what_is_in_a_batch_but_not_what_was_sent(vendors: Sandbox) -> None:
    trader = world.make_trader()
    waiting, in_batch, sent = (world.make_follower(trader, "fcm") for _ in range(3))
    entry = world.trade(trader, executed_at=clock.now() - timedelta(minutes=2))
    world.fan_out(entry)
    (batch,) = world.unclaimed()
    ids = {f.pk: world.alert(entry, f)["_id"] for f in (waiting, sent)}
    soon = clock.now() + timedelta(minutes=5)
    statements.record(batch["_id"], [Patch(ids[waiting.pk], {"batch": None, "next_attempt_at": soon}, spent=1)])
    statements.record(batch["_id"], [Patch(ids[sent.pk], {"batch": None, "state": "sent", "next_attempt_at": None})])

    world.fan_out(world.trade(trader, action="CLOSE", side="SELL"))
    assert world.alert(entry, waiting)["state"] == "cancelled"
    assert world.alert(entry, in_batch)["state"] == "pending"
    world.deliver_all()

    assert [world.alert(entry, f)["state"] for f in (waiting, in_batch, sent)] == [
        "cancelled",
        "cancelled",
        "delivered",
    ]


def test_10_late_exit_leaves_a_newer_entry_alone(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm")
    late_exit = world.trade(trader, action="CLOSE", side="SELL", executed_at=clock.now() - timedelta(minutes=2))
    newer = world.trade(trader, executed_at=clock.now() - timedelta(minutes=1))
    other_instrument = world.trade(trader, symbol="TCS", executed_at=clock.now() - timedelta(minutes=3))

    world.fan_out(newer, other_instrument)
    world.fan_out(late_exit)
    world.deliver_all()

    assert world.alert(newer, follower)["state"] == "delivered"
    assert world.alert(other_instrument, follower)["state"] == "delivered"


def test_11_row_that_crashes_its_worker_every_time_is_sent_alone_and_fails_in_the_end(vendors: Sandbox) -> None:
    trader = world.make_trader()
    culprit, *others = [world.make_follower(trader, "fcm") for _ in range(3)]
    event = world.trade(trader)
    world.fan_out(event)
    (batch,) = world.unclaimed()
    crash_in(batch["_id"])

    world.sweep()
    (together,) = world.unclaimed()
    assert len(together["ids"]) == 3
    crash_in(together["_id"])
    world.sweep()
    singles = world.unclaimed()
    assert [len(b["ids"]) for b in singles] == [1, 1, 1]

    bad = world.alert(event, culprit)["_id"]
    for _ in range(20):
        for single in world.unclaimed():
            if single["ids"] == [bad]:
                crash_in(single["_id"])
        world.deliver_all()
        world.sweep()

    failed = world.delivery(world.alert(event, culprit), "fcm")
    assert (failed["state"], failed["attempts"], failed["error_code"]) == ("unknown", 15, "attempts_exhausted")
    assert {world.alert(event, f)["state"] for f in others} == {"delivered"}


def test_11_shard_that_fails_every_time_is_given_up_and_named(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.SHARD_MAX_FAILURES = 3
    trader = world.make_trader()
    world.make_follower(trader, "fcm")
    event = world.trade(trader)
    (shard,) = world.take_in_trades(event)

    def fail(*args: Any) -> None:
        raise ValueError("this shard cannot be written")

    monkeypatch.setattr(fan_out, "_run", fail)
    for _ in range(5):
        fan_out_shard(shard["_id"])

    stored = world.batch(shard["_id"])
    assert stored["next_look_at"] is None
    assert "cannot be written" in stored["error"]
    assert world.stored_event(event)["state"] == "failed"


def test_11_shard_whose_worker_dies_every_time_is_given_up_too(vendors: Sandbox, settings: Any) -> None:
    settings.SHARD_MAX_FAILURES = 3
    trader = world.make_trader()
    world.make_follower(trader, "fcm")
    event = world.trade(trader)
    (shard,) = world.take_in_trades(event)

    for _ in range(3):
        crash_in(shard["_id"])
        world.sweep()

    assert world.stored_event(event)["state"] == "failed"
    assert world.batch(shard["_id"])["next_look_at"] is None


def test_12_waiting_batch_costs_one_document_however_many_rows_it_holds(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    trader = world.make_trader()
    for _ in range(20):
        world.make_follower(trader, "fcm")
    event = world.trade(trader)
    world.fan_out(event)
    before = world.alerts(event)
    world.refuse_batches(monkeypatch)

    for minute in range(1, 5):
        world.sweep(after_seconds=60 * minute)
        deliver_once()
        assert statements.due_rows("high", clock.now() + timedelta(minutes=minute), 100) == []

    assert world.alerts(event) == before
    (batch,) = world.unclaimed()
    assert clock.as_utc(batch["next_look_at"]) > clock.now()


def test_12_long_queue_gets_no_more_hints(vendors: Sandbox, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    hinted = _hints_noted(monkeypatch)
    monkeypatch.setattr(dispatcher, "queue_depths", lambda queues: dict.fromkeys(queues, settings.HINTS_MAX + 1))
    trader = world.make_trader()
    world.make_follower(trader, "fcm")
    world.fan_out(world.trade(trader))

    world.sweep(after_seconds=60)

    assert hinted == []
    assert world.unclaimed()[0]["hints"] == 0


def _hints_noted(monkeypatch: pytest.MonkeyPatch) -> list[ObjectId]:
    """The batches that dispatch_due hints, instead of hints in a queue."""
    hinted: list[ObjectId] = []

    def note(batches: list[Any]) -> list[Any]:
        hinted.extend(b["_id"] for b in batches)
        return []

    monkeypatch.setattr(dispatcher, "send_hints", note)
    return hinted


async def _deliver_under(lease: Lease) -> None:
    await open_channels()
    try:
        vendor = open_vendor(lease.batch["channel"])
        assert vendor is not None
        taken = await asyncio.to_thread(deliver.make_ready, lease, vendor.channel)
        assert taken is not None
        await deliver._deliver(taken, vendor, Permit())
    finally:
        await close_channels()
