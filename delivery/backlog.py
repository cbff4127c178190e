"""How far behind the pipeline is, and when it is so far that no more trades are taken in.

Holding back is the last resort. What waits in MongoDB waits by priority: an exit overtakes every entry, and withdraws
it. What waits in Kafka waits in line, an exit behind the entries before it. So being late is no reason to hold back,
and neither is a long queue; only a backlog so large that it endangers the database itself is, for then nothing at all
would be delivered.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Thread

import structlog
from django.conf import settings
from django.db import connections

from delivery import statements as batches
from followers.mongo import is_passing
from followers.outage import MONGODB
from notifications.choices import Priority

logger = structlog.get_logger(__name__)

MEASURED_EVERY_SECONDS = (2.0, 10.0)
FIRST_LOOK_SECONDS = 2.0
SHARE_OF_TIME = 0.05
"""Counting a large backlog takes a while; it is done so rarely that it takes no more of the time than this."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """The batches that are not finished, fan-out shards and deliveries alike, by priority.

    Each figure is counted no further than `limit`, so that measuring costs the same however far behind things are.
    """

    batches: dict[str, int]
    limit: int

    @property
    def total(self) -> int:
        return sum(self.batches.values())

    @property
    def is_counted_out(self) -> bool:
        """False = there may be more than `total`."""
        return all(count < self.limit for count in self.batches.values())


def measure(limit: int) -> Backlog:
    """The present backlog. Raises PyMongoError while MongoDB is away; does not repeat."""
    return Backlog({p.value: batches.count_unfinished(p.value, limit) for p in Priority}, limit)


class BacklogWatch:
    """Measures the backlog on a thread of its own, and says when trades have to be held back and when no more.

    Parameters
    ----------
    measured
        Returns the backlog, counted up to the number that it is given.
    """

    def __init__(self, measured: Callable[[int], Backlog] = measure) -> None:
        self._measure = measured
        self._closed = Event()
        self._first = Event()
        self._too_large = False
        self._began = 0.0
        Thread(target=self._run, name="backlog", daemon=True).start()

    @property
    def holds_back(self) -> bool:
        """Whether nothing may be taken in now."""
        return self._too_large

    def wait_for_first_look(self) -> None:
        """Until the backlog is known for the first time, or the database has had its time to answer."""
        self._first.wait(FIRST_LOOK_SECONDS)

    def close(self) -> None:
        """Let the thread end; does not wait for it."""
        self._closed.set()

    def _run(self) -> None:
        pause = 0.0
        while not self._closed.wait(pause):
            started = time.monotonic()
            self._look()
            self._first.set()
            shortest, longest = MEASURED_EVERY_SECONDS
            pause = min(longest, max(shortest, (time.monotonic() - started) / SHARE_OF_TIME))
        connections.close_all()

    def _look(self) -> None:
        most = settings.BACKLOG_MAX_BATCHES
        try:
            backlog = self._measure(most + 1)
        except Exception as error:
            # What was known last still counts. An error of ours must not hold up everybody's trades.
            if is_passing(error):
                MONGODB.away(error)
            else:
                logger.exception("The backlog could not be measured.")
                self._too_large = False
            return
        resume_below = int(most * settings.BACKLOG_RESUME_SHARE)
        if not self._too_large and backlog.total > most:
            self._too_large, self._began = True, time.monotonic()
            logger.warning(
                "The pipeline is hopelessly behind: trades stay in Kafka until it has caught up. Look what is away "
                "(/readyz) and which breakers are open, and start more workers.",
                unfinished_batches=backlog.batches,
                backlog_max_batches=most,
                resume_below=resume_below,
            )
        elif self._too_large and backlog.total <= resume_below:
            self._too_large = False
            logger.warning(
                "The pipeline has caught up: trades are taken in again.",
                unfinished_batches=backlog.batches,
                held_back_seconds=round(time.monotonic() - self._began),
            )
