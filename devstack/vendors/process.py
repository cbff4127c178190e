"""The sandbox vendors as a child process: for tests, the demo and the benchmarks."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from devstack.vendors.client import Sandbox
from devstack.vendors.credentials import read_environment

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
START_TIMEOUT_SECONDS = 30
STOP_TIMEOUT_SECONDS = 10
PROJECT_ROOT = Path(__file__).resolve().parents[2]
LOG_FILE = "vendors.log"


class VendorProcess:
    """`python -m devstack.vendors` under a directory; dies with the thread's process that started it.

    The first `start` is a fresh sandbox (the credentials of the directory are kept); every later one comes back on
    the same ports and still knows what it accepted, as the real vendors would.
    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory).resolve()
        self.env: dict[str, str] = {}
        self._child: subprocess.Popen[bytes] | None = None
        self._started_before = False

    @property
    def sandbox(self) -> Sandbox:
        """A client of the control API. It outlives a restart."""
        return Sandbox(self.env["VENDOR_CONTROL_URL"])

    @property
    def pid(self) -> int:
        if self._child is None:
            raise RuntimeError("the sandbox vendors are not running")
        return self._child.pid

    def start(self) -> Self:
        """Start and wait until every vendor listens. Raises RuntimeError with the end of the log if they do not."""
        if self._child is not None:
            raise RuntimeError("the sandbox vendors are already running")
        self.directory.mkdir(parents=True, exist_ok=True)
        ready, ready_in_child = os.pipe()
        command = [sys.executable, "-m", "devstack.vendors", "--directory", str(self.directory)]
        command += ["--ready-fd", str(ready_in_child), "--parent-pid", str(os.getpid())]
        if self._started_before:
            command.append("--resume")
        try:
            with (self.directory / LOG_FILE).open("ab") as log:
                self._child = subprocess.Popen(
                    command,
                    cwd=PROJECT_ROOT,
                    pass_fds=[ready_in_child],
                    stdout=log,
                    stderr=log,
                    # Ctrl-C reaches the whole foreground group: what is being sent must be able to end first.
                    start_new_session=True,
                )
            os.close(ready_in_child)
            self._wait_until_ready(ready)
        finally:
            os.close(ready)
        self._started_before = True
        self.env = read_environment(self.directory)
        return self

    def _wait_until_ready(self, ready: int) -> None:
        """The child writes a byte once all listen; if it ends before, the pipe closes without one."""
        readable, _, _ = select.select([ready], [], [], START_TIMEOUT_SECONDS)
        if not readable or not os.read(ready, 1):
            self.kill()
            log = (self.directory / LOG_FILE).read_text(errors="replace")
            raise RuntimeError(f"the sandbox vendors did not start:\n{log[-2000:]}")

    def stop(self) -> None:
        """End it with SIGTERM; open connections are dropped."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with SIGKILL, as a power cut would."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.send_signal(number)
        try:
            child.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel end this process when the thread that started it ends. To be called first in the child.

    Done by the child itself, as code between fork and exec is unsafe in a parent with threads; the parent may have
    died before, which is why its id is compared.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:
        sys.exit("the parent process has already ended")
