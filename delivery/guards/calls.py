"""How a channel's calls went lately: counted in this process by the second, and handed on to the other workers."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, time

from delivery.channels.base import Outcome, Result

WINDOW_SECONDS = 10
"""Calls older than this say nothing about the vendor any more."""
LATELY_SECONDS = 4
"""The newest part of the window: a vendor that answers nothing any more shows here while the window is still full of
what it answered before."""

FAILURES = frozenset({Outcome.RETRY, Outcome.MISCONFIGURED, Outcome.UNKNOWN})
"""Outcomes that speak against the vendor. A refusal of one message or address does not: the vendor is well."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Calls of one channel over the window. Each call counts once, as soon as it is answered or slow."""

    calls: int = 0
    failed: int = 0
    slow: int = 0  # Unanswered after the channel's slow_seconds; not counted as failed again if it fails later.
    throttled: int = 0  # 429s that may be about the whole channel; not among the calls.

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) + getattr(other, name) for name in COUNTED))

    @property
    def bad(self) -> int:
        return self.failed + self.slow


COUNTED = ("calls", "failed", "slow", "throttled")


class Call:
    """One send under way."""

    __slots__ = ("slow", "started")

    def __init__(self, started: float) -> None:
        self.started = started  # Of the monotonic clock.
        self.slow = False


class Calls:
    """Counts the calls of one channel in this process.

    Parameters:
      slow_seconds: A call that has no answer by then counts as slow at that moment; a hanging vendor is noticed before
        its first timeout.
      partial_codes: The channel's; a vendor that answers one of them is well.
      now: Epoch seconds.
    """

    def __init__(
        self, slow_seconds: float, partial_codes: frozenset[str] = frozenset(), now: Callable[[], float] = time
    ) -> None:
        self._slow_seconds = slow_seconds
        self._partial_codes = partial_codes
        self._now = now
        self._running: dict[Call, None] = {}  # The oldest first.
        self._seconds: deque[tuple[int, Counter[str]]] = deque()
        self._unsaid: Counter[str] = Counter()

    @property
    def running(self) -> int:
        return len(self._running)

    def begin(self) -> Call:
        call = Call(monotonic())
        self._running[call] = None
        return call

    def end(self, call: Call, result: Result | None) -> bool:
        """Counts an ended call; None = it was broken off by us. Returns whether it speaks for the vendor."""
        self._running.pop(call, None)
        if result is None or result.outcome is Outcome.EXPIRED:
            return not call.slow
        if result.outcome is Outcome.THROTTLED:
            if result.extra.get("throttled") != "endpoint":
                self._count("throttled")
            return True
        failed = result.outcome in FAILURES and result.code not in self._partial_codes
        if call.slow:
            return False  # Counted when it became slow.
        slow = monotonic() - call.started > self._slow_seconds
        self._count("calls", *(["failed"] if failed else ["slow"] if slow else []))
        return not failed and not slow

    def note_slow(self) -> None:
        """Counts the calls that have become slow since the last look."""
        limit = monotonic() - self._slow_seconds
        for call in self._running:
            if call.started > limit:
                return
            if not call.slow:
                call.slow = True
                self._count("calls", "slow")

    def window(self, since: float = 0.0) -> Counts:
        """This process's own counts of the window, or of its part after the second of `since`."""
        self._forget()
        total: Counter[str] = Counter()
        for second, counts in self._seconds:
            if second > int(since):
                total.update(counts)
        return Counts(*(total[name] for name in COUNTED))

    def take_unsaid(self) -> Counts:
        """What was counted since the last call of this; to be told to the other workers."""
        unsaid, self._unsaid = self._unsaid, Counter()
        return Counts(*(unsaid[name] for name in COUNTED))

    def give_back(self, counts: Counts) -> None:
        """They could not be told; next time."""
        self._unsaid.update({name: getattr(counts, name) for name in COUNTED})

    def _count(self, *names: str) -> None:
        second = int(self._now())
        if not self._seconds or self._seconds[-1][0] != second:
            self._forget()
            self._seconds.append((second, Counter()))
        counted = self._seconds[-1][1]
        for name in names:
            counted[name] += 1
            self._unsaid[name] += 1

    def _forget(self) -> None:
        oldest = int(self._now()) - WINDOW_SECONDS
        while self._seconds and self._seconds[0][0] <= oldest:
            self._seconds.popleft()
