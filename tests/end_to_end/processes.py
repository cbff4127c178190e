"""The project's own processes as children of a test, and a way to wait for what they write."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from pymongo.collection import Collection

PROJECT_ROOT = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 90


class Processes:
    """Starts manage.py commands and uvicorn; whatever still runs at the end is killed, by its own process group."""

    def __init__(self, directory: Path, env: Mapping[str, str]) -> None:
        self.directory = directory
        self.env = {**os.environ, **env}
        self._running: list[subprocess.Popen[bytes]] = []
        self._logs: list[IO[bytes]] = []

    def manage(self, *arguments: str) -> subprocess.Popen[bytes]:
        return self._start(arguments[0], [sys.executable, "manage.py", *arguments])

    def workers(self, processes: int = 1, threads: int = 0) -> subprocess.Popen[bytes]:
        return self.manage("rundramatiq", "--processes", str(processes), "--threads", str(threads))

    def web(self, port: int) -> subprocess.Popen[bytes]:
        return self._start("web", [sys.executable, "-m", "uvicorn", "notifyhub.asgi:application", "--port", str(port)])

    def _start(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        log = (self.directory / f"{name}-{len(self._running)}.log").open("wb")
        self._logs.append(log)
        process = subprocess.Popen(
            command, cwd=PROJECT_ROOT, env=self.env, stdout=log, stderr=log, start_new_session=True
        )
        self._running.append(process)
        return process

    @staticmethod
    def kill(process: subprocess.Popen[bytes]) -> None:
        """SIGKILL, to the process and to what it forked."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def logs(self) -> str:
        """The end of every log, for a failed test."""
        tails = []
        for log in self._logs:
            log.flush()
            tails.append(f"--- {Path(log.name).name}\n{Path(log.name).read_text(errors='replace')[-3000:]}")
        return "\n".join(tails)

    def close(self) -> None:
        for process in self._running:
            if process.poll() is None:
                self.kill(process)
        for log in self._logs:
            log.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(target: Collection[Any], condition: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Waits for the collection's change stream to bring what makes `condition` true; no polling of a sleeping loop."""
    deadline = time.monotonic() + seconds
    with target.watch(max_await_time_ms=200) as changes:
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"Not within {seconds} s: {what}")
            changes.try_next()
