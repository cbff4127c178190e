"""Starts NotifyHub's processes again when they end, as a supervisor in production does."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from devstack.children import Child, Children
from devstack.errors import DevstackError, StartCancelledError

LOOK_SECONDS = 0.1
PAUSE_SECONDS = 0.5
"""Between the end of a process and its next start."""


@dataclass(frozen=True, slots=True)
class Service:
    """A process that shall always run."""

    name: str
    command: list[str]
    is_ready: Callable[[Child], bool]


class Supervisor:
    """Keeps services running, from :meth:`start` to :meth:`stop`. Each run of one writes a log of its own."""

    def __init__(self, children: Children, services: Mapping[str, Service]) -> None:
        self._children = children
        self._services = services
        self._running: dict[str, Child] = {}
        self._runs: dict[str, int] = dict.fromkeys(services, 0)
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    @property
    def services(self) -> tuple[str, ...]:
        return tuple(self._services)

    def starts(self, name: str) -> int:
        """How often a service was started so far."""
        return self._runs[name]

    def start(self) -> None:
        for service in self._services.values():
            self._start(service)
        self._thread.start()

    def stop(self) -> None:
        """Start nothing any more. The processes themselves are stopped by `Children`."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def child(self, name: str) -> Child:
        with self._lock:
            return self._running[name]

    def kill(self, name: str) -> None:
        """SIGKILL, to a service and all that it forked."""
        with suppress(ProcessLookupError):  # It was ending by itself.
            os.killpg(self.child(name).pid, signal.SIGKILL)

    def wait_until_ready(self, seconds: float) -> None:
        """Wait until every service can be used. Raises DevstackError if one cannot in time."""
        deadline = time.monotonic() + seconds
        for name, service in self._services.items():
            while not (self.child(name).process.poll() is None and service.is_ready(self.child(name))):
                if time.monotonic() > deadline:
                    raise DevstackError(f"{name} was not ready within {seconds:.0f} s; see {self.child(name).log_path}")
                if self._stopped.wait(LOOK_SECONDS):
                    raise StartCancelledError(f"{name} was given up: everything is being stopped.")

    def _start(self, service: Service) -> None:
        self._runs[service.name] += 1
        child = self._children.start(f"{service.name}.{self._runs[service.name]}", service.command)
        with self._lock:
            self._running[service.name] = child

    def _run(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            for name, service in self._services.items():
                child = self.child(name)
                if child.process.poll() is None:
                    continue
                self._children.reap(child)
                if self._stopped.wait(PAUSE_SECONDS):
                    return
                self._start(service)


def service_of(log: Path) -> str:
    """The service that wrote a log."""
    return log.name.split(".")[0]
