"""What every benchmark stands on: servers and a vendor of its own, followers, and an empty pipeline for each round."""

# ruff: noqa: PLC0415  # Models can be imported only once Django is set up.
from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import django

from bench.vendor import VendorClient
from devstack import commands
from devstack.children import Child, Children
from devstack.stack import Stack
from devstack.vendors.credentials import environment, load_or_create

LATENCY_MS = 30
EXECUTED, PRICE, TRADER_PORTFOLIO = 50, "2945.50", 100_000
SETTLE_SECONDS = 600
ROUND_TABLES = ("notifications_notification", "notifications_inappentry", "notifications_tradeevent", "delivery_batch")
VENDORS = ("fcm", "apns", "twilio", "discord", "onesignal", "control")


def quantity(number: int) -> int:
    """What follower `number` must be told to buy of the trades that `Stage.publish` makes."""
    return EXECUTED * portfolio(number) // TRADER_PORTFOLIO


def portfolio(number: int) -> int:
    return 10_000 + 2_000 * (number % 40)


class Stage:
    """Servers, vendor and followers, up and idle. `set_up` makes one."""

    def __init__(
        self, stack: Stack, children: Children, vendor: Child, port: int, audiences: Mapping[str, int]
    ) -> None:
        from delivery.kafka import connect_producer

        self.children = children
        self.vendor = VendorClient(port)
        self.audiences = audiences
        self.servers = {server.name: server.pid for server in stack.servers} | {"vendor": vendor.pid}
        self._producer = connect_producer()

    def close(self) -> None:
        self._producer.close()

    def publish(self, trader: str, priority: str = "high", topic: str = "", **details: str) -> str:
        """Puts a trade on Kafka, on NotifyHub's topic unless another one is named. Returns its id once Kafka has it."""
        event, message = self.trade(trader, priority, **details)
        self._producer.send(topic or os.environ["KAFKA_TRADE_TOPIC"], json.dumps(message).encode(), key=trader.encode())
        self._producer.flush(timeout=30)
        return event

    @staticmethod
    def trade(trader: str, priority: str = "high", **details: str) -> tuple[str, dict[str, Any]]:
        """A trade's event id and message."""
        event = uuid.uuid4().hex
        trade = {
            "orderId": "", "symbol": "RELIANCE", "exchange": "XNSE", "side": "BUY", "action": "OPEN",
            "quantity": str(EXECUTED), "productType": "DELIVERY", "price": PRICE, "currency": "INR", **details,
        }  # fmt: skip
        message = {
            "eventId": event, "version": 1, "traderId": trader, "priority": priority, "tradeDetails": trade,
            "executedAt": datetime.now(UTC).isoformat(),
        }  # fmt: skip
        return event, message

    def wait(self, condition: Callable[[], bool], what: str, poll_seconds: float = 0.02) -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        while not condition():
            self.children.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"Not within {SETTLE_SECONDS} s: {what}")
            time.sleep(poll_seconds)

    def wait_until_sent(self, event: str, alerts: int) -> None:
        """Waits until so many alerts of an event are accepted by the vendor, and recorded."""
        self.wait(lambda: self.vendor.count() >= alerts, f"{alerts} alerts accepted")
        self.wait(lambda: self.unfinished(event) == 0, "outcomes recorded")

    def wait_until_all_sent(self, alerts: int) -> None:
        """The same for so many alerts of all trades together."""
        self.wait(lambda: self.vendor.count() >= alerts, f"{alerts} alerts accepted")
        unfinished = {"priority": {"$in": ["critical", "high", "normal"]}, "wake_at": {"$type": "date"}}
        self.wait(lambda: not table("notifications_notification").count_documents(unfinished), "outcomes recorded")

    def unfinished(self, event: str) -> int:
        """How many alerts of an event have a delivery that is still to be sent or recorded."""
        return table("notifications_notification").count_documents({"event_id": _oid(event), "state": "pending"})

    def verify(self, event: str, trader: str, state: str = "delivered", sent: bool = True) -> None:
        """Raises AssertionError unless each follower has the one alert that is due: stored, sized, in that state and
        in the inbox."""
        numbers = follower_numbers(self.audiences, trader)
        alerts = table("notifications_notification")
        sums = {"quantity": {"$sum": "$sizing.suggested_qty"}, "alerts": {"$sum": 1}}
        all_sent = {"$allElementsTrue": [{"$map": {"input": "$deliveries", "in": {"$eq": ["$$this.state", "sent"]}}}]}
        rows = list(alerts.aggregate([
            {"$match": {"event_id": _oid(event)}},
            {"$group": {"_id": {"state": "$state", "sent": all_sent, "channels": {"$size": "$deliveries"}}, **sums}},
        ]))  # fmt: skip
        found = [(row["_id"], row["alerts"], int(row["quantity"].to_decimal())) for row in rows]
        expected = {"state": state, "sent": sent, "channels": 2}
        check(found == [(expected, len(numbers), sum(map(quantity, numbers)))], f"alerts stored: {found}")
        entries = table("notifications_inappentry").count_documents({"event_key": event})
        check(entries == len(numbers), f"{entries} of {len(numbers)} inbox entries")

    def clear(self) -> None:
        """Empties the pipeline: alerts, events, queues, and what the vendor remembers."""
        import redis

        for name in ROUND_TABLES:
            table(name).delete_many({})
        redis.Redis.from_url(os.environ["DRAMATIQ_BROKER_URL"]).flushdb()
        self.vendor.take()


def check(holds: bool, what: str) -> None:
    """A benchmark verifies its result; a wrong one is no result."""
    if not holds:
        raise AssertionError(what)


def table(name: str) -> Any:
    from followers.mongo import database

    return database()[name]


def _oid(event: str) -> Any:
    from notifications.statements import event_id

    return event_id(event)


def follower_numbers(audiences: Mapping[str, int], trader: str) -> range:
    """The numbers of a trader's followers; each follower follows one trader."""
    first = 1
    for name, count in audiences.items():
        if name == trader:
            return range(first, first + count)
        first += count
    raise KeyError(trader)


def a_device(number: int) -> list[dict[str, str]]:
    """The one Android device of follower `number`, as the importer takes it."""
    return [{"channel": "fcm", "address": f"fcm-token-{number:0140x}", "platform": "android"}]


@contextmanager
def set_up(
    audiences: Mapping[str, int],
    settings: Mapping[str, str] | None = None,
    endpoints: Callable[[int], list[dict[str, str]]] = a_device,
) -> Iterator[Stage]:
    """Servers, vendor, and the followers of each trader (trader → how many), with their endpoints by number."""
    directory = Path(tempfile.mkdtemp(prefix="notifyhub-bench-"))
    with ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, directory, ignore_errors=True)
        stack = cleanup.enter_context(Stack(directory, ("mongodb", "valkey", "kafka")))
        children = Children(directory / "logs", threading.Event())
        cleanup.callback(children.stop)
        port = free_port()
        vendor = children.start("vendor", [sys.executable, "-m", "bench.vendor", str(port), str(LATENCY_MS)])
        credentials = environment(directory, load_or_create(directory), dict.fromkeys(VENDORS, port))
        fcm = {name: value for name, value in credentials.items() if name.startswith("FCM_")}
        env = {"DJANGO_SETTINGS_MODULE": "notifyhub.settings", "LOG_LEVEL": "INFO", **stack.env, **fcm}
        os.environ.update({**env, **(settings or {})})
        file = directory / "followers.ndjson"
        file.write_text("\n".join(_lines(audiences, endpoints)))
        children.run("migrate", [*commands.MANAGE, "migrate", "--no-input"])
        children.run("import", [*commands.MANAGE, "import_followers", str(file)])
        django.setup()
        stage = Stage(stack, children, vendor, port, audiences)
        cleanup.callback(stage.close)
        yield stage


def _lines(audiences: Mapping[str, int], endpoints: Callable[[int], list[dict[str, str]]]) -> Iterator[str]:
    for trader in audiences:
        for number in follower_numbers(audiences, trader):
            yield json.dumps({
                "traderId": trader, "traderPortfolio": str(TRADER_PORTFOLIO), "followerId": f"F-{number}",
                "currency": "INR", "followerPortfolio": str(portfolio(number)), "endpoints": endpoints(number),
            })  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
