"""Vendors in trouble under load, seen from outside: what they received, and what MongoDB says of each alert."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from statistics import pstdev
from typing import Any

import pytest

from delivery.models import BreakerChange
from devstack.stack import Stack
from devstack.vendors.client import Sandbox
from followers.models import Endpoint
from followers.mongo import collection
from notifications.models import Notification
from tests.end_to_end.processes import Processes, wait_until
from tests.end_to_end.test_end_to_end import all_settled, audience
from tests.pipeline import world

pytestmark = [pytest.mark.django_db(transaction=True)]
Publish = Callable[..., None]
RETRY_AFTER = 1.0


@pytest.fixture
def broker_url(stack: Stack) -> str:
    return stack.env["DRAMATIQ_BROKER_URL"]


def test_five_thousand_alerts_to_a_sick_vendor_all_arrive_or_find_their_address_dead(
    processes: Processes, publish: Publish, vendors: Sandbox
) -> None:
    size = 5_000
    trader = world.make_trader()
    audience(trader, size, channels=("fcm",) * 5)  # Every sixth follower has no device: 833 alerts are in-app only.
    devices = Endpoint.objects.count()
    vendors.behave(
        "fcm",
        seed=4,
        rules=[
            {"match": {"fraction": 0.02}, "code": "dead"},
            {"match": {"fraction": 0.10, "fraction_of": "requests"}, "code": "throttled", "retry_after": RETRY_AFTER},
            {"match": {"fraction": 0.30, "fraction_of": "requests"}, "status": 500},
        ],
    )
    event = world.trade(trader)
    for command in ("consume_trades", "dispatch_due"):
        processes.manage(command)
    processes.workers()

    publish(event)
    wait_until(collection(Notification), all_settled(size), "everything settled", seconds=240)

    sent = [d for row in world.alerts(event) for d in row["deliveries"] if d["channel"] == "fcm"]
    assert len(sent) == devices
    dead = Endpoint.objects.filter(active=False, deactivated_reason="UNREGISTERED").count()
    assert Counter((d["state"], d["error_code"]) for d in sent) == {
        ("sent", ""): devices - dead,
        ("failed", "UNREGISTERED"): dead,
    }
    assert 0.01 * devices < dead < 0.03 * devices

    # Counted truly: each request that the vendor saw stands in a log, and each that spent an attempt is counted.
    stats = vendors.stats("fcm")
    answered = stats["accepted"] + sum(stats["refused"].values())
    assert answered == sum(len(d["attempt_log"]) for d in sent)
    assert stats["accepted"] == devices - dead
    for delivery in sent:
        assert delivery["attempts"] == sum(1 for a in delivery["attempt_log"] if a["outcome"] != "throttled")

    waits = _waits(sent)
    assert waits["throttled"], "Some of them were to be throttled."
    assert min(waits["throttled"]) >= RETRY_AFTER, "No attempt comes before its Retry-After."
    # Retries are spread: base + uniform(0, 2 × base) has a deviation of 0.58 × base.
    base = float(processes.env["FCM_RETRY_BASE_SECONDS"])
    assert min(waits["retry"]) >= base
    assert pstdev(waits["retry"]) > 0.3 * base


def _waits(deliveries: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Seconds from an answer to the next attempt, by what the answer was; of each delivery's first retry only."""
    waits: dict[str, list[float]] = {"throttled": [], "retry": []}
    for delivery in deliveries:
        for before, after in zip(delivery["attempt_log"][:1], delivery["attempt_log"][1:2], strict=False):
            answered = before["at"] + timedelta(milliseconds=before["latency_ms"] or 0)
            waits[before["outcome"]].append((after["at"] - answered).total_seconds())
    return waits


def test_vendor_that_never_answers_holds_up_nobody_else_and_its_alerts_end_explained(
    processes: Processes, publish: Publish, vendors: Sandbox
) -> None:
    size = 1_200
    trader = world.make_trader()
    audience(trader, size, channels=("onesignal", "fcm"))
    vendors.behave("onesignal", rules=[{"match": {}, "hang": True}])
    processes.env |= {"VALIDITY_CRYPTO_ENTRY_SECONDS": "25", "BREAKER_PAUSE_SECONDS": "2"}
    event = world.trade(trader, productType="CRYPTO")
    for command in ("consume_trades", "dispatch_due"):
        processes.manage(command)
    processes.workers()

    publish(event)
    rows = collection(Notification)
    fcm_sent = {"deliveries": {"$elemMatch": {"channel": "fcm", "state": "sent"}}}
    hung_ended = {"deliveries": {"$elemMatch": {"channel": "onesignal", "state": {"$ne": "queued"}}}}
    wait_until(rows, lambda: rows.count_documents(fcm_sent) == size // 3, "the other channel is done")
    assert rows.count_documents(hung_ended) == 0, "The other channel did not wait for the hanging one."
    wait_until(rows, all_settled(size), "everything settled", seconds=120)

    opened = collection(BreakerChange).find_one({"channel": "onesignal"}, sort=[("at", 1)])
    assert opened is not None
    assert "slow or unanswered" in opened["reason"]
    hung = [d for row in world.alerts(event) for d in row["deliveries"] if d["channel"] == "onesignal"]
    assert len(hung) == size // 3
    # Without an answer: perhaps accepted. Never sent: expired. Nothing else, and nothing unexplained.
    states = Counter((d["state"], any(a["outcome"] == "unknown" for a in d["attempt_log"])) for d in hung)
    assert set(states) == {("unknown", True), ("expired", False)}
    assert all(d["error_code"] and d["error_message"] for d in hung)
    assert collection(BreakerChange).count_documents({"channel": "fcm"}) == 0
