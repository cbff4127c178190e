"""How something scarce is shared among the priorities that have work."""

from __future__ import annotations

from collections.abc import Mapping


def shared(total: int, wanted: Mapping[str, int], weights: Mapping[str, float]) -> dict[str, int]:
    """How much of `total` each priority gets: by weight, and what one leaves unused goes to the others.

    Nobody gets more than it wants; whoever wants something gets at least one. Rounding favours the first in `weights`.

    Parameters:
      wanted: What each priority has to do; those that are absent want nothing.
      weights: Relative shares, the most urgent priority first.
    """
    given = dict.fromkeys(weights, 0)
    hungry = [p for p in weights if wanted.get(p, 0) > 0]
    while hungry and (left := total - sum(given.values())) > 0:
        whole = sum(weights[p] for p in hungry)
        for priority in hungry:
            part = max(1, int(left * weights[priority] / whole))
            given[priority] = min(wanted[priority], given[priority] + part, given[priority] + _left(total, given))
        hungry = [p for p in hungry if given[p] < wanted[p]]
    return given


def _left(total: int, given: Mapping[str, int]) -> int:
    return max(0, total - sum(given.values()))
