"""How a worker process stops: it starts nothing more, and what it has in hand comes to its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Protocol

_stopping = threading.Event()


def start_nothing_more() -> None:
    """The worker is stopping: what is in flight may end, what waits for its turn goes back."""
    _stopping.set()


def start_again() -> None:
    """A worker has (re)started in this process."""
    _stopping.clear()


def is_stopping() -> bool:
    return _stopping.is_set()


class WorkerThread(Protocol):
    """What is needed of Dramatiq's worker threads."""

    def stop(self) -> None: ...

    def join(self, timeout: float) -> None: ...

    def is_alive(self) -> bool: ...


def wait_for_threads(threads: Sequence[WorkerThread], grace_seconds: float) -> bool:
    """Lets each thread end after the batch that it has in hand. Returns whether all of them did within the grace.

    Dramatiq's own wait takes the time that has passed off what is left at every thread anew: of thirty seconds the
    eighth thread gets none, and its sends are dropped in mid-flight.
    """
    deadline = time.monotonic() + grace_seconds
    for thread in threads:
        thread.stop()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)
