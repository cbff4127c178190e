"""Addresses, or a whole channel, that the vendor asked us to leave alone for a while."""

from __future__ import annotations

import time
from collections.abc import Mapping

WHOLE_CHANNEL = "*"
MOST_SECONDS = 3_600.0
"""A vendor that asks for more than this is asked again after it."""
MOST_HELD = 10_000
"""Addresses that are remembered; past that a held one may be asked again, and says 429 once more."""


class Holds:
    """Until when whom: what this process was told and what it heard from the others. Times are epoch seconds."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._unsaid: dict[str, float] = {}

    def hold(self, who: str, until: float) -> None:
        """Sends nothing to an endpoint's id, or to WHOLE_CHANNEL, until then; a longer hold stays."""
        until = min(until, time.time() + MOST_SECONDS)
        if until > self._until.get(who, 0.0):
            self._until[who] = self._unsaid[who] = until

    def until(self, who: str, now: float) -> float | None:
        """When the hold on an endpoint ends; None = it may be sent to."""
        until = max(self._until.get(who, 0.0), self._until.get(WHOLE_CHANNEL, 0.0))
        return until if until > now else None

    def take_unsaid(self) -> dict[str, float]:
        """What the other workers have not been told yet."""
        unsaid, self._unsaid = self._unsaid, {}
        return unsaid

    def give_back(self, unsaid: Mapping[str, float]) -> None:
        """They could not be told; next time."""
        for who, until in unsaid.items():
            self._unsaid[who] = max(until, self._unsaid.get(who, 0.0))

    def heard(self, others: Mapping[str, float], now: float) -> None:
        """Takes over what the others were told, and forgets what is over."""
        for who, until in others.items():
            self._until[who] = max(until, self._until.get(who, 0.0))
        if len(self._until) > len(others):
            self._until = {who: until for who, until in self._until.items() if until > now}
        if len(self._until) > MOST_HELD:
            latest = sorted(self._until.items(), key=lambda held: held[1])[-MOST_HELD:]
            self._until = dict(latest)
