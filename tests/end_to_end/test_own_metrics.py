"""METRICS_PORT: each process of a machine serves what it alone has counted, at a port of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from devstack.vendors.client import Sandbox
from followers.mongo import collection
from notifications.models import Notification
from tests.delivery.kafka_topics import until
from tests.end_to_end.processes import Processes, free_port, wait_until
from tests.end_to_end.test_end_to_end import all_settled, audience
from tests.end_to_end.test_logs import lines_of
from tests.notifyhub.metrics import added, scraped
from tests.pipeline import world

pytestmark = pytest.mark.django_db(transaction=True)
DELIVERIES = "notifyhub_deliveries_total"


def serving(processes: Processes) -> list[int]:
    return [line["port"] for line in lines_of(processes) if line["message"] == "Serving metrics."]


def test_each_process_serves_its_own_counts_at_a_port_of_its_own(
    processes: Processes, publish: Callable[..., None], vendors: Sandbox
) -> None:
    # Given four processes on one machine, which are all told the same port
    first = free_port()
    processes.env |= {"METRICS_PORT": str(first), "FAN_OUT_CHUNK": "10"}
    trader = world.make_trader()
    audience(trader, 120, channels=("fcm", "discord"))
    for number, command in enumerate(("consume_trades", "dispatch_due"), 1):
        processes.manage(command)
        until(lambda number=number: len(serving(processes)) == number)  # type: ignore[misc]
    processes.workers(processes=2)
    until(lambda: len(serving(processes)) == 4)
    ports = serving(processes)

    # When they have worked
    publish(world.trade(trader))
    wait_until(collection(Notification), all_settled(120), "everything settled")
    until(lambda: sum(added({}, scraped(port), DELIVERIES).total() for port in ports) == 120 + 80)

    # Then each tells of its own part
    assert len(set(ports)) == 4
    assert min(ports) >= first
    consumer, dispatcher, *workers = map(scraped, ports)
    assert added({}, consumer, "notifyhub_events_total", "outcome") == {("accepted",): 1}
    assert added({}, consumer, DELIVERIES) == Counter()
    assert dispatcher["notifyhub_dispatcher_last_sweep_timestamp_seconds", frozenset()] > 0
    for worker in workers:
        assert added({}, worker, "notifyhub_events_total") == Counter()
    assert sum((added({}, worker, DELIVERIES, "channel") for worker in workers), Counter()) == {
        ("in_app",): 120, ("fcm",): 40, ("discord",): 40,
    }  # fmt: skip
