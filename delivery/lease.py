"""How long a worker may act on what it claimed, measured on its own monotonic clock."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

from bson import ObjectId

from delivery import statements

Document = dict[str, Any]


class LeaseLostError(Exception):
    """The batch was taken over, or could not be renewed in time: nothing more may be started under it."""


class Lease:
    """A claimed batch and the time that is left of it.

    The time counts from just before the statement that set it was sent, so that it always ends earlier here than in
    the database, whatever the network did and however long this process was paused.
    """

    def __init__(self, batch: Document, seconds: float, started: float) -> None:
        self.batch = batch
        self.seconds = seconds
        self._started = started
        self._lost = False

    @property
    def remaining(self) -> float:
        """Seconds that are left; 0 once the lease is lost."""
        return 0.0 if self._lost else max(0.0, self._started + self.seconds - _elapsed())

    @property
    def due_for_renewal(self) -> bool:
        return self.remaining <= self.seconds * 2 / 3

    def covers(self, seconds: float) -> bool:
        """Whether something that takes so long and starts now is over before the lease is."""
        return self.remaining > seconds

    def renew(self) -> None:
        """Raises LeaseLostError if the batch is somebody else's by now."""
        started = _elapsed()
        if self.remaining == 0.0 or not statements.renew(self.batch, self.seconds):
            self._lost = True
            raise LeaseLostError(f"Batch {self.batch['_id']} was taken over.")
        self._started = started

    def keep(self) -> None:
        """Renews once a third of the lease is over. Raises LeaseLostError."""
        if self.due_for_renewal:
            self.renew()


def claim(batch_id: ObjectId, seconds: float) -> Lease | None:
    """Claims a batch. None = somebody else holds it, it is finished, or it is gone."""
    started = _elapsed()
    batch = statements.claim(batch_id, worker_name(), seconds)
    return Lease(batch, seconds, started) if batch else None


def take_over(batch: Document, seconds: float) -> Lease | None:
    """Claims a batch whose worker let its lease run out. None = it is alive after all, or somebody was faster."""
    started = _elapsed()
    taken = statements.take_over(batch, worker_name(), seconds)
    return Lease(taken, seconds, started) if taken else None


def _elapsed() -> float:
    """Seconds on a clock that never jumps and, unlike CLOCK_MONOTONIC, runs on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def worker_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"  # Read anew: workers are forked.
