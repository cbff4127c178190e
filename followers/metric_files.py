"""What processes count for Prometheus, in files that outlive them.

Each process counts in files of its own, which prometheus_client maps into memory: no system call a count, and a SIGKILL
loses none. Beside them stands a file that it keeps locked for as long as it lives. Whoever finds one unlocked adds what
that process has counted to the archive, and removes its files. A lock of the kernel's, because a process id tells
nothing: it is given to another process, and another container counts its own.

    counter_<process>.db  histogram_<process>.db  gauge_<mode>_<process>.db  <process>.alive
    archive-<n>/          what the dead have counted; `included` names the files that are in it
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import struct
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import structlog
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from prometheus_client import values
from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

logger = structlog.get_logger(__name__)

KEPT_KINDS = ("counter", "histogram")
"""What is added up over dead processes, too; a gauge of one that is dead says nothing any more."""

LOCK_PATIENCE_SECONDS = 2.0
"""The directory is locked for milliseconds; whoever holds it longer is stopped."""

DAMAGED = (OSError, struct.error, RuntimeError, UnicodeDecodeError)
"""What reading a file raises whose process was killed while it made it."""


class MetricFiles:
    """The directory, and this process's part in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._pid = 0
        self._name = ""
        self._presence: IO[bytes] | None = None  # Stays open, and locked, until the process ends.

    def process_name(self) -> str:
        """What stands in the names of this process's files; another one after a fork."""
        if self._pid != os.getpid():
            self._enter()
        return self._name

    def collect(self) -> list[Metric]:
        """All that the processes of this machine have counted, the dead ones included.

        Raises OSError, and TimeoutError if somebody else holds the directory for too long.
        """
        with self._locked():
            self._archive_the_dead()
            archive = self._archives()[-1:]
            files = [*self.directory.glob("*.db"), *(file for one in archive for file in one.glob("*.db"))]
            return list(MultiProcessCollector.merge([str(file) for file in files if _values(file)], accumulate=True))

    # --- This process ------------------------------------------------------------------------------------------------
    def _enter(self) -> None:
        """Makes this process known, before its first file, so that nobody takes it for dead."""
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        try:
            with self._locked():
                self._show_presence(name)
                self._archive_the_dead()
        except TimeoutError:
            # Somebody was stopped while holding it. Counting must keep nobody from work.
            self._show_presence(name)

    def _show_presence(self, name: str) -> None:
        self._presence = (self.directory / f"{name}.alive").open("wb")
        # Not flock: that lock would be inherited by a fork, and stay when this process is dead.
        fcntl.lockf(self._presence, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._name, self._pid = name, os.getpid()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
        with (self.directory / "lock").open("ab") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"{self.directory} is locked by a process that does not go on.") from None
                    time.sleep(0.005)
            yield

    # --- The dead ----------------------------------------------------------------------------------------------------
    def _archive_the_dead(self) -> None:
        """Adds up what dead processes have left. Killed at any point, nothing is lost or counted twice: the new archive
        appears as a whole, with the names of what is in it, and whatever it names is removed before anything else."""
        archives = self._archives()
        self._remove_archived(archives)
        dead = self._dead()
        files = [file for file in self.directory.glob("*.db") if _process_of(file) in dead]
        if files:
            new = self.directory / f"new-{secrets.token_hex(4)}"
            new.mkdir()
            for kind in KEPT_KINDS:
                sources = [file for file in files if file.name.startswith(f"{kind}_")]
                _add_up([*(a / f"{kind}_archive.db" for a in archives[-1:]), *sources], new / f"{kind}_archive.db")
            (new / "included").write_text("\n".join(file.name for file in files))
            new.rename(self.directory / f"archive-{_number(archives[-1]) + 1 if archives else 1}")
            self._remove_archived(self._archives())
        for name in dead:
            (self.directory / f"{name}.alive").unlink(missing_ok=True)

    def _archives(self) -> list[Path]:
        """Oldest first; all but the newest are left-overs of somebody who was killed."""
        return sorted(self.directory.glob("archive-*"), key=_number)

    def _remove_archived(self, archives: list[Path]) -> None:
        for name in (archives[-1] / "included").read_text().splitlines() if archives else ():
            (self.directory / name).unlink(missing_ok=True)
        for left_over in [*archives[:-1], *self.directory.glob("new-*")]:
            shutil.rmtree(left_over)

    def _dead(self) -> set[str]:
        names = {_process_of(file) for file in self.directory.glob("*.db")}
        names |= {file.stem for file in self.directory.glob("*.alive")}
        # Not our own: closing a file gives up every lock that the process has on it.
        return {name for name in names if name != self._name and not _is_locked(self.directory / f"{name}.alive")}


def _is_locked(file: Path) -> bool:
    try:
        with file.open("r+b") as presence:
            fcntl.lockf(presence, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _process_of(file: Path) -> str:
    return file.stem.rpartition("_")[2]


def _number(archive: Path) -> int:
    return int(archive.name.partition("-")[2])


def _add_up(sources: list[Path], target: Path) -> None:
    totals: defaultdict[str, float] = defaultdict(float)
    for source in sources:
        for key, value in _values(source):
            totals[key] += value
    file = MmapedDict(str(target))
    for key, total in totals.items():
        file.write_value(key, total, 0.0)
    file.close()


def _values(file: Path) -> list[tuple[str, float]]:
    """Everything in a file; nothing where its process was killed before there was anything to read."""
    try:
        return [(key, value) for key, value, *_ in MmapedDict.read_all_values_from_file(str(file))]
    except DAMAGED:
        return []


def count_in_files() -> MetricFiles:
    """From now on every metric that is made counts in this process's files. Call it before the first one is made.

    prometheus_client itself decides once, when it is first imported, and names files by process id alone; so it is told
    here, whoever has imported it before.
    """
    directory = Path(settings.PROMETHEUS_MULTIPROC_DIR)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)  # Where prometheus_client looks for it.
    files = MetricFiles(directory)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        values.ValueClass = values.MultiProcessValue(files.process_name)
    except OSError as error:
        raise ImproperlyConfigured(f"PROMETHEUS_MULTIPROC_DIR must be a directory to write in: {error}.") from error
    return files
