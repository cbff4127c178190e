"""A backlog that is large: a sweep costs the same however much is waiting, and critical alerts overtake it."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo import monitoring

from delivery import broker, dispatcher, statements
from delivery.lease import claim
from delivery.models import Batch
from delivery.shares import shared
from devstack.stack import Stack
from devstack.vendors.client import Sandbox
from followers import clock
from followers.mongo import collection, database
from notifications.models import Notification
from tests.pipeline import world

pytestmark = pytest.mark.django_db(transaction=True)
Document = dict[str, Any]
WEIGHTS = {"critical": 70, "high": 20, "normal": 10}
WRITES = {"insert", "update", "delete", "findAndModify"}


# --- Shares ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        ({"critical": 900, "high": 900, "normal": 900}, {"critical": 70, "high": 20, "normal": 10}),
        ({"normal": 900}, {"critical": 0, "high": 0, "normal": 100}),
        ({"critical": 900, "normal": 900}, {"critical": 88, "high": 0, "normal": 12}),
        ({"critical": 30, "high": 900, "normal": 900}, {"critical": 30, "high": 47, "normal": 23}),
        ({"critical": 5, "high": 5, "normal": 5}, {"critical": 5, "high": 5, "normal": 5}),
        ({}, {"critical": 0, "high": 0, "normal": 0}),
    ],
)
def test_what_one_priority_leaves_unused_goes_to_the_others(wanted: dict[str, int], given: dict[str, int]) -> None:
    assert shared(100, wanted, WEIGHTS) == given


@pytest.mark.parametrize("total", range(1, 40))
def test_shares_are_never_more_than_there_is_nor_than_is_wanted(total: int) -> None:
    for wanted in ({"critical": 3, "high": 50, "normal": 1}, {"high": 50, "normal": 50}, {"critical": 7}):
        given = shared(total, wanted, WEIGHTS)
        assert sum(given.values()) == min(total, sum(wanted.values()))
        assert all(given[p] <= wanted.get(p, 0) for p in given)


# --- A sweep ---------------------------------------------------------------------------------------------------------
class Statements(monitoring.CommandListener):
    """The commands that reached MongoDB, and how many documents the writes changed."""

    def __init__(self) -> None:
        self.commands: Counter[str] = Counter()
        self.written = 0

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.commands[event.command_name] += 1

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        if event.command_name in WRITES:
            self.written += int(event.reply.get("nModified", event.reply.get("n", 1)))

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        return

    @property
    def writes(self) -> int:
        return sum(self.commands[name] for name in WRITES)


@pytest.fixture
def seen(stack: Stack) -> Iterator[Statements]:
    """Listens to the process's one client, which is open already."""
    listener = Statements()
    listeners: Any = database().client._event_listeners
    commands, enabled = listeners._EventListeners__command_listeners, listeners._EventListeners__enabled_for_commands
    listeners._EventListeners__command_listeners = [listener]
    listeners._EventListeners__enabled_for_commands = True
    yield listener
    listeners._EventListeners__command_listeners = commands
    listeners._EventListeners__enabled_for_commands = enabled


@pytest.fixture
def hinted(monkeypatch: pytest.MonkeyPatch) -> list[Document]:
    """The batches that were hinted, instead of hints in a queue."""
    sent: list[Document] = []

    def note(batches: list[Document]) -> list[Document]:
        sent.extend(batches)
        return []

    monkeypatch.setattr(dispatcher, "send_hints", note)
    return sent


def backlog(batches: int, ids: int, priority: str = "normal", **fields: Any) -> None:
    """Unclaimed batches that are due, inserted in bulk."""
    due = clock.now() - timedelta(seconds=1)
    for start in range(0, batches, 2_000):
        made = [
            {
                **statements.delivery_batch("fcm", priority, [ObjectId() for _ in range(ids)], due),
                "next_look_at": due,
                **fields,
            }
            for _ in range(min(2_000, batches - start))
        ]
        collection(Batch).insert_many(made, ordered=False)


def test_memory_of_a_sweep_does_not_grow_with_the_backlog(vendors: Sandbox, hinted: list[Document]) -> None:
    backlog(batches=20_000, ids=50)
    dispatcher.sweep_once(clock.now())
    hinted.clear()
    tracemalloc.start()
    try:
        assert dispatcher.sweep_once(clock.now()).hinted == 1_000
        hinted.clear()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000  # A thousand batches without their ids.


def test_12_waiting_batches_cost_a_few_statements_a_sweep_and_no_row_is_touched(
    vendors: Sandbox, seen: Statements, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    monkeypatch.setattr(dispatcher, "queue_depths", lambda queues: dict.fromkeys(queues, settings.HINTS_MAX + 1))
    trader = world.make_trader()
    world.make_follower(trader, "fcm")
    event = world.trade(trader)
    world.fan_out(event)
    before = world.alerts(event)
    backlog(batches=5_000, ids=2)
    now = clock.now()
    seen.commands.clear()
    seen.written = 0

    for second in range(10):
        dispatcher.sweep_once(now + timedelta(seconds=second))

    assert seen.writes <= 10  # One statement a sweep, for whatever waits behind a long queue.
    assert seen.written <= 5_001  # Each batch was put off once, and not looked at again at every sweep.
    assert world.alerts(event) == before


def test_hints_of_a_sweep_are_reserved_in_one_statement(
    vendors: Sandbox, seen: Statements, hinted: list[Document]
) -> None:
    backlog(batches=700, ids=2)
    seen.commands.clear()
    assert dispatcher.sweep_once(clock.now()).hinted == 700
    assert seen.writes == 1
    assert len({b["_id"] for b in hinted}) == 700


def test_batches_that_another_dispatcher_or_a_worker_took_meanwhile_get_no_hint(
    vendors: Sandbox, hinted: list[Document]
) -> None:
    backlog(batches=3, ids=1)
    now = clock.now()
    found = statements.due_batches("normal", now, 10)
    assert claim(found[0]["_id"], 30) is not None
    statements.put_off_hints([found[1]["_id"]], now + timedelta(seconds=60))
    collection(Batch).update_one({"_id": found[1]["_id"]}, {"$set": {"finished_at": now}})

    dispatcher._look_at(found, now, dispatcher.Sweep())

    assert [b["_id"] for b in hinted] == [found[2]["_id"]]


def test_queues_are_asked_for_their_length_only_where_something_is_about_to_be_hinted(
    vendors: Sandbox, hinted: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    original = broker.queue_depths

    def note(queues: list[str]) -> dict[str, int]:
        asked.append(list(queues))
        return original(queues)

    monkeypatch.setattr(dispatcher, "queue_depths", note)
    dispatcher.sweep_once(clock.now())
    assert asked == []

    backlog(batches=5, ids=1, priority="normal")
    backlog(batches=5, ids=1, priority="critical")
    dispatcher.sweep_once(clock.now())

    waiting = {b["priority"]: broker.queue_of(b) for b in hinted}
    assert asked == [[waiting["critical"]], [waiting["normal"]]]


def test_a_critical_batch_is_hinted_in_the_first_sweep_whatever_waits(
    vendors: Sandbox, hinted: list[Document], settings: Any
) -> None:
    settings.DISPATCH_SWEEP = 50
    backlog(batches=1_000, ids=1, priority="normal")
    backlog(batches=3, ids=1, priority="critical")

    sweep = dispatcher.sweep_once(clock.now())

    assert [b["priority"] for b in hinted[:3]] == ["critical"] * 3
    assert Counter(b["priority"] for b in hinted) == {"critical": 3, "normal": 47}
    assert sweep.is_full


def test_normal_rows_get_what_the_others_leave(vendors: Sandbox, hinted: list[Document], settings: Any) -> None:
    settings.DISPATCH_SWEEP = 10
    for _ in range(12):
        trader = world.make_trader()
        world.make_follower(trader, "fcm")
        world.fan_out({**world.trade(trader), "priority": "normal"})
    world.free_all_rows()

    assert world.sweep().rebatched == 10
    assert collection(Notification).count_documents({}) == 12
