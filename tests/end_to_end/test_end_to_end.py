"""From an event on Kafka to the vendors and the inboxes, through every process, and through their deaths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from decimal import ROUND_DOWN, Decimal
from typing import Any

import pytest
import redis

from delivery.choices import BatchKind
from delivery.models import Batch
from devstack.stack import Stack
from devstack.vendors.client import Sandbox
from followers.encryption import address_hash, encrypt
from followers.models import Endpoint, Follow, Follower, follower_bucket
from followers.mongo import collection
from notifications.models import InAppEntry, Notification
from tests.end_to_end.processes import Processes, wait_until
from tests.pipeline import world

pytestmark = [pytest.mark.django_db(transaction=True)]
Publish = Callable[..., None]
VENDORS = ("apns", "fcm", "twilio", "discord", "onesignal")
CHANNELS = ("apns", "fcm", "sms", "discord", "onesignal")


def audience(
    trader: Any, size: int, channels: tuple[str, ...] = CHANNELS, all_reachable: bool = False
) -> dict[Any, tuple[str, Decimal]]:
    """Many followers at once: every channel in turn, and then one without any, unless all are to have an address.

    Returns follower → (channel, portfolio).
    """
    kinds = channels if all_reachable else (*channels, "")
    followers = [
        Follower(external_id=f"{trader.external_id}-F{n}", portfolio_value=Decimal(2_000 + 37 * n), currency="INR")
        for n in range(size)
    ]
    Follower.objects.bulk_create(followers)
    since = world.clock.now() - world.timedelta(days=1)
    Follow.objects.bulk_create(
        [Follow(trader=trader, follower=f, since=since, bucket=follower_bucket(f.pk)) for f in followers]
    )
    first = 100_000 * next(world.numbers)
    endpoints: list[Endpoint] = []
    expected: dict[Any, tuple[str, Decimal]] = {}
    for n, follower in enumerate(followers):
        channel = kinds[n % len(kinds)]
        expected[follower.pk] = (channel, follower.portfolio_value or Decimal(0))
        if channel:
            address = world.ADDRESSES[channel](first + n)
            platform = world.PLATFORMS.get(channel, "")
            endpoints.append(
                Endpoint(
                    follower=follower,
                    channel=channel,
                    address=address,
                    address_hash=address_hash(address),
                    platform=platform,
                )
            )
    Endpoint.objects.bulk_create(endpoints)
    assert encrypt(endpoints[0].address) != endpoints[0].address
    return expected


def all_settled(count: int) -> Callable[[], bool]:
    settled = {"state": {"$ne": "pending"}}
    return lambda: collection(Notification).count_documents(settled) == count


@pytest.fixture(params=["redis", "sqs"])
def broker_url(request: pytest.FixtureRequest, stack: Stack) -> str:
    return "sqs://" if request.param == "sqs" else stack.env["DRAMATIQ_BROKER_URL"]


def test_one_trade_reaches_everybody_once_with_their_exact_quantity(
    processes: Processes, publish: Publish, vendors: Sandbox
) -> None:
    trader = world.make_trader(portfolio="100000")
    expected = audience(trader, 500)
    processes.manage("consume_trades")
    processes.manage("dispatch_due")
    processes.workers(processes=2)
    event = world.trade(trader, quantity="73", quantityStep="0.01", minQuantity="0")
    started = world.clock.now()

    publish(event)
    wait_until(collection(Notification), all_settled(500), "every alert settled")

    rows = world.alerts(event)
    assert Counter(row["state"] for row in rows) == {"delivered": 500}
    assert {row["follower_id"] for row in rows} == set(expected)
    quantities = {}
    for row in rows:
        channel, portfolio = expected[row["follower_id"]]
        exact = (Decimal(73) * portfolio / Decimal(100_000)).quantize(Decimal("0.01"), ROUND_DOWN)
        quantities[str(row["_id"])] = exact
        assert row["sizing"]["suggested_qty"].to_decimal() == exact
        assert world.states(row) == {"in_app": "sent", **({channel: "sent"} if channel else {})}
        assert started.replace(tzinfo=None) <= row["created_at"] <= world.clock.now().replace(tzinfo=None)
        for sent in (d for d in row["deliveries"] if d["channel"] != "in_app"):
            assert row["created_at"] <= sent["last_attempt_at"] <= sent["sent_at"]
            assert (sent["attempts"], bool(sent["provider_message_id"])) == (1, True)
    assert collection(InAppEntry).count_documents({}) == 500
    stats = {vendor: vendors.stats(vendor) for vendor in VENDORS}
    assert sum(s["accepted"] for s in stats.values()) == sum(1 for channel, _ in expected.values() if channel)
    assert [s["duplicates"] + s["repeats_under_key"] + s["replays"] for s in stats.values()] == [0] * 5
    for message in vendors.accepted("fcm"):
        data = message["body"]["data"]
        assert Decimal(data["suggested_qty"]) == quantities[data["notification_id"]]


@pytest.mark.parametrize("broker_url", ["redis"], indirect=True)
def test_same_event_thrice_and_workers_killed_twice_still_tell_everybody_once(
    processes: Processes, publish: Publish, vendors: Sandbox
) -> None:
    size = 1_000
    trader = world.make_trader()
    expected = audience(trader, size, channels=("fcm", "apns", "onesignal"))
    for vendor in ("fcm", "apns", "onesignal"):
        vendors.behave(vendor, latency_ms=400)
    processes.env |= {"FAN_OUT_CHUNK": "10", "FCM_CONCURRENCY": "40", "APNS_CONCURRENCY": "40"}
    processes.manage("consume_trades")
    processes.manage("dispatch_due")
    first = processes.workers()
    event = world.trade(trader)

    publish(event, event, event)
    rows = collection(Notification)
    wait_until(rows, lambda: 0 < rows.count_documents({}) < size, "the fan-out is under way")
    processes.kill(first)
    assert rows.count_documents({}) < size, "The worker was to be killed in mid-fan-out."

    second = processes.workers()
    claimed = {"kind": BatchKind.DELIVER, "token": {"$ne": None}, "finished_at": None}
    wait_until(
        rows,
        lambda: rows.count_documents({}) == size and collection(Batch).count_documents(claimed) > 0,
        "in mid-delivery",
    )
    processes.kill(second)
    assert rows.count_documents({"state": "pending"}) > 0, "The worker was to be killed in mid-delivery."

    processes.workers()
    wait_until(rows, all_settled(size), "everything delivered after the restart, without help")

    assert Counter(row["state"] for row in world.alerts(event)) == {"delivered": size}
    assert rows.count_documents({}) == size
    assert {row["follower_id"] for row in world.alerts(event)} == set(expected)
    assert [vendors.stats(vendor)["duplicates"] for vendor in VENDORS] == [0] * 5


@pytest.mark.parametrize("broker_url", ["redis"], indirect=True)
def test_emptied_redis_loses_no_delivery(
    processes: Processes, publish: Publish, vendors: Sandbox, stack: Stack, broker_url: str
) -> None:
    size = 400
    trader = world.make_trader()
    audience(trader, size)
    event = world.trade(trader)
    processes.manage("consume_trades")
    fan_out_only = processes.manage(
        "rundramatiq",
        "--processes",
        "1",
        "--threads",
        "2",
        "--queues",
        "fan_out_critical",
        "fan_out_high",
        "fan_out_normal",
    )
    publish(event)
    rows = collection(Notification)
    wait_until(rows, lambda: rows.count_documents({}) == size, "fanned out")
    processes.kill(fan_out_only)
    assert rows.count_documents({"state": "pending"}) > 0

    redis.Redis.from_url(broker_url).flushall()
    processes.manage("dispatch_due")
    processes.workers()
    wait_until(rows, all_settled(size), "everything delivered all the same")

    assert Counter(row["state"] for row in world.alerts(event)) == {"delivered": size}
    assert [vendors.stats(vendor)["duplicates"] for vendor in VENDORS] == [0] * 5
