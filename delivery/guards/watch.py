"""The task that keeps the gates of a process in step with all other workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import redis
import structlog
from pymongo.errors import PyMongoError

from delivery.choices import BreakerStatus
from delivery.guards.calls import LATELY_SECONDS, Counts
from delivery.guards.gate import Gate
from delivery.guards.holds import WHOLE_CHANNEL
from delivery.guards.shared import Shared, Told
from followers.outage import MONGODB, REDIS

logger = structlog.get_logger(__name__)

BUSY_SECONDS = 0.25
"""Between two exchanges while there are calls under way: a hanging vendor is noticed that much later."""
IDLE_SECONDS = 1.0
FORCED_SECONDS = 2.0
"""Between two looks at what staff have forced."""
THROTTLED_SHARE = 0.5
"""When more of the answers than this are 429s, the whole channel waits, not only the alerts that got one."""
THROTTLED_MIN = 20
THROTTLED_HOLD_SECONDS = 2.0

Forced = Mapping[str, BreakerStatus]


class Watch:
    """Counts what is slow, exchanges with the others, and opens breakers.

    Parameters:
      forced: Reads which breakers staff have forced, by `channel:account`; called on a thread.
    """

    def __init__(self, gates: Sequence[Gate], shared: Shared, forced: Callable[[], Forced]) -> None:
        self._gates = gates
        self._shared = shared
        self._forced = forced
        self._forced_at = 0.0
        self._throttled_until: dict[str, float] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Looks after the gates until `stop` is set. Not to be cancelled: a driver may take that for a timeout."""
        while not stop.is_set():
            await self._step_safely()
            pause = BUSY_SECONDS if any(gate.calls.running for gate in self._gates) else IDLE_SECONDS
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
        await self._step_safely()  # What was counted last is for the other workers.

    async def _step_safely(self) -> None:
        try:
            await self.step()
        except Exception:
            # Whatever it is, the gates must not stay without their watch; they go by what they know.
            logger.exception("The breakers could not be looked after.")

    async def step(self) -> None:
        """One look at everything."""
        await self._read_forced()
        for gate in self._gates:
            gate.calls.note_slow()
        counts = await self._exchange()
        for gate, (counted, lately) in zip(self._gates, counts, strict=True):
            await gate.open_if_bad(counted, lately)
            self._hold_if_throttled(gate)

    async def _exchange(self) -> list[tuple[Counts, Counts]]:
        """The calls that all workers counted since each breaker closed, within the window and lately; this process's
        own while Redis is away."""
        told = [Told(gate.calls.take_unsaid(), gate.holds.take_unsaid()) for gate in self._gates]
        try:
            heard = await self._shared.exchange(told, time.time())
        except redis.RedisError as error:
            for gate, one in zip(self._gates, told, strict=True):
                gate.calls.give_back(one.counts)
                gate.holds.give_back(one.holds)
            REDIS.away(error, meanwhile="each worker goes by the calls of its own")
            return [self._own(gate) for gate in self._gates]
        REDIS.back()
        for gate, one_heard in zip(self._gates, heard, strict=True):
            gate.holds.heard(one_heard.holds, time.time())
            if one_heard.state:
                gate.heard(one_heard.state)
            else:
                await gate.share_own_state()
            if gate.limit is not None:
                gate.limit.workers = self._shared.workers
        return [(one_heard.counts, one_heard.lately) for one_heard in heard]

    @staticmethod
    def _own(gate: Gate) -> tuple[Counts, Counts]:
        since = gate.state.since
        return gate.calls.window(since), gate.calls.window(max(since, time.time() - LATELY_SECONDS))

    def _hold_if_throttled(self, gate: Gate) -> None:
        """Where most answers are 429s, sending on only earns more of them."""
        now = time.time()
        counts = gate.calls.window(self._throttled_until.get(gate.name, 0.0))
        answers = counts.calls + counts.throttled
        if answers >= THROTTLED_MIN and counts.throttled > THROTTLED_SHARE * answers:
            self._throttled_until[gate.name] = now + THROTTLED_HOLD_SECONDS
            gate.holds.hold(WHOLE_CHANNEL, now + THROTTLED_HOLD_SECONDS)
            logger.warning("Most answers are 429s; the channel waits.", channel=gate.name, throttled=counts.throttled,
                           answers=answers, seconds=THROTTLED_HOLD_SECONDS)  # fmt: skip

    async def _read_forced(self) -> None:
        if time.monotonic() - self._forced_at < FORCED_SECONDS:
            return
        self._forced_at = time.monotonic()
        try:
            forced = await asyncio.to_thread(self._forced)
        except PyMongoError as error:
            MONGODB.away(error)  # What staff have forced stays as it was.
            return
        for gate in self._gates:
            gate.force(forced.get(gate.name))
