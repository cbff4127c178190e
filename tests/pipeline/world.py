"""Traders, followers and trades for the pipeline's tests, and a way to run the pipeline in the test's own process."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from bson import ObjectId

from delivery import dispatcher, statements
from delivery.choices import BatchKind
from delivery.deliver import deliver_batch
from delivery.fan_out import fan_out_shard
from delivery.guards.gate import Gate, Refusal
from delivery.intake import IncomingMessage, take_in
from delivery.lease import claim
from delivery.models import Batch
from delivery.statements import Patch
from delivery.vendors import close_channels, open_channels
from followers import clock
from followers.models import Endpoint, Follow, Follower, Trader
from followers.mongo import collection
from notifications.models import InAppEntry, Notification, TradeEvent
from notifications.statements import event_id

Document = dict[str, Any]
numbers = itertools.count(1)

ADDRESSES = {
    "apns": lambda n: f"{n:064x}",
    "fcm": lambda n: f"fcm-token-{n:032x}",
    "sms": lambda n: f"+4915{n:09d}",
    "discord": lambda n: f"https://discord.com/api/webhooks/{10**17 + n}/hook-token-{n:060d}",
    "discord_dm": lambda n: str(10**17 + n),
    "onesignal": lambda n: f"00000000-0000-4000-8000-{n:012x}",
}
PLATFORMS = {"apns": "ios", "fcm": "android"}


def make_trader(portfolio: str = "100000", currency: str = "INR") -> Trader:
    n = next(numbers)
    return Trader.objects.create(
        external_id=f"T-{n}", name=f"Trader {n}", portfolio_value=Decimal(portfolio), currency=currency
    )


def make_follower(
    trader: Trader, *channels: str, portfolio: str | None = "10000", since: datetime | None = None, **follow: Any
) -> Follower:
    """A follower with one endpoint per named channel; `discord_dm` is a direct message's address."""
    n = next(numbers)
    value = None if portfolio is None else Decimal(portfolio)
    follower = Follower.objects.create(
        external_id=f"F-{n}", name=f"Follower {n}", portfolio_value=value, currency="INR"
    )
    Follow.objects.create(trader=trader, follower=follower, since=since or clock.now() - timedelta(days=1), **follow)
    for channel in channels:
        add_endpoint(channel, follower=follower)
    return follower


def add_endpoint(channel: str, **owner: Any) -> Endpoint:
    return Endpoint.objects.create(
        channel=channel.removesuffix("_dm"),
        address=ADDRESSES[channel](next(numbers)),
        platform=PLATFORMS.get(channel, ""),
        **owner,
    )


def trade(
    trader: Trader | str, event: str | None = None, executed_at: datetime | None = None, **details: Any
) -> Document:
    """An event as the engine publishes it; `details` overrides tradeDetails."""
    at = executed_at or clock.now()
    return {
        "eventId": event or f"E-{next(numbers)}",
        "version": 1,
        "traderId": trader if isinstance(trader, str) else trader.external_id,
        "executedAt": at.isoformat().replace("+00:00", "Z"),
        "tradeDetails": {
            "orderId": details.pop("orderId", ""),
            "symbol": "RELIANCE",
            "exchange": "XNSE",
            "side": "BUY",
            "action": "OPEN",
            "productType": "DELIVERY",
            "quantity": "50",
            "price": "2945.50",
            "currency": "INR",
            **details,
        },
    }


def take_in_trades(*events: Document) -> list[Document]:
    """Stores events as consume_trades does. Returns their shard batches."""
    messages = [
        IncomingMessage("trade.executed", 0, next(numbers), None, json.dumps(event).encode(), ()) for event in events
    ]
    return list(take_in(messages, clock.now()).batches)


def fan_out(*events: Document) -> None:
    """Takes events in and fans them out in this process."""
    for batch in take_in_trades(*events):
        fan_out_shard(batch["_id"])


def deliver_all() -> None:
    """Delivers every unclaimed delivery batch in this process, on one event loop, until none is left."""

    async def run() -> None:
        await open_channels(THREADS)
        try:
            for _ in range(MOST_ROUNDS):
                batches = await asyncio.to_thread(unclaimed)
                if not batches:
                    return
                await asyncio.gather(*(deliver_batch(batch["_id"]) for batch in batches))
            raise AssertionError(f"Batches are still unclaimed after {MOST_ROUNDS} rounds: {batches}")
        finally:
            await close_channels()

    asyncio.run(run())


MOST_ROUNDS = 30
THREADS = 10_000
"""All batches of a test are in hand at once; no bulkhead is in their way."""


def unclaimed(kind: str = BatchKind.DELIVER) -> list[Document]:
    query = {"kind": str(kind), "token": None, "finished_at": None, "next_look_at": {"$ne": None}}
    return list(collection(Batch).find(query))


def sweep(after_seconds: float = 0) -> dispatcher.Sweep:
    """One sweep of dispatch_due, as if so many seconds had passed."""
    return dispatcher.sweep_once(clock.now() + timedelta(seconds=after_seconds))


def alerts(event: Document | None = None) -> list[Document]:
    query = {} if event is None else {"event_id": event_id(event["eventId"])}
    return list(collection(Notification).find(query).sort("_id", 1))


def alert(event: Document, follower: Follower | None) -> Document:
    """The one alert of a follower (None: of the trader's community) about an event."""
    query = {"event_id": event_id(event["eventId"]), "follower_id": follower and follower.pk}
    (found,) = collection(Notification).find(query)
    return found


def entries(follower: Follower) -> list[Document]:
    return list(
        collection(InAppEntry).find({"follower_id": follower.pk}).sort([("executed_at", -1), ("event_key", -1)])
    )


def stored_event(event: Document) -> Document:
    found = collection(TradeEvent).find_one({"_id": event_id(event["eventId"])})
    assert found is not None
    return found


def delivery(row: Document, channel: str) -> Document:
    """The one delivery of an alert on a channel."""
    (found,) = [d for d in row["deliveries"] if d["channel"] == channel]
    return found


def states(row: Document) -> dict[str, str]:
    """channel → state of an alert with at most one delivery per channel."""
    return {d["channel"]: d["state"] for d in row["deliveries"]}


def batch(batch_id: ObjectId) -> Document:
    found = collection(Batch).find_one({"_id": batch_id})
    assert found is not None
    return found


def end_lease(batch_id: ObjectId) -> None:
    """Makes a claimed batch look as if its worker had died long ago."""
    past = clock.now() - timedelta(seconds=1)
    collection(Batch).update_one({"_id": batch_id}, {"$set": {"lease_until": past, "next_look_at": past}})


def accepted(sandbox: Any, vendors: Iterable[str] = ("apns", "fcm", "twilio", "discord", "onesignal")) -> int:
    return sum(sandbox.stats(vendor)["accepted"] for vendor in vendors)


class WorkerDied(BaseException):
    """Stands for a SIGKILL: nothing of ours catches it."""


def free_all_rows() -> None:
    """As after a retry: every delivery is queued, due, and in no batch."""
    now = clock.now()
    for batch in unclaimed():
        rows = statements.load(batch)
        statements.record(batch["_id"], [Patch(r["_id"], {"batch": None, "next_attempt_at": now}) for r in rows])
        collection(Batch).delete_one({"_id": batch["_id"]})


def crash_in(batch_id: ObjectId) -> None:
    """A worker claims the batch and dies."""
    assert claim(batch_id, 30) is not None
    end_lease(batch_id)


def refuse_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on every channel's gate refuses whatever asks, as an open breaker does."""

    async def refuse(self: Gate, priority: str, sends: int) -> Refusal:
        return Refusal(time.time() + 3, "refused by the test")

    monkeypatch.setattr(Gate, "admit", refuse)


def deliver_once() -> None:
    """One try at each unclaimed delivery batch."""

    async def run() -> None:
        await open_channels(THREADS)
        try:
            for batch in await asyncio.to_thread(unclaimed):
                await deliver_batch(batch["_id"])
        finally:
            await close_channels()

    asyncio.run(run())
