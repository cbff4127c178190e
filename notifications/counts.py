"""The unread counts that a web process tells its sockets after news of an inbox.

Counted here and not by whoever changed the inbox: once for all changes that came together, only for those who are
connected, and after the news themselves, which people wait for. As one task counts and tells, no count is overtaken by
an older one.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable

from bson import ObjectId
from pymongo.errors import PyMongoError

from followers import clock
from followers.outage import MONGODB
from notifications import inbox

PAUSE_SECONDS, PAUSE_SECONDS_EACH, MOST_PAUSE_SECONDS = 0.03, 0.001, 1.0
"""How long no further news must come before those who wait are counted: a fan-out to thousands gets its news out first,
and a single person's badge does not lag."""
PATIENCE_SECONDS = 3.0
"""Then it is counted, whatever comes."""
CHUNK = 2_000  # Followers per query.


class Counts:
    """Of one event loop."""

    def __init__(self, tell: Callable[[bytes, int], None]) -> None:
        """`tell` gets a follower's id and unread count, and returns at once."""
        self._tell = tell
        self._wanted: set[bytes] = set()
        self._task: asyncio.Task[None] | None = None

    def want(self, follower: bytes) -> None:
        """Has a follower told the count, soon."""
        self._wanted.add(follower)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._count_all(), context=contextvars.Context())

    async def _count_all(self) -> None:
        while self._wanted:
            await self._until_no_more_come()
            # Taken out before they are counted: what happens meanwhile is counted again.
            wanted, self._wanted = list(self._wanted), set()
            for start in range(0, len(wanted), CHUNK):
                await self._count(wanted[start : start + CHUNK])

    async def _until_no_more_come(self) -> None:
        loop = asyncio.get_running_loop()
        until, seen = loop.time() + PATIENCE_SECONDS, 0
        while len(self._wanted) != seen and loop.time() < until:
            seen = len(self._wanted)
            await asyncio.sleep(min(PAUSE_SECONDS + PAUSE_SECONDS_EACH * seen, MOST_PAUSE_SECONDS))

    async def _count(self, followers: list[bytes]) -> None:
        ids = [ObjectId(follower) for follower in followers]
        try:
            counts = await asyncio.to_thread(inbox.unread_counts, ids, clock.now())
        except PyMongoError as error:
            MONGODB.away(error)
            self._wanted.update(followers)
            await asyncio.sleep(MOST_PAUSE_SECONDS)
            return
        for follower, count in counts.items():
            self._tell(follower.binary, count)
