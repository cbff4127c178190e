"""Queued notifications, sent by a bare loop: `python -m bench.rivals.bare_deliver PROCESSES`, one process of so many.

No queue and no claims: each process takes its part by number, and the outcomes are recorded in bulk.
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime
from typing import Any

import redis
import uvloop

from bench.rivals import work
from bench.rivals.aiohttp_sends import Sender

CHUNK, IN_HAND = 200, 3
GO = "bench:go"


async def run(parts: int) -> None:
    sender = Sender()
    ids = [row["_id"] for row in work.table("notifications_notification").find({}, {"_id": 1}).sort("_id", 1)]
    print("Ready.", flush=True)  # noqa: T201  Whoever started this process waits for it.
    queue = redis.Redis.from_url(os.environ["DRAMATIQ_BROKER_URL"], socket_timeout=None)
    popped: Any = queue.blpop([GO])
    mine = ids[int(popped[1]) :: parts]
    chunks = [mine[start : start + CHUNK] for start in range(0, len(mine), CHUNK)]
    slots = asyncio.Semaphore(IN_HAND)
    async with asyncio.TaskGroup() as tasks:
        for chunk in chunks:
            tasks.create_task(_send(sender, slots, chunk))
    await sender.close()
    await asyncio.Event().wait()  # Until it is ended: it is measured as long as the others are.


async def _send(sender: Sender, slots: asyncio.Semaphore, ids: list[Any]) -> None:
    async with slots:
        rows, bodies = await asyncio.to_thread(_load, ids)
        provider_ids = await sender.send(bodies)
        await asyncio.to_thread(work.record_one_by_one, rows, provider_ids, datetime.now(UTC))


def _load(ids: list[Any]) -> tuple[list[work.Document], list[bytes]]:
    fields = {**work.MESSAGE_FIELDS, "deliveries": 1}
    rows = list(work.table("notifications_notification").find({"_id": {"$in": ids}}, fields))
    return rows, work.bodies(rows, work.addresses(rows))


if __name__ == "__main__":
    work.prepare()
    uvloop.run(run(int(sys.argv[1])))
