"""How much the processes have to say while a server is away."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from devstack.chaos.supervisor import service_of

MOST_LINES = 50
"""What one process may log about one outage."""


class LogWatch:
    """Counts the lines since it was made: warnings, errors, and whatever is no log line of ours."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._sizes = {path: path.stat().st_size for path in self._paths()}

    def lines(self) -> dict[str, int]:
        """By service."""
        counted: Counter[str] = Counter()
        for path in self._paths():
            with path.open("rb") as file:
                file.seek(self._sizes.get(path, 0))
                counted[service_of(path)] += sum(1 for line in file if _is_trouble(line))
        return dict(counted)

    def _paths(self) -> list[Path]:
        return sorted(self._logs.glob("*.log"))


def _is_trouble(line: bytes) -> bool:
    """Work as usual is logged at INFO; how much of it there is depends on the load alone."""
    if line.startswith(b"INFO:"):  # uvicorn speaks of every connection.
        return False
    try:
        said = json.loads(line)
    except ValueError:
        return bool(line.strip())
    return not isinstance(said, dict) or said.get("level") not in {"debug", "info"}
