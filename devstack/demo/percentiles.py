"""Latencies as counts per bucket of a logarithmic scale: cheap to add up, and percentiles within some 5 %."""

from __future__ import annotations

import math
from collections import Counter

GROWTH = 1.1
"""Each bucket is ten percent wider than the one before; its middle is at most 5 % off."""

FACTOR = 1 / math.log(GROWTH)
"""bucket = floor(FACTOR · ln(milliseconds)), for milliseconds of at least 1."""


def milliseconds(bucket: int) -> float:
    """The geometric middle of a bucket."""
    return GROWTH ** (bucket + 0.5)


def percentiles(buckets: Counter[int], shares: tuple[float, ...]) -> tuple[float | None, ...]:
    """The latency in milliseconds below which each share of the deliveries lies; None where there are none."""
    total = buckets.total()
    if not total:
        return tuple(None for _ in shares)
    found: list[float | None] = []
    for share in shares:
        rank, seen = share * total, 0
        for bucket in sorted(buckets):
            seen += buckets[bucket]
            if seen >= rank:
                found.append(milliseconds(bucket))
                break
    return tuple(found)
