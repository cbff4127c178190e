"""The wait for what a stopping worker has in hand."""

from __future__ import annotations

import threading

from delivery.stopping import wait_for_threads


class Thread:
    """A worker thread that ends so long after it was told to; time passes only in its join."""

    def __init__(self, clock: list[float], needs: float) -> None:
        self._clock, self._needs = clock, needs
        self.told = False

    def stop(self) -> None:
        self.told = True

    def join(self, timeout: float) -> None:
        self._clock[0] = max(self._clock[0], min(self._needs, self._clock[0] + timeout))

    def is_alive(self) -> bool:
        return self._clock[0] < self._needs


def test_every_thread_gets_the_whole_grace(monkeypatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("delivery.stopping.time.monotonic", lambda: clock[0])
    threads = [Thread(clock, needs=6.0 + 0.1 * n) for n in range(40)]  # Dramatiq's own wait ends after the fifth.

    assert wait_for_threads(threads, grace_seconds=20) is True
    assert all(thread.told for thread in threads)


def test_the_grace_is_a_limit_for_all_of_them_together(monkeypatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("delivery.stopping.time.monotonic", lambda: clock[0])

    assert wait_for_threads([Thread(clock, needs=30.0) for _ in range(8)], grace_seconds=20) is False
    assert clock[0] == 20.0


def test_real_threads_that_have_ended_are_not_waited_for() -> None:
    class Ended(threading.Thread):
        def stop(self) -> None:
            return

    thread = Ended()
    thread.start()
    thread.join()
    assert wait_for_threads([thread], grace_seconds=0) is True
