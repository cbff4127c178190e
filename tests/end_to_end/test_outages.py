"""A server goes away under load and comes back: nothing is lost, and each process says so in a few lines."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from devstack.stack import Stack
from devstack.vendors.client import Sandbox
from followers.mongo import collection
from notifications.models import Notification
from tests.delivery.kafka_topics import until
from tests.end_to_end.processes import Processes, free_port, wait_until
from tests.end_to_end.test_end_to_end import all_settled, audience
from tests.pipeline import world

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
Publish = Callable[..., None]
FEW = 8
"""Lines that a process may write above INFO for one outage of half a minute."""


def log_of(processes: Processes, name: str) -> Path:
    (log,) = processes.directory.glob(f"{name}-*.log")
    return log


def said(log: Path, words: str) -> bool:
    return words in log.read_text(errors="replace")


def loud(log: Path) -> list[str]:
    """Everything above INFO, and whatever is no line of ours: a traceback of an interpreter, for instance."""
    found = []
    for line in log.read_text(errors="replace").splitlines():
        if not line.strip() or line.startswith((" * ", "INFO: ")):  # Dramatiq's greeting, and uvicorn's log.
            continue
        try:
            if json.loads(line)["level"] in {"info", "debug"}:
                continue
        except ValueError:
            found.append(line)
        else:
            found.append(line)
    return found


def is_ready(port: int) -> bool:
    """Asks the web process, as an orchestrator does all the time."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.mark.parametrize(
    ("server", "away"),
    [
        ("mongodb", dict.fromkeys(("consume_trades", "dispatch_due", "rundramatiq", "web"), "MongoDB")),
        ("valkey", {"dispatch_due": "The dispatch queue", "rundramatiq": "The dispatch queue", "web": "Redis"}),
        ("kafka", {"consume_trades": "Kafka", "web": "Kafka"}),
    ],
)
def test_an_outage_under_load_is_told_in_a_few_lines_and_loses_nothing(
    processes: Processes, publish: Publish, vendors: Sandbox, stack: Stack, server: str, away: dict[str, str]
) -> None:
    # Given all processes at work.
    size, trades = 150, 0
    trader = world.make_trader()
    audience(trader, size, channels=("fcm", "apns"))
    for vendor in ("fcm", "apns"):
        vendors.behave(vendor, latency_ms=200)
    processes.env |= {"LEASE_SECONDS": "60"}
    for command in ("consume_trades", "dispatch_due"):
        processes.manage(command)
    processes.workers()
    port = free_port()
    processes.web(port)
    until(lambda: is_ready(port))

    def trade_on() -> None:
        nonlocal trades
        publish(world.trade(trader))
        trades += 1

    trade_on()
    rows = collection(Notification)
    wait_until(rows, lambda: rows.count_documents({"state": "delivered"}) >= size / 2, "work is under way")
    for _ in range(10):
        trade_on()

    # When a server is away for so long that each process says so twice.
    at_fault = getattr(stack, server)
    at_fault.kill()
    try:

        def everybody_noticed() -> bool:
            if server != "kafka" and trades < 20:
                trade_on()
            is_ready(port)
            return all(said(log_of(processes, name), f"{words} is still away") for name, words in away.items())

        until(everybody_noticed)
    finally:
        at_fault.start()

    # Then nothing is lost, and it took a few lines.
    wait_until(rows, all_settled(size * trades), "everything is delivered after all")
    until(lambda: is_ready(port))
    assert Counter(row["state"] for row in rows.find({}, {"state": 1})) == {"delivered": size * trades}
    assert [vendors.stats(vendor)["duplicates"] for vendor in ("fcm", "apns")] == [0, 0]
    for name, words in away.items():
        log = log_of(processes, name)
        until(lambda log=log, words=words: said(log, f"{words} answers again"))  # type: ignore[misc]
        assert not said(log, "Traceback"), loud(log)
        assert len(loud(log)) <= FEW, loud(log)
