"""Random histories of a position: whatever the order in which trades arrive and are fanned out, exits win."""

from __future__ import annotations

import os
import random
from datetime import timedelta
from typing import Any

import pytest

from delivery.fan_out import fan_out_shard
from delivery.lease import claim
from delivery.statements import load
from devstack.vendors.client import Sandbox
from followers import clock
from notifications.choices import EXITS
from tests.pipeline import world

pytestmark = pytest.mark.django_db(transaction=True)
Document = dict[str, Any]
HISTORIES = int(os.environ.get("HISTORIES", "300"))
PER_BATCH = 50  # So many histories, each with a trader of its own, share one pass through the pipeline.


def history(generator: random.Random, trader: Any) -> list[Document]:
    """Three to eight trades of one position, in the order of their execution."""
    length = generator.randint(3, 8)
    held, trades = 0, []
    start = clock.now() - timedelta(minutes=30)
    for n in range(length):
        action = generator.choice(["OPEN", "ADD", "REDUCE", "CLOSE"] if held else ["OPEN"])
        quantity = held if action == "CLOSE" else generator.randint(1, held if action == "REDUCE" else 50)
        before = held
        held += quantity if action in {"OPEN", "ADD"} else -quantity
        side = "BUY" if action in {"OPEN", "ADD"} else "SELL"
        details = {"action": action, "side": side, "quantity": str(quantity)}
        at = start + timedelta(seconds=n)
        trades.append(
            world.trade(trader, executed_at=at, positionBefore=str(before), positionAfter=str(held), **details)
        )
    return trades


@pytest.mark.parametrize("seed", range(HISTORIES // PER_BATCH))
def test_exits_win_in_every_order(vendors: Sandbox, seed: int) -> None:
    generator = random.Random(seed)
    vendors.behave("fcm", keep_bodies=True)
    histories, followers, claimed_early = [], {}, set()
    for _ in range(PER_BATCH):
        trader = world.make_trader()
        # One whose share rounds to nothing, so that size could suppress an exit.
        followers[trader.pk] = world.make_follower(trader, "fcm", portfolio=generator.choice(["1", "10000", "250000"]))
        histories.append((trader, history(generator, trader)))
    arrivals = [(trader, event) for trader, events in histories for event in events]
    generator.shuffle(arrivals)

    shards: list[Document] = []
    while arrivals:
        polled = [arrivals.pop() for _ in range(min(generator.randint(1, 10), len(arrivals)))]
        shards += world.take_in_trades(*(event for _, event in polled))
        while len(shards) > 10:  # The others are fanned out later, after trades that came after them.
            fan_out_shard(shards.pop(generator.randrange(len(shards)))["_id"])
        if generator.random() < 0.4:
            claimed_early |= _claim_one_early(generator)
    for shard in shards:
        fan_out_shard(shard["_id"])
    world.deliver_all()

    for trader, events in histories:
        _check(events, followers[trader.pk], claimed_early)


def _claim_one_early(generator: random.Random) -> set[Any]:
    """A worker claims a batch and loads it: what it holds keeps its own outcome, whatever comes later."""
    batches = world.unclaimed()
    if not batches:
        return set()
    lease = claim(generator.choice(batches)["_id"], 600)
    return {row["_id"] for row in load(lease.batch)} if lease else set()


def _check(events: list[Document], follower: Any, claimed_early: set[Any]) -> None:
    for n, event in enumerate(events):
        row = world.alert(event, follower)
        details = event["tradeDetails"]
        if details["action"] in EXITS:
            assert row["sizing"]["reason"] == "", "No exit is suppressed by its size."
            assert row["state"] == "delivered" or row["_id"] in claimed_early, "No exit is dropped."
            continue
        closed_later = any(later["tradeDetails"]["positionAfter"] == "0" for later in events[n + 1 :])
        if row["sizing"]["reason"]:
            assert row["state"] == "skipped"
        elif not closed_later:
            assert row["state"] == "delivered" or row["_id"] in claimed_early, (
                "No newer entry is cancelled by a late exit."
            )
        else:
            fcm = world.delivery(row, "fcm")
            cancelled = (fcm["state"], fcm["error_code"]) == ("cancelled", "superseded_by_exit")
            assert cancelled or row["_id"] in claimed_early, "No entry is claimed after its exit was fanned out."
