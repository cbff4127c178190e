"""What a benchmark prints: one JSON object, and a table with the limits beside the figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.measure import Spread

Round = Mapping[str, float]
"""Figures of one round by name; the unit is part of the name."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What the median of a figure must hold."""

    least: float | None = None
    most: float | None = None

    def holds(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        return f"≥ {self.least:g}" if self.least is not None else f"≤ {self.most:g}"


@dataclass(frozen=True, slots=True)
class Report:
    """A benchmark's rounds.

    Parameters:
      notes: Whatever else is worth keeping, as JSON.
    """

    name: str
    rounds: Sequence[Round]
    limits: Mapping[str, Limit]
    notes: Mapping[str, Any]

    def spreads(self) -> dict[str, Spread]:
        names = dict.fromkeys(name for one in self.rounds for name in one)
        return {name: Spread.of([one[name] for one in self.rounds if name in one]) for name in names}

    def print(self, json_file: Path | None) -> None:
        text = json.dumps({"benchmark": self.name, "rounds": self.rounds, "notes": self.notes}, indent=2)
        if json_file is not None:
            json_file.write_text(text + "\n")
        console = Console(width=120)
        console.print_json(text)
        console.print(self._table())

    def _table(self) -> Table:
        shown = Table(title=f"{self.name}, {len(self.rounds)} rounds", title_justify="left")
        for heading in ("figure", "min", "median", "max", "limit"):
            shown.add_column(heading, justify="left" if heading == "figure" else "right")
        for name, spread in self.spreads().items():
            limit = self.limits.get(name)
            verdict = "" if limit is None else f"{limit} {'holds' if limit.holds(spread.median) else 'MISSED'}"
            shown.add_row(name, *map(readable, (spread.least, spread.median, spread.most)), verdict)
        return shown


def say(line: str) -> None:
    """Progress, for whoever waits."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def readable(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"
