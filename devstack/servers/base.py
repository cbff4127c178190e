"""What the four servers have in common: start and wait until usable, stop, kill, and say why one is gone."""

import shutil
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from devstack.errors import DevstackError, ServerFailedError, StartCancelledError
from devstack.ports import Ports
from devstack.processes import PidFile, spawn

_POLL_SECONDS = 0.03


class Server(ABC):
    """One server process with its port, data folder and log. Safe to control from several threads.

    Parameters:
      directory: the stack's state folder; data goes into ``directory/NAME/``, the log to ``directory/NAME.log``.
      ports: where it listens.
      cancelled: set when the stack gives up; a start in progress ends, and none begins any more.
    """

    name: ClassVar[str]
    port_names: ClassVar[tuple[str, ...]]
    """The first is the one clients use."""
    start_timeout_seconds: ClassVar[float] = 60
    stop_timeout_seconds: ClassVar[float] = 20

    def __init__(self, directory: Path, ports: Ports, cancelled: threading.Event) -> None:
        self.data = directory / self.name
        self.log_path = directory / f"{self.name}.log"
        self.port = ports[self.port_names[0]]
        self.cancelled = cancelled
        self.report: Callable[[str], None] = lambda text: None
        self._pid_file = PidFile(directory / f"{self.name}.pid")
        self._process: subprocess.Popen[bytes] | None = None
        self._lifecycle = threading.RLock()

    @abstractmethod
    def prepare(self) -> None:
        """Do what must precede every start: programs, downloads, configuration. ``self.data`` exists."""

    @abstractmethod
    def command(self) -> list[str]:
        """The command line, beginning with an absolute path. The process must stay in the foreground."""

    @abstractmethod
    def is_answering(self) -> bool:
        """Whether the server answers its own protocol; never raises because it does not yet."""

    @abstractmethod
    def env(self) -> dict[str, str]:
        """The settings by which NotifyHub finds this server."""

    def initialise(self) -> bool:
        """Set up, once it answers, what clients expect to find. Called again until it returns that it is done."""
        return True

    def is_ready(self) -> bool:
        """Whether clients find everything they expect."""
        return True

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Raises DevstackError when the server is stopped."""
        process = self._process
        if process is None:
            raise DevstackError(f"{self.name} is not running.")
        return process.pid

    @property
    def is_running(self) -> bool:
        process = self._process
        return process is not None and process.poll() is None

    def start(self, *, wipe: bool = False) -> None:
        """Start on the same port and data as before and return once it can be used.

        Parameters:
          wipe: begin with no data.

        Raises:
          ServerFailedError: it ended or was not ready in time.
          DownloadError: its programs could not be fetched.
          StartCancelledError: the stack is being stopped.
        """
        if self.is_running:
            raise DevstackError(f"{self.name} runs already.")
        if wipe:
            shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(parents=True, exist_ok=True)
        if self.log_path.exists():
            self.log_path.replace(self.log_path.with_suffix(".log.previous"))
        self.prepare()
        self.report("starting")
        with self._lifecycle:
            self._refuse_if_cancelled()
            self._process = spawn(self.command(), self.log_path)
            self._pid_file.write(self._process.pid)
        try:
            self._become_ready()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End it in order, and by force if that takes too long. Does nothing when it is stopped."""
        with self._lifecycle:
            if self._process is None:
                return
            self._process.terminate()
            try:
                self._process.wait(self.stop_timeout_seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._reap()

    def kill(self) -> None:
        """SIGKILL, as a crash would. Does nothing when it is stopped."""
        with self._lifecycle:
            if self._process is None:
                return
            self._process.kill()
            self._reap()

    def check(self) -> None:
        """Raise ServerFailedError if the server ended without being told to."""
        process = self._process
        status = None if process is None else process.poll()
        if status is not None:
            raise ServerFailedError(self.name, f"ended by itself ({_describe(status)}).", self.log_path)

    def run_tool(self, command: Sequence[str]) -> None:
        """Run a command that ends by itself, its output in the server's log.

        Raises:
          ServerFailedError: it failed.
          StartCancelledError: the stack is being stopped.
        """
        process = spawn(command, self.log_path)
        try:
            while process.poll() is None:
                self._refuse_if_cancelled(_POLL_SECONDS)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
        if process.returncode != 0:
            raise ServerFailedError(
                self.name, f"could not be prepared ({_describe(process.returncode)}).", self.log_path
            )

    def _become_ready(self) -> None:
        deadline = time.monotonic() + self.start_timeout_seconds
        self._wait_until(self.is_answering, deadline)
        self._wait_until(self.initialise, deadline)
        self._wait_until(self.is_ready, deadline)

    def _wait_until(self, condition: Callable[[], bool], deadline: float) -> None:
        while not condition():
            process = self._process
            status = None if process is None else process.poll()
            if status is not None:
                raise ServerFailedError(self.name, f"did not come up ({_describe(status)}).", self.log_path)
            if time.monotonic() > deadline:
                reason = f"was not ready within {self.start_timeout_seconds:.0f} s."
                raise ServerFailedError(self.name, reason, self.log_path)
            self._refuse_if_cancelled(_POLL_SECONDS)

    def _refuse_if_cancelled(self, wait_seconds: float = 0) -> None:
        if self.cancelled.wait(wait_seconds):
            raise StartCancelledError(f"{self.name} was not started: the stack is being stopped.")

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait()
            self._process = None
        self._pid_file.remove()


def _describe(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"killed by signal {-status}"
