"""What all workers share of a vendor, seen in its own journal: its rate, its bulkheads, and who goes first."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import pytest

from delivery.choices import BatchKind
from delivery.models import Batch
from devstack.stack import Stack
from devstack.vendors.client import Sandbox
from followers import clock
from followers.mongo import collection
from notifications.models import Notification
from tests.delivery.kafka_topics import until
from tests.end_to_end.processes import Processes, wait_until
from tests.end_to_end.test_end_to_end import Publish, all_settled, audience
from tests.pipeline import world

pytestmark = [pytest.mark.django_db(transaction=True)]
EXIT: dict[str, Any] = {"action": "CLOSE", "side": "SELL", "positionBefore": "50", "positionAfter": "0"}


@pytest.fixture
def broker_url(stack: Stack) -> str:
    return stack.env["DRAMATIQ_BROKER_URL"]


def warm_up(processes: Processes, publish: Publish, channel: str) -> None:
    """Starts everything with two worker processes, and waits until an alert went through."""
    for command in ("consume_trades", "dispatch_due"):
        processes.manage(command)
    processes.workers(processes=2)
    trader = world.make_trader()
    world.make_follower(trader, channel)
    publish(world.trade(trader))
    wait_until(collection(Notification), all_settled(1), "every process at work")


def test_two_workers_keep_one_rate_and_each_its_bulkhead(
    processes: Processes, publish: Publish, vendors: Sandbox
) -> None:
    per_second, concurrency, size, slow_size = 50, 5, 200, 120
    trader, another = world.make_trader(), world.make_trader()
    audience(trader, size, channels=("sms",), all_reachable=True)
    audience(another, slow_size, channels=("sms",), all_reachable=True)
    processes.env |= {"SMS_RATE_PER_SECOND": str(per_second), "SMS_CONCURRENCY": str(concurrency)}
    warm_up(processes, publish, "sms")
    vendors.reset()
    rows = collection(Notification)

    # The last of 200 has its turn 3.98 s after the first one, whoever sends it. The first one's is after the trade.
    published = clock.now().timestamp()
    publish(world.trade(trader))
    wait_until(rows, all_settled(1 + size), "the SMS are sent")
    stats = vendors.stats("twilio")
    assert (stats["accepted"], stats["duplicates"]) == (size, 0)
    assert stats["last_accepted_at"] - published >= (size - 1) / per_second - 0.05
    assert stats["peak_in_flight"] <= 2 * concurrency

    # At 300 ms an answer the rate alone would keep 15 in flight.
    vendors.reset()
    vendors.behave("twilio", latency_ms=300)
    publish(world.trade(another))
    wait_until(rows, all_settled(1 + size + slow_size), "the slow SMS are sent")
    stats = vendors.stats("twilio")
    assert (stats["accepted"], stats["duplicates"]) == (slow_size, 0)
    assert stats["peak_in_flight"] <= 2 * concurrency, "None goes beyond its slots."
    assert len(collection(Batch).distinct("worker", {"kind": BatchKind.DELIVER})) == 2, "And both are at work."


def test_exits_overtake_a_backlog_across_workers_and_the_backlog_still_moves(
    processes: Processes, publish: Publish, vendors: Sandbox
) -> None:
    # Given 2,000 normal alerts in the queue, and a vendor that takes 300 a second.
    backlog, exit_size, exits, outstanding = 2_000, 100, 10, 4
    trader, leaver = world.make_trader(), world.make_trader()
    audience(trader, backlog, channels=("fcm",), all_reachable=True)
    audience(leaver, exit_size, channels=("fcm",), all_reachable=True)
    processes.env |= {"FCM_RATE_PER_SECOND": "300"}
    rows = collection(Notification)
    world.fan_out({**world.trade(trader), "priority": "normal"})
    assert rows.count_documents({"priority": "normal", "state": "pending"}) == backlog

    # When the workers come, one process of them for critical alerts alone, and exits keep coming.
    for command in ("consume_trades", "dispatch_due"):
        processes.manage(command)
    processes.manage("rundramatiq", "--processes", "1", "--priorities", "critical")
    processes.workers(processes=2)
    until(lambda: vendors.stats("fcm")["accepted"] > 0)
    journal: list[str] = []
    published: dict[str, int] = {}  # Exit → how long the journal was just after it was published.
    while len(published) < exits and normal_ones(journal, published) < backlog / 2:
        event = world.trade(leaver, **EXIT)
        publish(event)
        read_on(vendors, journal)
        published[event["eventId"]] = len(journal)

        def room() -> bool:
            read_on(vendors, journal)
            return len(journal) - normal_ones(journal, published) >= (len(published) - outstanding) * exit_size

        until(room)
    assert len(published) > outstanding, "They were to come all the time."
    total = backlog + len(published) * exit_size
    wait_until(rows, all_settled(total), "everything settled")
    read_on(vendors, journal)

    # Then each exit overtakes most of what waited when it came, though others came before it.
    assert len(journal) == total
    assert vendors.stats("fcm")["duplicates"] == 0
    for event_id, at in published.items():
        waiting = backlog - normal_ones(journal[:at], published)
        last = max(n for n, one in enumerate(journal) if one == event_id)
        overtook = waiting - normal_ones(journal[at:last], published)
        assert overtook > waiting / 2, f"Of {waiting} that waited, it overtook {overtook}."
    # And the normal ones get their share meanwhile.
    last = max(n for n, one in enumerate(journal) if one in published)
    stream = journal[min(published.values()) : last]
    assert normal_ones(stream, published) >= 0.05 * len(stream)
    # And it was more than one worker's work.
    assert len(collection(Batch).distinct("worker", {"kind": BatchKind.DELIVER})) > 1


def read_on(vendors: Sandbox, journal: list[str]) -> None:
    """Adds the trade of each message that FCM has accepted since."""
    journal += [message["body"]["data"]["event_id"] for message in vendors.accepted("fcm", since_index=len(journal))]


def normal_ones(journal: list[str], exits: Container[str]) -> int:
    """How many of these messages were of no exit."""
    return sum(1 for event in journal if event not in exits)
