"""No queue, no claims, one process: a trade is read, fanned out and sent by aiohttp, and its outcomes are recorded.

What it reaches says what the machine can do at all, and whether the yardsticks were well built.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import uvloop

from bench.rivals import work
from bench.rivals.aiohttp_sends import Sender

CHUNK = 1_000
AHEAD = 2  # Chunks that are stored before they are sent.


async def run() -> None:
    sender, coming = Sender(), work.trades("bench-bare")
    while (event := await asyncio.to_thread(next, coming, None)) is not None:
        stored: asyncio.Queue[Any] = asyncio.Queue(AHEAD)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_store(event, stored))
            while (chunk := await stored.get()) is not None:
                rows, bodies = chunk
                ids = await sender.send(bodies)
                tasks.create_task(asyncio.to_thread(work.record_one_by_one, rows, ids, datetime.now(UTC)))


async def _store(event: work.Document, stored: asyncio.Queue[Any]) -> None:
    for follows in work.audience(event, CHUNK):
        await stored.put(await asyncio.to_thread(_store_chunk, event, follows))
    await stored.put(None)


def _store_chunk(event: work.Document, follows: list[work.Document]) -> tuple[list[work.Document], list[bytes]]:
    members = work.with_people(follows)
    rows, entries = work.alerts(event, members, None, datetime.now(UTC))
    work.insert(rows, entries)
    return rows, work.bodies(rows, [endpoint["address"] for _, _, endpoint in members])


if __name__ == "__main__":
    work.prepare()
    uvloop.run(run())
