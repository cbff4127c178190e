"""How many sends a channel may have in flight in this process, and who is next when all are taken."""

from __future__ import annotations

import asyncio
from collections import deque

from delivery.choices import PRIORITY_SHARES


class Slots:
    """A bounded number of slots. While all are taken, free ones are shared among the priorities that wait by
    PRIORITY_SHARES: critical alerts overtake a backlog of normal ones, which still move.

    Not thread-safe: for one event loop.
    """

    def __init__(self, size: int) -> None:
        self._free = size
        self._waiting: dict[str, deque[asyncio.Future[bool]]] = {p: deque() for p in PRIORITY_SHARES}
        self._credit = dict.fromkeys(PRIORITY_SHARES, 0)

    def slot(self, priority: str) -> Slot:
        """Around one send. False = sent away: there is no slot, and nothing may be sent."""
        return Slot(self, priority)

    def send_all_away(self) -> None:
        """Whoever waits gets no slot: the breaker has opened, or the worker is stopping."""
        for turns in self._waiting.values():
            while turns:
                turn = turns.popleft()
                if not turn.done():
                    turn.set_result(False)

    async def take(self, priority: str) -> bool:
        """Waits for a slot, which must be released. False = sent away without one."""
        if self._free > 0:  # Nobody waits while one is free.
            self._free -= 1
            return True
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[priority].append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self.release()  # It was handed over in the same moment.
            raise

    def release(self) -> None:
        """Hands a slot on to whoever is next."""
        while (priority := self._next()) is not None:
            turn = self._waiting[priority].popleft()
            if not turn.done():
                turn.set_result(True)
                return
        self._free += 1

    def _next(self) -> str | None:
        """Smooth weighted round-robin: each waiting priority earns its share, the richest one pays for its turn."""
        waiting = [priority for priority, turns in self._waiting.items() if turns]
        if not waiting:
            return None
        for priority in waiting:
            self._credit[priority] += PRIORITY_SHARES[priority]
        chosen = max(waiting, key=self._credit.__getitem__)
        self._credit[chosen] -= sum(PRIORITY_SHARES[priority] for priority in waiting)
        return chosen


class Slot:
    """One send's slot. A class, for contextlib's generator costs more than all the rest of it."""

    __slots__ = ("_has_slot", "_priority", "_slots")

    def __init__(self, slots: Slots, priority: str) -> None:
        self._slots = slots
        self._priority = priority
        self._has_slot = False

    async def __aenter__(self) -> bool:
        self._has_slot = await self._slots.take(self._priority)
        return self._has_slot

    async def __aexit__(self, *error: object) -> None:
        if self._has_slot:
            self._slots.release()
