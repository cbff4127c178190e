"""NotifyHub's processes as children of one program: started, watched, stopped together, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from devstack.errors import ServerFailedError, StartCancelledError
from devstack.processes import spawn

GUARD = Path(__file__).with_name("guard.py")
POLL_SECONDS = 0.03
STOP_SECONDS = 5.0
"""For an orderly end; what takes longer is killed. Claims outlive that: nothing is lost or sent twice."""


@dataclass(frozen=True, slots=True)
class Child:
    """A running process, the leader of a process group and session of its own."""

    name: str
    process: subprocess.Popen[bytes]
    log_path: Path
    started_at: float  # Epoch seconds.

    @property
    def pid(self) -> int:
        return self.process.pid


class Children:
    """A program's own processes. Safe to use from several threads.

    Parameters:
      logs: a folder; each process writes `logs/NAME.log`, and the log of its run before is kept beside it.
      cancelled: set when the program gives up; nothing is started or waited for any more.
    """

    def __init__(self, logs: Path, cancelled: threading.Event) -> None:
        self._logs = logs
        self._cancelled = cancelled
        self._lock = threading.Lock()
        self._children: list[Child] = []
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> tuple[Child, ...]:
        with self._lock:
            return tuple(self._children)

    def start(self, name: str, command: Sequence[str]) -> Child:
        """Start a process that is to run until :meth:`stop`.

        Raises:
          StartCancelledError: everything is being stopped.
        """
        with self._lock:
            if self._cancelled.is_set():
                raise StartCancelledError(f"{name} was not started: everything is being stopped.")
            child = self._spawn(name, command)
            self._children.append(child)
        return child

    def run(self, name: str, command: Sequence[str]) -> None:
        """Run a command to its end.

        Raises:
          ServerFailedError: it failed, or had to be given up.
          StartCancelledError: everything is being stopped.
        """
        child = self.start(name, command)
        try:
            while child.process.poll() is None:
                if self._cancelled.wait(POLL_SECONDS):
                    raise StartCancelledError(f"{name} was given up: everything is being stopped.")
        finally:
            with self._lock:
                self._children.remove(child)
                self._end_group(child)
        if child.process.returncode != 0:
            raise ServerFailedError(name, f"failed ({_describe(child.process.returncode)}).", child.log_path)

    def wait_until(self, child: Child, is_ready: Callable[[Child], bool], seconds: float) -> None:
        """Wait until a process can be used.

        Raises:
          ServerFailedError: it ended, or was not ready in time.
          StartCancelledError: everything is being stopped.
        """
        deadline = time.monotonic() + seconds
        while not is_ready(child):
            self._check(child)
            if time.monotonic() > deadline:
                raise ServerFailedError(child.name, f"was not ready within {seconds:.0f} s.", child.log_path)
            if self._cancelled.wait(POLL_SECONDS):
                raise StartCancelledError(f"{child.name} was given up: everything is being stopped.")

    def check(self) -> None:
        """Raise ServerFailedError if a process ended without being told to."""
        for child in self.running:
            self._check(child)

    def reap(self, child: Child) -> None:
        """Forget a process that has ended, and kill what is left of those that it forked."""
        with self._lock:
            if child in self._children:
                self._children.remove(child)
                self._end_group(child)

    def stop(self) -> None:
        """End all of them at once, in order if they manage within STOP_SECONDS; then nothing of them is left."""
        with self._lock:
            for child in self._children:
                child.process.terminate()
            deadline = time.monotonic() + STOP_SECONDS
            for child in self._children:
                try:
                    child.process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    continue  # Killed below, with whatever it forked.
            for child in self._children:
                self._end_group(child)
            self._children.clear()
            if self._guard is not None:
                self._guard.communicate()  # Closes its input, which is its end.
                self._guard = None

    def _spawn(self, name: str, command: Sequence[str]) -> Child:
        self._logs.mkdir(parents=True, exist_ok=True)
        log_path = self._logs / f"{name}.log"
        if log_path.exists():
            log_path.replace(log_path.with_suffix(".log.previous"))
        started_at = time.time()
        process = spawn(command, log_path)
        self._tell_guard("+", process.pid)
        return Child(name, process, log_path, started_at)

    def _end_group(self, child: Child) -> None:
        """Kill what is left of a process and of all that it forked."""
        with suppress(ProcessLookupError):  # The usual case: everything has ended by itself.
            os.killpg(child.pid, signal.SIGKILL)
        child.process.wait()
        self._tell_guard("-", child.pid)

    def _tell_guard(self, sign: str, pid: int) -> None:
        if self._guard is None:
            command = [sys.executable, "-I", "-S", str(GUARD)]
            self._guard = subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0, start_new_session=True)
        if self._guard.stdin is not None:  # Never: it was asked for.
            self._guard.stdin.write(f"{sign}{pid}\n".encode("ascii"))

    @staticmethod
    def _check(child: Child) -> None:
        status = child.process.poll()
        if status is not None:
            raise ServerFailedError(child.name, f"ended by itself ({_describe(status)}).", child.log_path)


def _describe(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"killed by signal {-status}"
