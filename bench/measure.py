"""CPU and memory of processes, and the figures that are made of rounds."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(leaders: Sequence[int]) -> float:
    """Of all processes in these sessions so far, with what ended children of theirs have used."""
    return sum(sum(map(int, fields[11:15])) for _, fields in _members(leaders)) / TICKS_PER_SECOND


def cpu_by_session(leaders: Mapping[str, int]) -> dict[str, float]:
    """`cpu_seconds` of each named session."""
    return {name: cpu_seconds([pid]) for name, pid in leaders.items()}


def peak_rss_mib(leaders: Mapping[str, int]) -> dict[str, list[int]]:
    """The most memory that each process of each named session ever held, the largest first."""
    return {
        name: sorted((peak for pid, _ in _members([leader]) if (peak := _peak(pid))), reverse=True)
        for name, leader in leaders.items()
    }


def reset_peaks(leaders: Sequence[int]) -> None:
    """From now on `peak_rss_mib` says the most since now (proc(5), clear_refs)."""
    for pid, _ in _members(leaders):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def _members(leaders: Sequence[int]) -> Iterator[tuple[int, list[str]]]:
    """proc(5): /proc/PID/stat from field 3 (state) on, of every process in these sessions."""
    wanted = {str(pid) for pid in leaders}
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        try:
            fields = Path(entry.path, "stat").read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # It ended since the folder was listed.
        if fields[3] in wanted:
            yield int(entry.name), fields


def _peak(pid: int) -> int:
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(found[1]) // 1024 if found else 0


def percentile(values: Sequence[float], share: float) -> float:
    """Of sorted values."""
    return values[min(len(values) - 1, int(share * len(values)))]


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over the rounds."""

    least: float
    median: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(min(values), median(values), max(values))
