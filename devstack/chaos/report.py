"""The table, and the same for machines."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rich.console import Console
from rich.table import Table

from devstack.chaos.logs import MOST_LINES
from devstack.chaos.verdict import Verdict

COUNTED = (
    "trades", "alerts", "in flight", "lost", "untrue", "duplicates", "repeats", "unknown", "unheard", "log lines",
)  # fmt: skip
EXPLAINED = 5
"""Sentences of each kind that are printed; --json has all of them."""


@dataclass
class Round:
    """One fault and what came of it."""

    fault: str
    in_flight: int
    strikes: int  # How often it had to strike until it hit work.
    recovered_after: float | None  # Seconds from the end of the fault until everything was settled; None = never.
    verdict: Verdict
    waited_for: dict[str, float] = field(default_factory=dict)  # What was open longest, with its seconds.
    unheard: int = 0  # Alerts that connected apps heard of only when they asked for what they had missed.
    restarts: dict[str, int] = field(default_factory=dict)
    log_lines: dict[str, int] = field(default_factory=dict)
    is_outage: bool = False
    proof: str = ""  # What `manage.py prove` found, if anything.

    @property
    def failures(self) -> list[str]:
        """Why this round fails the run; none if it does not."""
        reasons = []
        if not self.in_flight:
            reasons.append(f"It hit nothing in flight, though it struck {self.strikes} times.")
        if self.recovered_after is None:
            reasons.append("Not everything was settled in time.")
        if self.verdict.lost:
            reasons.append(f"Lost: {len(self.verdict.lost)}.")
        if self.verdict.untrue:
            reasons.append(f"Not true: {len(self.verdict.untrue)}.")
        if self.verdict.duplicates:
            reasons.append(f"Duplicates: {self.verdict.duplicates}.")
        if self.is_outage:
            reasons += [f"{name} logged {n} lines." for name, n in self.log_lines.items() if n >= MOST_LINES]
        if self.proof:
            reasons.append("`manage.py prove` has found something.")
        return reasons

    def as_json(self) -> dict[str, Any]:
        verdict = {**asdict(replace(self.verdict, states=Counter())), "states": dict(self.verdict.states)}
        return {**asdict(replace(self, verdict=Verdict())), "verdict": verdict, "failures": self.failures}


def table(rounds: list[Round]) -> Table:
    """A row for each fault."""
    shown = Table(title="Chaos", title_style="bold")
    shown.add_column("fault")
    for heading in COUNTED:
        shown.add_column(heading, justify="right")
    shown.add_column("recovered", justify="right")
    shown.add_column("")
    for each in rounds:
        verdict = each.verdict
        numbers = (
            verdict.events, verdict.alerts, each.in_flight, len(verdict.lost), len(verdict.untrue),
            verdict.duplicates, verdict.repeats, verdict.unknown, each.unheard, max(each.log_lines.values(), default=0),
        )  # fmt: skip
        recovered = "never" if each.recovered_after is None else f"{each.recovered_after:.1f} s"
        outcome = "[red]FAILED[/red]" if each.failures else "[green]ok[/green]"
        shown.add_row(each.fault, *(f"{n:,}" for n in numbers), recovered, outcome)
    return shown


def tell(console: Console, round_: Round) -> None:
    """One round in a line, as soon as it is over."""
    verdict = round_.verdict
    recovered = "never" if round_.recovered_after is None else f"after {round_.recovered_after:.1f} s"
    text = f"{round_.fault:<15} {verdict.alerts:,} alerts, {round_.in_flight} in flight, recovered {recovered}: "
    console.print(text + ("FAILED" if round_.failures else "ok"), markup=False, highlight=False, soft_wrap=True)


def explain(console: Console, rounds: list[Round]) -> None:
    """Say what is wrong, with examples."""
    for each in rounds:
        for sentence in each.failures:
            console.print(f"{each.fault}: {sentence}", style="red", markup=False, highlight=False, soft_wrap=True)
        for sentences in (each.verdict.lost, each.verdict.untrue):
            for sentence in sentences[:EXPLAINED]:
                console.print(f"  {sentence}", markup=False, highlight=False, soft_wrap=True)
        if each.proof:
            console.print(each.proof, markup=False, highlight=False, soft_wrap=True)
