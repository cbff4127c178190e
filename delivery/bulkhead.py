"""Keeps one channel's trouble its own: how much of a worker process a channel may hold."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from delivery.channels.policy import ChannelPolicy


class Bulkhead:
    """A channel's share of one worker process: sends in flight, and threads that hold its batches.

    A healthy channel may use every thread, so that a backlog drains at full speed. One whose oldest send has been
    under way for longer than `slow_seconds` is kept to half of them: a vendor that hangs cannot hold the workers.
    """

    def __init__(self, policy: ChannelPolicy, threads: int) -> None:
        self._slots = asyncio.Semaphore(policy.concurrency)
        self._slow_seconds = policy.slow_seconds
        self._share = max(1, threads // 2)
        self._batches = 0
        self._started: dict[object, float] = {}  # Sends in flight, the oldest first.

    @property
    def admits(self) -> bool:
        """Whether another batch may be claimed now."""
        return self._batches < self._share or not self._is_slow()

    def _is_slow(self) -> bool:
        oldest = next(iter(self._started.values()), None)
        return oldest is not None and time.monotonic() - oldest > self._slow_seconds

    @asynccontextmanager
    async def batch(self) -> AsyncIterator[None]:
        """Around the work on one batch."""
        self._batches += 1
        try:
            yield
        finally:
            self._batches -= 1

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Around one send; waits until the channel has fewer than its limit in flight."""
        async with self._slots:
            send = object()
            self._started[send] = time.monotonic()
            try:
                yield
            finally:
                del self._started[send]
