"""CPU and memory of processes, read from /proc."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """Of a process with all that it forked."""

    processes: int
    cpu_percent: float  # Of one core, since the last look.
    rss_bytes: int  # Pages that processes share are counted in each.


class UsageMeter:
    """Sums up sessions: every child of the demo leads one, and what it forks stays in it."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[int, float]] = {}

    def read(self, leaders: list[int]) -> dict[int, Usage]:
        """The usage of each leader's session; one that has ended has no processes."""
        wanted = set(leaders)
        ticks: dict[int, int] = defaultdict(int)
        pages: dict[int, int] = defaultdict(int)
        processes: dict[int, int] = defaultdict(int)
        for fields in _stats():
            session = int(fields[3])
            if session in wanted:
                ticks[session] += int(fields[11]) + int(fields[12])
                pages[session] += int(fields[21])
                processes[session] += 1
        now = time.monotonic()
        usage = {
            pid: Usage(processes[pid], self._cpu(pid, ticks[pid], now), pages[pid] * PAGE_BYTES) for pid in leaders
        }
        self._last = {pid: (ticks[pid], now) for pid in leaders}
        return usage

    def _cpu(self, pid: int, ticks: int, now: float) -> float:
        if pid not in self._last:
            return 0.0
        ticks_before, at = self._last[pid]
        return max(0.0, 100 * (ticks - ticks_before) / TICKS_PER_SECOND / max(now - at, 0.001))


def _stats() -> Iterator[list[str]]:
    """proc(5), /proc/PID/stat from field 3 (state) on; the name before it may hold anything."""
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        try:
            stat = Path(entry.path, "stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # It ended since the folder was listed.
        yield stat.rpartition(")")[2].split()
