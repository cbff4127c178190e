"""Critical alerts have the right of way in the database as well.

Queues of their own let a critical alert overtake thousands of others, but not their statements: its own dozen small
ones share processors and journal with the bulk writes of every worker, and under a backlog each takes ten times as
long. So whoever works on a critical alert says so in Redis at each of its steps, and whoever works on anything else
waits before its next large statement until RIGHT_OF_WAY_MS after the last word.

What is under way already is not interrupted. So that it is soon over, a process has one large statement of a kind at
work at a time (`in_turn`): many at once finish no sooner, and each takes many times as long.

Nobody waits longer than PATIENCE_SECONDS at a time, so that the others get their share however many critical alerts
come. An outcome waits for no critical alert, as what was sent must be known; only for the one before it in its process.
While Redis is away everybody goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Final

import redis
from django.conf import settings

from followers.outage import REDIS
from followers.redis_client import client
from notifications.choices import Priority

PATIENCE_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 0.02
TIMEOUT_SECONDS: Final = 0.5
WITHOUT_REDIS: Final = "critical alerts have no right of way in the database"


def claim_way(priority: str) -> None:
    """A step of a critical alert begins; nothing for any other."""
    if priority != Priority.CRITICAL or not settings.RIGHT_OF_WAY_MS:
        return
    try:
        client(TIMEOUT_SECONDS).set(_key(), b"1", px=settings.RIGHT_OF_WAY_MS)
    except redis.RedisError as error:
        REDIS.away(error, meanwhile=WITHOUT_REDIS)
    else:
        REDIS.back()


def is_claimed(priority: str) -> bool:
    """Whether work of this priority should wait; never for critical work itself."""
    if priority == Priority.CRITICAL or not settings.RIGHT_OF_WAY_MS or REDIS.is_on:
        return False
    try:
        return bool(client(TIMEOUT_SECONDS).exists(_key()))
    except redis.RedisError as error:
        REDIS.away(error, meanwhile=WITHOUT_REDIS)
        return False


def give_way(priority: str) -> None:
    """Waits while critical alerts are under way, on a worker's thread."""
    patient_until = time.monotonic() + PATIENCE_SECONDS
    while is_claimed(priority) and time.monotonic() < patient_until:
        time.sleep(LOOK_SECONDS)


async def give_way_async(priority: str) -> None:
    """The same in the event loop. Its first look is the caller's, on a visit to a thread that it makes anyhow."""
    patient_until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < patient_until:
        await asyncio.sleep(LOOK_SECONDS)
        if not await asyncio.to_thread(is_claimed, priority):
            return


STORING, RECORDING = BoundedSemaphore(1), BoundedSemaphore(1)
"""Of a process: the bulk statements of its fan-outs, and the updates with its outcomes."""
TURN_PATIENCE_SECONDS: Final = 3.0
SMALL: Final = 20
"""Documents. A statement of so few is quicker than its turn would come."""


@contextmanager
def in_turn(kind: BoundedSemaphore, priority: str, documents: int) -> Iterator[None]:
    """One of these statements at a time; critical and small ones do not wait, and nobody waits for one that hangs."""
    is_large = priority != Priority.CRITICAL and documents > SMALL
    has_turn = is_large and kind.acquire(timeout=TURN_PATIENCE_SECONDS)
    try:
        yield
    finally:
        if has_turn:
            kind.release()


@contextmanager
def storing(priority: str, documents: int) -> Iterator[None]:
    """A fan-out's bulk statement, in its turn; it gives way when that has come, not before it waits for it."""
    with in_turn(STORING, priority, documents):
        give_way(priority)
        yield


def _key() -> str:
    return f"{settings.QUEUE_NAMESPACE}:guard:right_of_way"
