"""One channel's gate in this process: what `deliver` asks before it claims a batch and before each send."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import redis
import structlog

from delivery.channels.base import Channel, Outcome, Result
from delivery.choices import BreakerStatus
from delivery.guards import breaker
from delivery.guards.breaker import State
from delivery.guards.calls import LATELY_SECONDS, Calls, Counts
from delivery.guards.holds import WHOLE_CHANNEL, Holds
from delivery.guards.rates import Later, RateLimit, Turn
from delivery.guards.shared import Shared, decoded, encoded
from delivery.guards.slots import Slots
from delivery.guards.waves import Wave

logger = structlog.get_logger(__name__)

RATE_PATIENCE_SECONDS = 2.0
"""How long a batch waits in hand for its turn under a rate limit; after that it goes back to the database."""
RATE_ASK_SECONDS = 0.25
BUSY_SECONDS = (1.0, 5.0)
FORCED_OPEN_SECONDS = (20.0, 40.0)
PROBE_PATIENCE_SECONDS = 5.0
"""Past the channel's timeout a probe's worker gets so long to report, before its probes are given to others."""
CHANGES_TRIED = 8
GRAIN_SECONDS = 0.005
"""A send whose turn is that near starts at once: of thousands a second each would sleep for a fraction of it."""
Change = Callable[[State], State]


@dataclass(frozen=True, slots=True)
class Permit:
    """A batch may be claimed and sent.

    `probes`: how many of its sends may go out to try a half open breaker; None = all of them, the breaker is closed.
    """

    probes: int | None = None
    turn: Turn = field(default_factory=Turn)
    at: float = field(default_factory=time.monotonic)

    async def wait_for_turn(self, index: int) -> None:
        """Waits until send number `index` of the batch (from 0) may start under the channel's rate limit."""
        if self.turn.spacing:
            wait = self.at + self.turn.starts_in + index * self.turn.spacing - time.monotonic()
            if wait > GRAIN_SECONDS:
                await asyncio.sleep(wait)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A batch is not to be claimed now; it is worth a look again at that time (epoch seconds)."""

    until: float
    reason: str


class Gate:
    """Breaker, bulkhead, rate limit and holds of one channel, for one event loop.

    Parameters:
      shared: The guards' state in Redis.
      threads: Of this worker process; the channel never holds more than half of them.
      first_pause_seconds: Between a breaker's opening and its first probe.
      journal: Told each change of the breaker's status.
    """

    def __init__(
        self,
        channel: Channel,
        shared: Shared,
        limit: RateLimit | None,
        threads: int,
        first_pause_seconds: float,
        journal: Callable[[Channel, State, State], None],
    ) -> None:
        self.channel = channel
        self.name = f"{channel.name}:{channel.account}"
        self.calls = Calls(channel.policy.slow_seconds, channel.partial_codes)
        self.holds = Holds()
        self.slots = Slots(channel.policy.concurrency)
        self.wave = Wave()
        self.limit = limit
        self.first_pause_seconds = first_pause_seconds
        self.forced: BreakerStatus | None = None
        self.state = State()
        self._raw = b""
        self._lately = Counts()  # Of all workers, as of the last look.
        self._shared = shared
        self._journal = journal
        self._share = max(1, threads // 2)
        self._in_hand = 0

    @property
    def status(self) -> BreakerStatus:
        """What counts: staff's decision, else the breaker's own."""
        return self.forced or self.state.status

    @asynccontextmanager
    async def batch(self) -> AsyncIterator[None]:
        """Around the work on one batch."""
        self._in_hand += 1
        try:
            yield
        finally:
            self._in_hand -= 1

    # --- Before a batch is claimed ------------------------------------------------------------------------------------
    async def admit(self, priority: str, sends: int) -> Permit | Refusal:
        """Whether a batch of so many sends may be claimed now; to be called within `batch`. Takes the batch's turn
        under the rate limit, and its probes."""
        now = time.time()
        if self._in_hand > self._share:
            return Refusal(now + random.uniform(*BUSY_SECONDS), "The channel has its share of this worker in hand.")
        if (until := self.holds.until(WHOLE_CHANNEL, now)) is not None:
            return Refusal(until + random.uniform(0, 1), "The vendor asked us to wait.")
        probes: int | None = None
        if self.status is not BreakerStatus.CLOSED:
            probes = await self._take_probes(sends, now)
            if probes == 0:
                return Refusal(self.open_until(now), "The breaker is open.")
        turn = await self._turn(priority, sends if probes is None else probes)
        if isinstance(turn, Later):
            if probes:
                await self._put_back(probes)
            wait = min(BUSY_SECONDS[1], max(BUSY_SECONDS[0], turn.seconds))
            return Refusal(time.time() + wait * random.uniform(1, 1.5), "The rate limit has no room.")
        return Permit(probes, turn)

    async def _turn(self, priority: str, sends: int) -> Turn | Later:
        if self.limit is None:
            return Turn()
        deadline = time.monotonic() + RATE_PATIENCE_SECONDS
        while True:
            turn = await self.limit.take(priority, sends)
            if isinstance(turn, Turn) or time.monotonic() + turn.seconds > deadline:
                return turn
            await asyncio.sleep(min(turn.seconds, RATE_ASK_SECONDS))

    def open_until(self, now: float) -> float:
        """When something that met an open breaker is worth another look. Spread, so that a backlog does not come back
        all at once: of a million alerts a few are enough as probes."""
        if self.forced is BreakerStatus.OPEN:
            return now + random.uniform(*FORCED_OPEN_SECONDS)
        if self.state.status is BreakerStatus.HALF_OPEN:
            return now + random.uniform(*BUSY_SECONDS)
        spread = min(self.state.pause_seconds, 60.0) / 2
        return max(self.state.probe_at, now) + random.uniform(0, max(spread, 0.1))

    # --- Before and after a send --------------------------------------------------------------------------------------
    def stopped_until(self, endpoint: str, is_probe: bool) -> float | None:
        """Until when a send that is about to start must wait after all; None = it may start."""
        now = time.time()
        if not is_probe and self.status is not BreakerStatus.CLOSED:
            return self.open_until(now)
        return self.holds.until(endpoint, now)

    def note(self, endpoint: str, result: Result) -> None:
        """Remembers what an answer said about the vendor's limits."""
        scope, now = result.extra.get("throttled"), time.time()
        if result.outcome is Outcome.THROTTLED and result.retry_after_seconds and scope is not None:
            who = endpoint if scope == "endpoint" else WHOLE_CHANNEL
            self.holds.hold(who, now + result.retry_after_seconds)
        elif "hold_seconds" in result.extra:  # The last message that this address may have for now.
            self.holds.hold(endpoint, now + float(result.extra["hold_seconds"]))

    async def probed(self, went_well: bool) -> None:
        """Tells all workers what a probe found."""
        await self._move(lambda state: breaker.probed(state, went_well, time.time()))

    async def probes_unused(self, probes: int) -> None:
        """Gives probes back that found nothing to send."""
        if probes > 0:
            await self._put_back(probes)

    # --- The breaker's state ------------------------------------------------------------------------------------------
    def heard(self, raw: bytes) -> None:
        """The breaker as the workers share it."""
        self._set(decoded(raw), raw)

    def force(self, status: BreakerStatus | None) -> None:
        """What staff have decided outranks the breaker's own state; None = it decides by itself."""
        if status is BreakerStatus.OPEN and self.forced is not status:
            self.slots.send_all_away()
        self.forced = status

    async def share_own_state(self) -> None:
        """Redis knows of no state, because it was emptied or was away: it is told the one of this process."""
        self._raw = b""
        if self.state != State():
            await self._move(lambda state: state, tell_anyway=True)

    async def open_if_bad(self, counts: Counts, lately: Counts) -> None:
        """closed → open where the calls since it closed speak against the vendor."""
        self._lately = lately
        await self._move(lambda state: breaker.judge(state, counts, lately, time.time(), self.first_pause_seconds))

    async def trip(self, reason: str) -> bool:
        """closed → open at once, for what no count would show, and a person is told: our set-up is wrong.

        Returns whether this call opened it: of all workers that meet the same mistake only one does.
        """
        tripped = await self._move(lambda state: breaker.tripped(state, time.time(), self.first_pause_seconds, reason))
        if tripped and self.status is BreakerStatus.CLOSED:
            logger.error("A vendor does not take our set-up; staff keep its breaker closed.", channel=self.name,
                         reason=reason)  # fmt: skip
        elif tripped:
            logger.error("A vendor does not take our set-up; its channel waits.", channel=self.name, reason=reason)
        return tripped

    async def trip_if_refused(self, results: Sequence[Result]) -> None:
        """closed → open where one of a batch's answers was about our account, and the vendor took no other alert of the
        batch, nor lately one of any worker's.

        Where others were taken it is not our account after all; then the counts decide.
        """
        partial = self.channel.partial_codes
        refused = next((r for r in results if r.outcome is Outcome.MISCONFIGURED and r.code not in partial), None)
        if refused is None or any(r.outcome is Outcome.SENT for r in results):
            return
        own = self.calls.window(time.time() - LATELY_SECONDS)
        if not any(lately.bad < lately.calls for lately in (own, self._lately)):
            await self.trip(f"{refused.code}: {refused.message}")

    async def is_in_wave(self) -> bool:
        """Whether the breaker stands open for a wave, as the workers share it at this moment."""
        with suppress(redis.RedisError):  # Then by what was heard last.
            if raw := await self._shared.read(self.name):
                self.heard(raw)
        return self.state.is_wave

    async def _take_probes(self, wanted: int, now: float) -> int:
        if self.forced is BreakerStatus.OPEN:
            return 0
        granted = 0
        answer_seconds = self.channel.policy.timeout_seconds + PROBE_PATIENCE_SECONDS

        def take(state: State) -> State:
            nonlocal granted
            state, granted = breaker.take_probes(state, wanted, now, answer_seconds)
            return state

        await self._move(take)
        return granted

    async def _put_back(self, probes: int) -> None:
        await self._move(lambda state: breaker.put_back(state, probes))

    async def _move(self, change: Change, tell_anyway: bool = False) -> bool:
        """Changes the state by compare-and-set; without Redis, only for this process. False = it is as it was."""
        for _ in range(CHANGES_TRIED):
            before = self.state
            after = change(before)
            if after == before and not tell_anyway:
                return False
            raw = encoded(after)
            try:
                if await self._shared.change(self.name, self._raw, raw):
                    self._set(after, raw, changed_here=True)
                    return True
                self.heard(await self._shared.read(self.name))
            except redis.RedisError:
                self._set(after, b"", changed_here=True)
                return True
        logger.warning("A breaker's state changes too fast to be changed.", channel=self.name)
        return False

    def _set(self, state: State, raw: bytes, changed_here: bool = False) -> None:
        before, self.state, self._raw = self.state, state, raw
        if before.status is state.status:
            return
        if state.status is BreakerStatus.OPEN:
            self.slots.send_all_away()  # What waits for a slot would wait for a vendor that does not answer.
        if changed_here:
            self._journal(self.channel, before, state)
