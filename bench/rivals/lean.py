"""NotifyHub's protocol without any framework: the ceiling. `python -m bench.rivals.lean fan_out|deliver`.

Fan-out in one process, hints in a Redis list, batches of 200, one majority write per claim, 200 requests in flight by
pyreqwest, and one pipeline update for the outcomes of a batch.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import redis
import uvloop
from bson import ObjectId
from pyreqwest.client import Client, ClientBuilder
from redis import asyncio as async_redis

from bench.rivals import work

BATCH, IN_FLIGHT, IN_HAND = 200, 200, 3
HINTS = "bench:lean:hints"


# --- Fan-out ---------------------------------------------------------------------------------------------------------
def fan_out() -> None:
    queue = redis.Redis.from_url(os.environ["DRAMATIQ_BROKER_URL"])
    for event in work.trades("bench-lean"):
        for follows in work.audience(event):
            members, now = work.with_people(follows), datetime.now(UTC)
            rows, entries, batches = [], [], []
            for start in range(0, len(members), BATCH):
                batch = ObjectId()
                some, some_entries = work.alerts(event, members[start : start + BATCH], batch, now)
                rows += some
                entries += some_entries
                ids, next_look_at = [row["_id"] for row in some], now + timedelta(seconds=5)
                batches.append(
                    {"_id": batch, "priority": "high", "next_look_at": next_look_at, "ids": ids, "token": None}
                )
            work.table("delivery_batch").insert_many(batches)
            work.insert(rows, entries)
            queue.rpush(HINTS, *(str(batch["_id"]) for batch in batches))


# --- Delivery --------------------------------------------------------------------------------------------------------
class Deliver:
    """One process's deliveries."""

    def __init__(self) -> None:
        self._queue = async_redis.Redis.from_url(os.environ["DRAMATIQ_BROKER_URL"], socket_timeout=None)
        self._client: Client = ClientBuilder().http1_only().max_connections(IN_FLIGHT).build()
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._url = work.send_url()

    async def run(self) -> None:
        print("Ready.", flush=True)  # noqa: T201  Whoever started this process waits for it.
        await asyncio.gather(*(self._work() for _ in range(IN_HAND)))

    async def _work(self) -> None:
        while True:
            popped: Any = await self._queue.blpop([HINTS])
            claimed = await asyncio.to_thread(_claim, ObjectId(popped[1].decode()))
            if claimed is None:
                continue
            rows, bodies = await asyncio.to_thread(_load, claimed)
            started = time.perf_counter()
            ids = await asyncio.gather(*map(self._send, bodies))
            latency = (time.perf_counter() - started) * 1000
            await asyncio.to_thread(_record, claimed, [row["_id"] for row in rows], ids, latency)

    async def _send(self, body: bytes) -> str:
        async with self._slots:
            answer = await self._client.post(self._url).headers(work.HEADERS).body_bytes(body).build().send()
            if answer.status != 200:
                raise RuntimeError(f"The vendor answers {answer.status}.")
            return str(orjson.loads(bytes(await answer.bytes()))["name"])


def _claim(batch_id: ObjectId) -> work.Document | None:
    change = [{"$set": {"token": os.urandom(8).hex(), "lease_until": {"$add": ["$$NOW", 30_000]}}}]
    return work.table("delivery_batch").find_one_and_update({"_id": batch_id, "token": None}, change)


def _load(batch: work.Document) -> tuple[list[work.Document], list[bytes]]:
    query = {"_id": {"$in": batch["ids"]}, "deliveries.batch": batch["_id"]}
    rows = list(work.table("notifications_notification").find(query, {**work.MESSAGE_FIELDS, "deliveries.endpoint": 1}))
    return rows, work.bodies(rows, work.addresses(rows))


def _record(batch: work.Document, ids: list[ObjectId], provider_ids: list[str], latency_ms: float) -> None:
    provider = {"$arrayElemAt": [{"$literal": provider_ids}, {"$indexOfArray": [{"$literal": ids}, "$_id"]}]}
    change = work.sent(provider, datetime.now(UTC), latency_ms)
    patched = {"$cond": [{"$eq": ["$$d.batch", batch["_id"]]}, {"$mergeObjects": ["$$d", change]}, "$$d"]}
    queued = {"$in": ["queued", "$deliveries.state"]}
    pipeline: list[dict[str, Any]] = [
        {"$set": {"deliveries": {"$map": {"input": "$deliveries", "as": "d", "in": patched}}}},
        {"$set": {"state": {"$cond": [queued, "pending", "delivered"]}, "wake_at": None}},
    ]
    query = {"_id": {"$in": ids}, "deliveries.batch": batch["_id"]}
    work.table("notifications_notification").update_many(query, pipeline)


if __name__ == "__main__":
    work.prepare()
    if sys.argv[1] == "fan_out":
        fan_out()
    else:
        uvloop.run(Deliver().run())
