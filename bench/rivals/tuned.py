"""The best that Celery can be made: 100 followers a task, bulk writes, and one event loop that the threads share.

Workers: `celery -A bench.rivals.tuned worker --pool threads`; the consumer: `python -m bench.rivals.tuned`.
"""

from __future__ import annotations

import asyncio
import os
import threading
from datetime import UTC, datetime
from functools import cache

import uvloop
from bson import ObjectId
from celery import Celery

from bench.rivals import work
from bench.rivals.aiohttp_sends import Sender

FOLLOWERS_A_TASK = 100
app = Celery("tuned", broker=os.environ["DRAMATIQ_BROKER_URL"])
app.conf.update(task_acks_late=True, task_ignore_result=True, worker_prefetch_multiplier=2, task_default_queue="tuned")
work.prepare()


@app.task(name="alert")  # type: ignore[untyped-decorator]
def alert(event_id: str, follow_ids: list[str]) -> None:
    event = work.table("notifications_tradeevent").find_one({"_id": ObjectId(event_id)})
    query = {"_id": {"$in": [ObjectId(one) for one in follow_ids]}}
    members = work.with_people(list(work.table("followers_follow").find(query)))
    rows, entries = work.alerts(event, members, None, datetime.now(UTC))
    work.insert(rows, entries)
    loop, sender = _shared()
    bodies = work.bodies(rows, [endpoint["address"] for _, _, endpoint in members])
    ids = asyncio.run_coroutine_threadsafe(sender.send(bodies), loop).result()
    work.record_one_by_one(rows, ids, datetime.now(UTC))


_lock = threading.Lock()


def _shared() -> tuple[asyncio.AbstractEventLoop, Sender]:
    with _lock:
        return _started()


@cache
def _started() -> tuple[asyncio.AbstractEventLoop, Sender]:
    """The process's event loop, in a thread of its own, and its session."""
    loop = uvloop.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    async def make() -> Sender:
        return Sender()

    return loop, asyncio.run_coroutine_threadsafe(make(), loop).result()


def consume() -> None:
    for event in work.trades("bench-tuned"):
        for follows in work.audience(event, FOLLOWERS_A_TASK):
            alert.delay(str(event["_id"]), [str(follow["_id"]) for follow in follows])


if __name__ == "__main__":
    consume()
