"""The benchmarks' parts that could mislead in silence: the vendor, the rivals' work, and the verdict on a figure."""

from __future__ import annotations

import asyncio
import json
import socket
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from bson import Decimal128, ObjectId

from bench.measure import Spread, percentile
from bench.report import Limit
from bench.rivals import work
from bench.stage import Stage, follower_numbers, quantity
from bench.vendor import VendorClient, serve
from delivery.alerts import AlertWriter
from delivery.intake import read_message
from delivery.intake_documents import AcceptedEvent, event_document
from followers.statements import AudienceMember
from notifications.statements import event_id

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
TRADER = {"_id": ObjectId(), "external_id": "T", "portfolio_value": Decimal128("100000"), "currency": "INR"}


def stored_event() -> dict[str, Any]:
    key, message = Stage.trade("T")
    message["executedAt"] = NOW.isoformat()
    accepted = read_message(json.dumps(message).encode(), (), b"T")
    assert isinstance(accepted, AcceptedEvent)
    return event_document(event_id(key), accepted, TRADER, 1, NOW)


def member(portfolio: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    follower = {"_id": ObjectId(), "portfolio_value": Decimal128(portfolio), "currency": "INR", "locale": "en"}
    follow = {"follower_id": follower["_id"], "multiplier": Decimal128("1"), "allocation": None, "max_notional": None}
    return follow, follower, {"_id": ObjectId(), "follower_id": follower["_id"], "channel": "fcm"}


def test_a_rival_stores_what_notifyhub_stores() -> None:
    # Given a trade and a follower
    event, shard = stored_event(), {"_id": ObjectId(), "event": ObjectId(), "shard": 0}
    follow, follower, endpoint = member("24000")

    # When both write the alert
    loaded = {**event, "expires_at": event["expires_at"].replace(tzinfo=None)}
    writer = AlertWriter(loaded, shard, frozenset({"fcm"}))
    ours = writer.alerts_for([AudienceMember(follow, follower, [endpoint])], set(), NOW)
    rows, entries = work.alerts(event, [(follow, follower, endpoint)], ObjectId(), NOW)

    # Then the documents have the same fields, and the follower is told the same
    (our_row,), (their_row,) = ours.notifications, rows
    assert their_row.keys() == our_row.keys()
    assert [d.keys() for d in their_row["deliveries"]] == [d.keys() for d in our_row["deliveries"]]
    assert their_row["sizing"].keys() == our_row["sizing"].keys()
    assert their_row["sizing"]["suggested_qty"].to_decimal() == our_row["sizing"]["suggested_qty"].to_decimal() == 12
    assert entries[0].keys() == ours.entries[0].keys()
    assert entries[0]["payload"].keys() == ours.entries[0]["payload"].keys()
    assert entries[0]["payload"]["title"] == ours.entries[0]["payload"]["title"]


async def test_the_vendor_counts_messages_and_repeats() -> None:
    # Given a vendor that takes 10 ms
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = asyncio.create_task(serve(port, 0.01))
    client, url = VendorClient(port), f"http://127.0.0.1:{port}/v1/projects/bench/messages:send"
    row = work.alerts(stored_event(), [member("24000")], None, NOW)[0][0]
    message = work.message(row, "token", work.Words(row))

    # When a message is sent twice, and something that is none
    async with aiohttp.ClientSession() as session:
        while server.get_loop().is_running():
            try:
                first = await session.post(url, json=message)
                break
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0)
        again = await session.post(url, json=message)
        wrong = await session.post(url, json={"message": {}})
    told = await asyncio.to_thread(client.take)

    # Then it says so, and begins anew
    assert (first.status, again.status, wrong.status) == (200, 200, 400)
    assert (told["count"], told["duplicates"], told["refused"]) == (2, 1, 1)
    assert told["accepted"][0][:2] == [row["event_key"], str(row["_id"])]
    assert await asyncio.to_thread(client.count) == 0
    server.cancel()


@pytest.mark.parametrize(
    ("limit", "value", "holds"),
    [
        (Limit(least=0.7), 0.7, True),
        (Limit(least=0.7), 0.69, False),
        (Limit(most=20), 20, True),
        (Limit(most=20), 20.1, False),
    ],
)
def test_a_limit_is_held_or_missed(limit: Limit, value: float, holds: bool) -> None:
    assert limit.holds(value) is holds


def test_the_figures_of_rounds() -> None:
    assert Spread.of([3, 1, 2]) == Spread(least=1, median=2, most=3)
    assert percentile([1, 2, 3, 4], 0.5) == 3
    assert percentile([1, 2, 3, 4], 1.0) == 4


def test_followers_of_traders_do_not_overlap_and_know_their_quantity() -> None:
    audiences = {"T-a": 2, "T-b": 3}
    assert list(follower_numbers(audiences, "T-a")) == [1, 2]
    assert list(follower_numbers(audiences, "T-b")) == [3, 4, 5]
    assert quantity(7) == 12  # 50 · 24,000 / 100,000, for the portfolio of follower 7.
