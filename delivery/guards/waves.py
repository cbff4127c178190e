"""Tells dead addresses from a mistake of ours that makes every address look dead."""

from __future__ import annotations

from collections import deque
from time import monotonic

WAVE_SECONDS = 60.0
WAVE_MIN = 20
"""So many refusals of addresses within the time, without a single success, are no coincidence."""

WAVE_REASON = "for every address; is the set-up right?"
"""How the reason of a breaker ends that a wave has opened: by this all workers know of it."""


class Wave:
    """Suspicious refusals and successes of one channel in this process, over the last WAVE_SECONDS."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, int]] = deque()

    def is_one(self, suspects: int, successes: int, is_known: bool) -> bool:
        """Counts a batch's answers. Whether its suspects are part of a wave.

        Parameters:
          is_known: The breaker stands open for one: then a single suspect is part of it, however few were seen here.
        """
        now = monotonic()
        if suspects or successes:
            self._seen.append((now, suspects, successes))
        while self._seen and self._seen[0][0] < now - WAVE_SECONDS:
            self._seen.popleft()
        if not suspects or any(batch[2] for batch in self._seen):
            return False
        return is_known or sum(batch[1] for batch in self._seen) >= WAVE_MIN
