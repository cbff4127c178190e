"""Everything that a benchmark of the whole pipeline needs: servers, vendors and processes of its own, and trades."""

# ruff: noqa: PLC0415  # Models can be imported only once Django is set up.
from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import django

from devstack import commands
from devstack.children import Children
from devstack.stack import Stack
from devstack.vendors.client import Sandbox
from devstack.vendors.process import VendorProcess

ADDRESSES = {
    "fcm": lambda n: {"address": f"fcm-token-{n:032x}", "platform": "android"},
    "apns": lambda n: {"address": f"{n:064x}", "platform": "ios"},
    "onesignal": lambda n: {"address": f"00000000-0000-4000-8000-{n:012x}"},
}
SETTLE_SECONDS = 600


class System:
    """A running NotifyHub. `running` makes one."""

    def __init__(self, sandbox: Sandbox, children: Children, directory: Path) -> None:
        from delivery.kafka import connect_producer

        self.sandbox = sandbox
        self.children = children
        self.directory = directory
        self._producer = connect_producer()

    def close(self) -> None:
        self._producer.close()

    def publish(self, trader: str, priority: str = "high", **details: str) -> str:
        """Puts a trade on Kafka. Returns its event id once Kafka has it."""
        event = uuid.uuid4().hex
        trade = {
            "orderId": "", "symbol": "RELIANCE", "exchange": "XNSE", "side": "BUY", "action": "OPEN", "quantity": "50",
            "productType": "DELIVERY", "price": "2945.50", "currency": "INR", **details,
        }  # fmt: skip
        message = {
            "eventId": event, "version": 1, "traderId": trader, "priority": priority, "tradeDetails": trade,
            "executedAt": datetime.now(UTC).isoformat(),
        }  # fmt: skip
        topic = os.environ["KAFKA_TRADE_TOPIC"]
        self._producer.send(topic, json.dumps(message).encode(), key=trader.encode()).get(timeout=30)
        return event

    def queued(self, event: str, channel: str | None = None) -> int:
        """How many deliveries of an event are still to be sent."""
        from notifications.statements import event_id

        match: dict[str, Any] = {"state": "queued", **({"channel": channel} if channel else {})}
        query = {"event_id": event_id(event), "deliveries": {"$elemMatch": match}}
        return self._rows().count_documents(query)

    def wait_until_sent(self, event: str, alerts: int, channel: str) -> None:
        """Waits until so many alerts of an event are stored, and none of the channel is queued any more."""
        from notifications.statements import event_id

        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            stored = self._rows().count_documents({"event_id": event_id(event)})
            if stored == alerts and self.queued(event, channel) == 0:
                return
            time.sleep(0.1)
        raise TimeoutError(f"{event} was not sent within {SETTLE_SECONDS} s.")

    def latencies(self, event: str, channel: str) -> list[float]:
        """Milliseconds from the trade's execution to the vendor's acceptance, sorted. Every alert must be sent."""
        from notifications.statements import event_id

        found = []
        for row in self._rows().find({"event_id": event_id(event)}, {"executed_at": 1, "deliveries": 1}):
            for delivery in row["deliveries"]:
                if delivery["channel"] == channel:
                    assert delivery["state"] == "sent", delivery  # noqa: S101  A benchmark verifies its result.
                    found.append((delivery["sent_at"] - row["executed_at"]).total_seconds() * 1000)
        return sorted(found)

    @staticmethod
    def _rows() -> Any:
        from followers.mongo import collection
        from notifications.models import Notification

        return collection(Notification)


def percentile(values: list[float], share: float) -> float:
    """Of sorted values."""
    return values[min(len(values) - 1, int(share * len(values)))]


@contextmanager
def running(audiences: Mapping[str, Mapping[str, int]], settings: Mapping[str, str]) -> Iterator[System]:
    """Starts everything, loads the followers of each trader (channel → how many), and stops it all at the end.

    Followers on `in_app` have no endpoint: their alerts are in their inboxes alone.
    """
    directory = Path(tempfile.mkdtemp(prefix="notifyhub-bench-"))
    with ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, directory, ignore_errors=True)
        stack = cleanup.enter_context(Stack(directory, ("mongodb", "valkey", "kafka")))
        vendors = cleanup.enter_context(VendorProcess(directory / "vendors"))
        os.environ.update({"DJANGO_SETTINGS_MODULE": "notifyhub.settings", **stack.env, **vendors.env, **settings})
        children = Children(directory / "logs", threading.Event())
        cleanup.callback(children.stop)
        file = directory / "followers.ndjson"
        file.write_text("\n".join(_lines(audiences)))
        children.run("migrate", [*commands.MANAGE, "migrate", "--no-input"])
        children.run("import", [*commands.MANAGE, "import_followers", str(file)])
        consumer = children.start("consume_trades", commands.consume_trades())
        dispatcher = children.start("dispatch_due", commands.dispatch_due())
        children.start("workers", commands.workers(2))
        children.start("workers-critical", commands.workers(1, "critical"))
        children.wait_until(consumer, commands.consumes, 120)
        children.wait_until(dispatcher, commands.dispatches, 120)
        django.setup()
        system = System(vendors.sandbox, children, directory)
        cleanup.callback(system.close)
        yield system


def _lines(audiences: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    number = 0
    for trader, channels in audiences.items():
        for channel, count in channels.items():
            for _ in range(count):
                number += 1
                endpoints = [] if channel == "in_app" else [{"channel": channel, **ADDRESSES[channel](number)}]
                yield json.dumps({
                    "traderId": trader, "traderPortfolio": "100000", "followerId": f"F-{number}", "currency": "INR",
                    "followerPortfolio": "10000", "endpoints": endpoints,
                })  # fmt: skip
