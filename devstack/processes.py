"""Starting server processes, and knowing one's own again after a crash."""

import os
import queue
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

LAUNCHER = Path(__file__).with_name("launcher.py")
_LEFTOVER_TIMEOUT_SECONDS = 10


class _Spawner:
    """Forks every server from one thread that lives as long as this process.

    The kernel sends the death signal when the *thread* that forked ends, not the process (``prctl(2)``). Servers are
    started side by side from short-lived threads, so forking there would kill each server the moment it is ready.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner: int | None = None
        self._requests: queue.SimpleQueue[tuple[Sequence[str], Path, Future[subprocess.Popen[bytes]]]]

    def spawn(self, command: Sequence[str], log_path: Path) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._owner != os.getpid():  # The first use in this process; a forked child has no threads.
                self._owner = os.getpid()
                self._requests = queue.SimpleQueue()
                threading.Thread(target=self._serve, name="devstack-spawner", daemon=True).start()
        future: Future[subprocess.Popen[bytes]] = Future()
        self._requests.put((command, log_path, future))
        return future.result()

    def _serve(self) -> None:
        while True:
            command, log_path, future = self._requests.get()
            try:
                future.set_result(_popen(command, log_path))
            except OSError as error:
                future.set_exception(error)


def _popen(command: Sequence[str], log_path: Path) -> subprocess.Popen[bytes]:
    with log_path.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Ctrl-C reaches the whole foreground group: the stack alone shall receive it and stop its servers.
            start_new_session=True,
        )


_spawner = _Spawner()


def spawn(command: Sequence[str], log_path: Path) -> subprocess.Popen[bytes]:
    """Start a process that dies with this one, output appended to ``log_path``. Its pid is the server's own.

    Raises:
      OSError: the process could not be created. A missing executable shows in the log and the exit status instead.
    """
    return _spawner.spawn(command, log_path)


class PidFile:
    """Remembers a process across crashes: its id, its start time and the boot, which together name it uniquely."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, pid: int) -> None:
        identity = _identity(pid)
        if identity is not None:  # None: it is gone already, and there is nothing to remember.
            self._path.write_text(identity, encoding="ascii")

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)

    def kill_leftover(self) -> bool:
        """Kill the remembered process if it still runs, and wait for its end. Return whether there was one.

        An id that meanwhile belongs to another process is left alone. The pidfd is opened before the identity is
        compared, so that the signal cannot reach a process which got the id in between.
        """
        try:
            remembered = self._path.read_text(encoding="ascii").strip()
            pid = int(remembered.split()[0])
        except (FileNotFoundError, ValueError, IndexError):  # Never written, or cut short by a crash.
            self.remove()
            return False
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self.remove()
            return False
        try:
            ours = _identity(pid) == remembered
            if ours:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                select.select([pidfd], [], [], _LEFTOVER_TIMEOUT_SECONDS)
        finally:
            os.close(pidfd)
        self.remove()
        return ours


def _identity(pid: int) -> str | None:
    """``PID STARTTIME BOOT_ID``, start time in clock ticks since boot (``proc(5)``, stat, field 22)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    after_name = stat.rpartition(")")[2].split()  # The name in parentheses may itself contain spaces; field 3 follows.
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{pid} {after_name[19]} {boot}"
