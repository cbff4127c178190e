"""What /metrics says to whoever has nothing else: read over HTTP before and after, and compared with MongoDB."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from devstack.commands import is_healthy
from devstack.vendors.client import Sandbox
from followers.mongo import collection
from notifications.models import Notification
from tests.delivery.kafka_topics import until
from tests.end_to_end.processes import Processes, free_port, wait_until
from tests.end_to_end.test_end_to_end import all_settled, audience
from tests.notifyhub.metrics import Sample, added, quantile_bounds, scraped
from tests.pipeline import world

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
Publish = Callable[..., None]
Document = dict[str, Any]
CHANNELS = ("fcm", "discord", "sms")
OUTCOMES = ("channel", "outcome", "error")
ALERTS = 6_666
SENDS = 5_000
"""Three of four have a device; the others have only their inbox."""
STORED_TO = 0.001
"""Seconds: MongoDB keeps the times of a delivery in whole milliseconds."""


def p99_bounds(before: dict[Sample, float], after: dict[Sample, float], name: str, channel: str) -> tuple[float, float]:
    risen = added(before, after, f"{name}_bucket", "channel", "le")
    return quantile_bounds(((float(le), count) for (of, le), count in risen.items() if of == channel), 0.99)


def p99(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[math.ceil(len(ordered) * 0.99) - 1]


def test_five_thousand_deliveries_are_told_by_two_looks_from_outside_and_agree_with_mongodb(
    processes: Processes, publish: Publish, vendors: Sandbox, tmp_path: Path
) -> None:
    # Given three vendors that refuse a fifth, and a look at /metrics
    trader = world.make_trader()
    audience(trader, ALERTS, channels=CHANNELS)
    vendors.behave("fcm", rules=[{"match": {"fraction": 0.2}, "status": 400, "code": "INVALID_ARGUMENT"}])
    vendors.behave("discord", rules=[{"match": {"fraction": 0.2}, "code": "dead"}])
    vendors.behave("twilio", rules=[{"match": {"fraction": 0.2}, "status": 400, "code": "21211"}])
    processes.env |= {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "counts"), "SMS_RATE_PER_SECOND": "0"}
    port = free_port()
    processes.web(port)
    for command in ("consume_trades", "dispatch_due"):
        processes.manage(command)
    processes.workers(processes=2)
    until(lambda: is_healthy(port))
    before = scraped(port)

    # When one trade has reached everybody
    event = world.trade(trader)
    publish(event)
    wait_until(collection(Notification), all_settled(ALERTS), "everything settled")
    # A batch is counted right after it is written down.
    found = [d for row in world.alerts(event) for d in row["deliveries"]]
    looks: list[dict[Sample, float]] = []

    def all_counted() -> bool:
        looks.append(scraped(port))
        return counts(before, looks[-1]) == stored_counts(found)

    until(all_counted)
    after = looks[-1]

    # Then the second look tells what MongoDB has
    stored = Counter((d["channel"], d["state"], d["error_code"]) for d in found)
    assert added(before, after, "notifyhub_deliveries_total", *OUTCOMES) == stored
    attempts = Counter((d["channel"], a["outcome"], a["code"]) for d in found for a in d["attempt_log"])
    assert added(before, after, "notifyhub_attempts_total", *OUTCOMES) == attempts
    refused = {channel: sum(n for (of, state, _), n in stored.items() if (of, state) == (channel, "failed"))
               for channel in CHANNELS}  # fmt: skip
    assert 0.15 * SENDS < sum(refused.values()) < 0.25 * SENDS
    assert {error for _, _, error in stored if error} == {"INVALID_ARGUMENT", "10015", "21211"}
    for channel in CHANNELS:
        sent_on = [d for d in found if d["channel"] == channel]
        shows_the_p99(before, after, channel, sent_on, world.stored_event(event)["executed_at"])
    counting = {file.stem.rpartition("_")[2] for file in (tmp_path / "counts").glob("counter_*.db")}
    assert len(counting) >= 3  # Nobody has died: consume_trades and two workers, with files of their own.


def counts(before: dict[Sample, float], after: dict[Sample, float]) -> tuple[float, ...]:
    """Deliveries that ended, attempts, attempts that were timed, and sent pushes whose whole way was timed."""
    names = ("deliveries_total", "attempts_total", "delivery_seconds_count")
    whole = added(before, after, "notifyhub_event_to_delivery_seconds_count", "channel")
    of_vendors = sum(count for (channel,), count in whole.items() if channel in CHANNELS)
    return *(added(before, after, f"notifyhub_{name}").total() for name in names), of_vendors


def stored_counts(deliveries: list[Document]) -> tuple[float, ...]:
    attempts = sum(len(d["attempt_log"]) for d in deliveries)
    return (
        len(deliveries),
        attempts,
        attempts,
        sum(d["state"] == "sent" for d in deliveries if d["channel"] in CHANNELS),
    )


def shows_the_p99(
    before: dict[Sample, float], after: dict[Sample, float], channel: str, deliveries: list[Document], executed: Any
) -> None:
    answered = [a["latency_ms"] / 1_000 for d in deliveries for a in d["attempt_log"]]
    lower, upper = p99_bounds(before, after, "notifyhub_delivery_seconds", channel)
    assert added(before, after, "notifyhub_delivery_seconds_count", "channel")[(channel,)] == len(answered)
    assert lower < p99(answered) <= upper
    took = [(d["sent_at"] - executed).total_seconds() for d in deliveries if d["state"] == "sent"]
    lower, upper = p99_bounds(before, after, "notifyhub_event_to_delivery_seconds", channel)
    whole = added(before, after, "notifyhub_event_to_delivery_seconds_count", "channel", "priority")
    assert whole[channel, "high"] == len(took)
    assert lower - STORED_TO <= p99(took) <= upper + STORED_TO
