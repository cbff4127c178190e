"""Vendors in trouble under load, seen from outside: what they received, and what MongoDB says of each alert."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
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
    audience(trader, size, channels=("fcm",), all_reachable=True)
    vendors.behave(
        "fcm",
        seed=4,
        rules=[
            {"match": {"fraction": 0.02}, "code": "dead"},
            {"match": {"fraction": 0.10, "fraction_of": "requests"}, "code": "throttled", "retry_after": RETRY_AFTER},
            {"match": {"fraction": 0.30, "fraction_of": "requests"}, "status": 500},
        ],
    )
    # Of five thousand, one meets eight or nine bad answers in a row: without a cap it would wait for minutes.
    processes.env |= {"FCM_RETRY_CAP_SECONDS": "10"}
    event = world.trade(trader)
    for command in ("consume_trades", "dispatch_due"):
        processes.manage(command)
    processes.workers()

    publish(event)
    wait_until(collection(Notification), all_settled(size), "everything settled", seconds=240)

    deliveries = [d for row in world.alerts(event) for d in row["deliveries"] if d["channel"] == "fcm"]
    assert len(deliveries) == size
    dead = Endpoint.objects.filter(active=False, deactivated_reason="UNREGISTERED").count()
    # An attempt without an answer (this machine can be too busy for one within FCM_TIMEOUT_SECONDS) may have arrived:
    # an address that is then found dead leaves the delivery unknown, not failed.
    doubtful = sum(1 for d in deliveries if d["error_code"] == "UNREGISTERED" and outcomes(d)["unknown"])
    assert Counter((d["state"], d["error_code"]) for d in deliveries) == +Counter({
        ("sent", ""): size - dead, ("failed", "UNREGISTERED"): dead - doubtful, ("unknown", "UNREGISTERED"): doubtful,
    })  # fmt: skip
    assert 0.01 * size < dead < 0.03 * size

    # Counted truly: each request that the vendor saw stands in a log, and each that spent an attempt is counted.
    stats = vendors.stats("fcm")
    attempts = sum((outcomes(d) for d in deliveries), Counter[str]())
    answered = stats["accepted"] + sum(stats["refused"].values())
    assert attempts.total() - attempts["unknown"] <= answered <= attempts.total()
    assert stats["accepted"] - stats["repeats_under_key"] == size - dead
    assert stats["repeats_under_key"] <= attempts["unknown"]
    assert stats["duplicates"] == 0
    for delivery in deliveries:
        assert delivery["attempts"] == len(delivery["attempt_log"]) - outcomes(delivery)["throttled"]

    first, all_waits = _waits(deliveries, only_first=True), _waits(deliveries)
    assert all_waits["throttled"], "Some of them were to be throttled."
    assert len(all_waits["throttled"]) > len(first["throttled"]), "Some of them later than at their first attempt."
    assert min(all_waits["throttled"]) >= RETRY_AFTER, "No attempt comes before its Retry-After."
    # Retries are spread: the first one waits base + uniform(0, 2 × base), with a deviation of 0.58 × base.
    base = float(processes.env["FCM_RETRY_BASE_SECONDS"])
    assert min(all_waits["retry"]) >= base
    assert pstdev(first["retry"]) > 0.3 * base


def outcomes(delivery: dict[str, Any]) -> Counter[str]:
    """How many of its attempts ended how."""
    return Counter(attempt["outcome"] for attempt in delivery["attempt_log"])


def _waits(deliveries: list[dict[str, Any]], only_first: bool = False) -> dict[str, list[float]]:
    """Seconds from an answer to the next attempt, by what the answer was; of each delivery's first one or of all."""
    waits: dict[str, list[float]] = defaultdict(list)
    for delivery in deliveries:
        pairs = list(pairwise(delivery["attempt_log"]))
        for before, after in pairs[:1] if only_first else pairs:
            answered = before["at"] + timedelta(milliseconds=before["latency_ms"] or 0)
            waits[before["outcome"]].append((after["at"] - answered).total_seconds())
    return waits


def test_vendor_that_never_answers_holds_up_nobody_else_and_its_alerts_end_explained(
    processes: Processes, publish: Publish, vendors: Sandbox
) -> None:
    hanging, well = 5_000, 500
    stuck_trader, trader = world.make_trader(), world.make_trader()
    audience(stuck_trader, hanging, channels=("onesignal",), all_reachable=True)
    audience(trader, well, channels=("fcm",), all_reachable=True)
    processes.env |= {"VALIDITY_CRYPTO_ENTRY_SECONDS": "20", "BREAKER_PAUSE_SECONDS": "2"}
    for command in ("consume_trades", "dispatch_due"):
        processes.manage(command)
    processes.workers()
    warm_trader = world.make_trader()
    world.make_follower(warm_trader, "fcm", "onesignal")
    publish(world.trade(warm_trader))
    wait_until(collection(Notification), all_settled(1), "every process at work")
    vendors.reset()
    vendors.behave("onesignal", rules=[{"match": {}, "hang": True}])
    stuck, event = world.trade(stuck_trader, productType="CRYPTO"), world.trade(trader)

    published = world.clock.now()
    publish(stuck, event)
    rows = collection(Notification)
    fcm_sent = {"deliveries": {"$elemMatch": {"channel": "fcm", "state": "sent"}}}
    wait_until(rows, lambda: rows.count_documents(fcm_sent) == 1 + well, "the other channel is done")
    wait_until(rows, all_settled(1 + hanging + well), "everything settled", seconds=120)

    opened = collection(BreakerChange).find_one({"channel": "onesignal", "status_after": "open"}, sort=[("at", 1)])
    assert opened is not None
    assert world.clock.as_utc(opened["at"]) - published < timedelta(seconds=10)
    assert "slow or unanswered" in opened["reason"]
    assert collection(BreakerChange).count_documents({"channel": "fcm"}) == 0
    # Without an answer: perhaps accepted, and in review. Never sent: expired. Nothing else, and nothing unexplained.
    alerts = world.alerts(stuck)
    went = [d["sent_at"] for row in world.alerts(event) for d in row["deliveries"] if d["channel"] == "fcm"]
    assert max(went) < min(row["expires_at"] for row in alerts), "It did not wait for the other one."
    hung = [d for row in alerts for d in row["deliveries"] if d["channel"] == "onesignal"]
    ends = Counter((d["state"], bool(outcomes(d)["unknown"])) for d in hung)
    assert set(ends) == {("unknown", True), ("expired", False)}
    assert ends.total() == hanging
    assert sum(bool(row["review"] and row["review"]["open"]) for row in alerts) == ends["unknown", True]
    assert all(d["error_code"] and d["error_message"] for d in hung)
    stats = vendors.stats("onesignal")
    assert (stats["accepted"], stats["requests"]) == (0, sum(len(d["attempt_log"]) for d in hung))
