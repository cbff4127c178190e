"""When rejects are no longer a matter of single messages: a limit stops the loop instead of setting all aside."""

from __future__ import annotations

import time
from collections.abc import Callable

from delivery.intake import Intake


class PoisonLimitError(Exception):
    """So many messages in a row were not events that somebody should look before the rest is set aside too."""


class PoisonWatch:
    """Counts consecutive rejects: `count` of them, over at least `seconds`, are no fault of single messages."""

    def __init__(self, count: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = count
        self._seconds = seconds
        self._clock = clock
        self._count = 0
        self._since = 0.0

    def note(self, intake: Intake) -> None:
        """Raises PoisonLimitError once the limit is reached; what was rejected has been stored by then."""
        if intake.trailing_rejects < intake.total:
            self._count = 0
        if intake.trailing_rejects and not self._count:
            self._since = self._clock()
        self._count += intake.trailing_rejects
        lasted = self._clock() - self._since
        if self._count >= self._limit and lasted >= self._seconds:
            raise PoisonLimitError(
                f"The last {self._count:,} messages, over {lasted:.0f} s, were not trade events. They are kept as "
                "rejected events and can be replayed; the first reasons tell what to mend before the next start."
            )
