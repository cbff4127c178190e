"""What a proof has counted, and what it has found missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import Any, TypeVar

from bson import ObjectId

from delivery.choices import Gap
from notifications.choices import DeliveryState

Document = dict[str, Any]
Item = TypeVar("Item")

NAMED = 100
"""Findings that are named; the rest is counted. Whoever has mended a hundred runs the proof again."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One gap, in words, with the ids of what it concerns."""

    gap: Gap
    text: str
    event: ObjectId | None = None
    event_key: str = ""
    notification: ObjectId | None = None
    follower: ObjectId | None = None
    batch: ObjectId | None = None

    def as_json(self) -> Document:
        ids = {"event": self.event, "notification": self.notification, "follower": self.follower, "batch": self.batch}
        named = {name: str(value) for name, value in ids.items() if value is not None}
        return {"gap": self.gap.value, "text": self.text, "event_id": self.event_key, **named}


@dataclass(slots=True)
class Tally:
    """Figures and findings; those of one look are added to those of the whole proof."""

    events: Counter[str] = field(default_factory=Counter)  # By FanOutState.
    owed: int = 0  # Pairs of an event and a recipient that must have their alert.
    found: int = 0  # Those of them that have it.
    alerts: int = 0  # Stored alerts that were looked at, owed or not.
    deliveries: Counter[tuple[str, str]] = field(default_factory=Counter)  # By (channel, DeliveryState).
    gaps: Counter[Gap] = field(default_factory=Counter)
    findings: dict[Gap, list[Finding]] = field(default_factory=dict)  # At most NAMED of each.

    def note(self, finding: Finding) -> None:
        self.note_all(finding.gap, [finding], lambda found: found)

    def note_all(self, gap: Gap, items: Sequence[Item], describe: Callable[[Item], Finding], count: int = 0) -> None:
        """Counts gaps of one kind and names as many as there is room for.

        Parameters:
          items: What is missing, or some of it.
          describe: Called for those that are named only.
          count: How many there are; 0 = as many as `items`.
        """
        self.gaps[gap] += count or len(items)
        named = self.findings.setdefault(gap, [])
        named += [describe(item) for item in items[: NAMED - len(named)]]

    def add(self, other: Tally) -> None:
        self.events += other.events
        self.owed += other.owed
        self.found += other.found
        self.alerts += other.alerts
        self.deliveries += other.deliveries
        self.gaps += other.gaps
        for gap, found in other.findings.items():
            named = self.findings.setdefault(gap, [])
            named += found[: NAMED - len(named)]

    @property
    def missing(self) -> int:
        """How many gaps there are, named or not."""
        return self.gaps.total()

    def named(self) -> list[Finding]:
        """At most NAMED findings, fairly shared among the kinds, so that many of one do not hide the others."""
        in_turn: Iterable[Finding | None] = chain.from_iterable(zip_longest(*self.findings.values()))
        shown = [finding for finding in in_turn if finding is not None][:NAMED]
        order = list(Gap)
        return sorted(shown, key=lambda finding: order.index(finding.gap))

    @property
    def under_way(self) -> int:
        """Deliveries that are queued: in a batch, or waiting for their next attempt."""
        return sum(count for (_, state), count in self.deliveries.items() if state == DeliveryState.QUEUED)
