"""SIGKILL of a worker with five hundred sends in flight: what the vendors took over and nobody heard of."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from delivery.models import Batch
from devstack.stack import Stack
from devstack.vendors.client import Sandbox
from followers.mongo import collection
from notifications.choices import DeliveryState, Reason
from notifications.models import Notification
from tests.end_to_end.processes import Processes, wait_until
from tests.end_to_end.test_end_to_end import Publish, all_settled, audience
from tests.pipeline import world

pytestmark = [pytest.mark.django_db(transaction=True)]
FCM, SMS, IN_APP = 400, 100, 100
ALL_AT_ONCE = {
    "LEASE_SECONDS": "12",
    "FCM_CONCURRENCY": str(FCM),
    "SMS_CONCURRENCY": str(SMS),
    "SMS_RATE_PER_SECOND": "0",
    "UNKEYED_BATCH": str(SMS),  # A process has three batches of a queue in hand.
    # Nothing times out, and no slow call is held against its channel, before the worker is killed.
    **{f"{channel}_{limit}_SECONDS": "6" for channel in ("FCM", "SMS") for limit in ("TIMEOUT", "SLOW")},
}


@pytest.fixture
def broker_url(stack: Stack) -> str:
    return stack.env["DRAMATIQ_BROKER_URL"]


def in_flight(vendors: Sandbox) -> dict[str, int]:
    return {vendor: vendors.stats(vendor)["in_flight"] for vendor in ("fcm", "twilio")}


def by_channel(rows: list[dict[str, Any]], channel: str) -> list[dict[str, Any]]:
    return [d for row in rows for d in row["deliveries"] if d["channel"] == channel]


def test_kill_with_500_sends_in_flight_loses_none_and_repeats_only_under_the_same_key(
    processes: Processes, publish: Publish, vendors: Sandbox
) -> None:
    # Given 500 sends that the vendors have accepted and not answered.
    trader = world.make_trader()
    audience(trader, FCM + SMS + IN_APP, channels=("fcm", "fcm", "fcm", "fcm", "sms"))
    for vendor in ("fcm", "twilio"):
        # Sends alone: FCM's access token is needed first.
        vendors.behave(vendor, rules=[{"match": {"route": "send"}, "latency_ms": 60_000}])
    processes.env |= ALL_AT_ONCE
    processes.manage("consume_trades")
    processes.manage("dispatch_due")
    doomed = processes.workers()
    event = world.trade(trader)
    publish(event)
    everything = {"fcm": FCM, "twilio": SMS}
    wait_until(collection(Batch), lambda: in_flight(vendors) == everything, "every send in flight")

    # When their worker is killed, and another one takes its place.
    processes.kill(doomed)
    first = {vendor: vendors.accepted(vendor) for vendor in everything}
    for vendor in everything:
        vendors.behave_well(vendor)
    processes.workers()
    rows = collection(Notification)
    wait_until(rows, all_settled(FCM + SMS + IN_APP), "everything at an end once the lease is over")

    # Then each SMS is `unknown`, for a person to look at, and was sent once.
    alerts = world.alerts(event)
    sms = by_channel(alerts, "sms")
    assert {(d["state"], d["error_code"]) for d in sms} == {(DeliveryState.UNKNOWN, Reason.CRASHED_IN_SEND)}
    assert (len(sms), vendors.stats("twilio")["accepted"]) == (SMS, SMS)
    # And each push was sent again under the tag that it had, and replaced itself.
    pushes = by_channel(alerts, "fcm")
    assert {(d["state"], d["attempts"]) for d in pushes} == {(DeliveryState.SENT, 2)}
    tags = Counter(message["key"] for message in first["fcm"])
    assert len(tags) == FCM
    assert Counter(message["key"] for message in vendors.accepted("fcm")) == dict.fromkeys(tags, 2)
    stats = vendors.stats("fcm")
    assert (stats["repeats_under_key"], stats["duplicates"]) == (FCM, 0)
    # And nobody was forgotten.
    assert Counter(row["state"] for row in alerts) == {"delivered": FCM + IN_APP, "failed": SMS}
