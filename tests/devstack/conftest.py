"""Running ``python -m devstack`` as a person does, and watching processes without polling."""

import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROJECT_ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 60


class CommandLine:
    """A ``python -m devstack`` process on a state folder, whose servers are watched by pidfd from their start."""

    def __init__(self, directory: Path, *servers: str) -> None:
        self.directory = directory
        self._servers = servers
        self.process = subprocess.Popen(
            [sys.executable, "-m", "devstack", *servers],
            cwd=PROJECT_ROOT,
            env={**os.environ, "DEVSTACK_DIR": str(directory)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.server_pids: list[int] = []
        self._pidfds: list[int] = []

    def wait_until_ready(self) -> None:
        """Read its lines until it says that it is ready; they end with the process if it never does."""
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line.startswith("Ready in"):
                break
        else:
            pytest.fail(f"devstack ended early: {''.join(lines)}{self.process.communicate()[1]}")
        for server in self._servers:
            self.server_pids.append(int((self.directory / f"{server}.pid").read_text().split()[0]))
        self._pidfds = [os.pidfd_open(pid) for pid in self.server_pids]

    def wait_for_servers_to_end(self) -> None:
        """A pidfd becomes readable when its process ends."""
        for pidfd in self._pidfds:
            readable, _, _ = select.select([pidfd], [], [], TIMEOUT_SECONDS)
            assert readable, f"a server of {self.directory} still runs"

    def finish(self) -> tuple[int, str]:
        """Its exit status and what it wrote to standard error."""
        _, errors = self.process.communicate(timeout=TIMEOUT_SECONDS)
        return self.process.returncode, errors

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        for pidfd in self._pidfds:
            os.close(pidfd)


@pytest.fixture
def command_line() -> Iterator[Callable[..., CommandLine]]:
    """Starts command lines and ends what is left of them."""
    started: list[CommandLine] = []

    def start(directory: Path, *servers: str) -> CommandLine:
        started.append(CommandLine(directory, *servers))
        return started[-1]

    yield start
    for line in started:
        line.close()
