"""Slots of one channel: bounded, shared by priority, and given up when there is nothing to wait for."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from delivery.guards.slots import Slots


async def settled() -> None:
    """Lets every task run until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_never_more_in_flight_than_slots() -> None:
    slots, running, most = Slots(3), 0, 0

    async def send() -> None:
        nonlocal running, most
        async with slots.slot("high") as has_slot:
            assert has_slot
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1

    await asyncio.gather(*(send() for _ in range(50)))
    assert (most, running) == (3, 0)


async def test_waiting_priorities_are_served_by_their_shares_and_none_starves() -> None:
    slots, order = Slots(1), list[str]()
    release = asyncio.Event()

    async def hold() -> None:
        async with slots.slot("high"):
            await release.wait()

    async def send(priority: str) -> None:
        async with slots.slot(priority):
            order.append(priority)

    first = asyncio.create_task(hold())
    await settled()
    tasks = [asyncio.create_task(send(p)) for p in ("normal", "high", "critical") for _ in range(100)]
    await settled()
    release.set()
    await asyncio.gather(first, *tasks)

    assert Counter(order[:100]) == {"critical": 70, "high": 20, "normal": 10}
    assert Counter(order) == {"critical": 100, "high": 100, "normal": 100}


async def test_lone_priority_takes_all() -> None:
    slots = Slots(1)

    async def send() -> None:
        async with slots.slot("normal") as has_slot:
            assert has_slot
            await asyncio.sleep(0)

    await asyncio.wait_for(asyncio.gather(*(send() for _ in range(20))), 10)


async def test_those_who_wait_are_sent_away_and_those_in_flight_keep_their_slot() -> None:
    slots, release = Slots(2), asyncio.Event()

    async def send() -> bool:
        async with slots.slot("high") as has_slot:
            if has_slot:
                await release.wait()
            return has_slot

    tasks = [asyncio.create_task(send()) for _ in range(5)]
    await settled()
    slots.send_all_away()
    await settled()
    assert [t.done() for t in tasks] == [False, False, True, True, True]
    release.set()
    assert await asyncio.gather(*tasks) == [True, True, False, False, False]
    async with slots.slot("high") as free, slots.slot("high") as also_free:
        assert free
        assert also_free


async def test_cancelled_waiter_loses_no_slot() -> None:
    slots, release = Slots(1), asyncio.Event()

    async def send() -> Any:
        async with slots.slot("high"):
            await release.wait()

    first, second = asyncio.create_task(send()), asyncio.create_task(send())
    await settled()
    release.set()
    await first  # Hands its slot to the second, which is cancelled before it has run.
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    async with slots.slot("normal") as has_slot:
        assert has_slot
