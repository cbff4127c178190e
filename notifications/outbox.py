"""What one socket is still to be told, in order, sent by a task of the socket's own.

Whoever has news for thousands of sockets only puts it here and goes on, so that a client that reads slowly holds up
nobody but itself.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

MOST_WAITING = 1_000
"""Frames. More wait only for a client that takes nothing in: the others are sent a chunk before the next one comes."""

logger = structlog.get_logger(__name__)

Step = Callable[[], Awaitable[None]]


class Outbox:
    """One socket's. Its task lives only while something waits: thousands of idle sockets have none."""

    def __init__(self, send: Callable[[str], Awaitable[None]], give_up: Callable[[], None]) -> None:
        """`give_up` is called when too much waits, or a step fails; nothing is sent afterwards."""
        self._send = send
        self._give_up = give_up
        self._waiting: deque[str | Step] = deque()
        self._task: asyncio.Task[None] | None = None
        self._has_ended = False
        self.turn = asyncio.Lock()
        """Held while something is sent, also by whoever answers the client: an answer made from what was read earlier
        must not come after news of what was written later."""

    @property
    def is_empty(self) -> bool:
        return self._task is None

    def put(self, item: str | Step) -> None:
        """Adds a frame's text, or a step that reads and sends by itself when its turn comes."""
        if self._has_ended:
            return
        if len(self._waiting) == MOST_WAITING:
            self._stop()
            return
        self._waiting.append(item)
        if self._task is None:
            self._task = asyncio.create_task(self._empty(), context=contextvars.Context())

    def end(self) -> None:
        """Nothing more is sent. Doing it twice changes nothing."""
        self._has_ended = True
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()

    def _stop(self) -> None:
        self.end()
        self._give_up()

    async def _empty(self) -> None:
        try:
            while self._waiting:
                async with self.turn:
                    item = self._waiting.popleft()
                    await (self._send(item) if isinstance(item, str) else item())
        except OSError:  # The client has gone; its consumer is told as well.
            self._task = None  # It ends by itself.
            self.end()
        except Exception:
            logger.exception("A socket's news could not be sent; it is closed.")
            self._task = None
            self._stop()
        finally:
            self._task = None
