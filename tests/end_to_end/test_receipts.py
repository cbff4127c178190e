"""Receipts through every process: a worker sends, the vendor tells the web process what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devstack.ports import Ports
from devstack.stack import Stack
from devstack.vendors.client import Sandbox
from followers.models import Endpoint
from followers.mongo import collection
from notifications.models import Notification
from tests.end_to_end.processes import Processes, wait_until
from tests.pipeline import world

pytestmark = [pytest.mark.django_db(transaction=True)]
HOOK_TOKEN = "hook-token-0123456789"


@pytest.fixture
def broker_url(stack: Stack) -> str:
    return stack.env["DRAMATIQ_BROKER_URL"]


def deliveries(state: str) -> int:
    matching = {"deliveries": {"$elemMatch": {"channel": {"$ne": "in_app"}, "state": state}}}
    return collection(Notification).count_documents(matching)


def test_sms_and_pushes_end_delivered_or_with_the_vendors_reason(
    processes: Processes, publish: Callable[..., None], vendors: Sandbox, tmp_path: Path
) -> None:
    trader = world.make_trader()
    sms = [world.make_follower(trader, "sms") for _ in range(24)]
    pushes = [world.make_follower(trader, "onesignal") for _ in range(6)]
    unreached, filtered, early = (Endpoint.objects.get(follower=follower).address for follower in sms[:3])
    vendors.behave(
        "twilio",
        rules=[
            {"match": {"address": unreached, "first_n": 1}, "receipts": ["sent", "undelivered:30003"]},
            {"match": {"address": filtered}, "receipts": ["undelivered:30007", "sent"]},
            {"match": {"address": early}, "receipts": ["delivered", "sent", "delivered"], "receipts_first": True},
        ],
    )
    port = Ports(["web"], tmp_path / "ports.json")["web"]
    origin = f"http://127.0.0.1:{port}"
    processes.env |= {"PUBLIC_BASE_URL": origin, "ONESIGNAL_HOOK_TOKEN": HOOK_TOKEN}
    vendors.stream_events(f"{origin}/hooks/onesignal/", {"authorization": f"Bearer {HOOK_TOKEN}"})
    try:
        processes.web(port)
        processes.manage("consume_trades")
        processes.manage("dispatch_due")
        processes.workers()
        event = world.trade(trader)

        publish(event)
        ended = len(sms) + len(pushes)
        wait_until(
            collection(Notification),
            lambda: deliveries("delivered") + deliveries("failed") == ended,
            "every receipt taken in",
        )
        wait_until(collection(Notification), lambda: not batched(), "every attempt recorded")
    finally:
        vendors.stream_events("")

    rows = world.alerts(event)
    sent = {d["endpoint"]: d for row in rows for d in row["deliveries"] if d["channel"] != "in_app"}
    by_address = {e.address: sent[e.pk] for e in Endpoint.objects.all()}
    assert Counter(row["state"] for row in rows) == {"delivered": ended - 1, "failed": 1}
    assert (by_address[filtered]["state"], by_address[filtered]["error_code"]) == ("failed", "30007")
    assert (by_address[unreached]["state"], by_address[unreached]["attempts"]) == ("delivered", 2)
    for address, delivery in by_address.items():
        assert delivery["attempts"] == (2 if address == unreached else 1)
        assert delivery["provider_message_id"]
        assert (delivery["delivered_at"] is not None) == (address != filtered)
        assert "receipt" in [attempt["outcome"] for attempt in delivery["attempt_log"]]
    assert vendors.stats("twilio")["accepted"] == len(sms) + 1
    assert vendors.stats("onesignal")["accepted"] == len(pushes)


def batched() -> list[Any]:
    return list(collection(Notification).find({"deliveries.batch": {"$ne": None}}, {"_id": 1}))
