"""What the judge says."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Verdict:
    """What became of one phase's trades. The lists hold sentences, for whoever has to find out why."""

    events: int = 0
    alerts: int = 0
    states: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    untrue: list[str] = field(default_factory=list)
    duplicates: int = 0
    repeats: int = 0  # Under the same key: a person sees one.

    @property
    def unknown(self) -> int:
        return self.states["unknown"]

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.untrue or self.duplicates)
