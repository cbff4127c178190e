"""Reading /metrics in tests: sums of what it shows, and what was added between two looks."""

from __future__ import annotations

import urllib.request
from collections import Counter
from collections.abc import Iterable

from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

Sample = tuple[str, frozenset[tuple[str, str]]]


def parsed(text: str) -> dict[Sample, float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scraped(port: int) -> dict[Sample, float]:
    """/metrics at this port of this machine."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return parsed(answer.read().decode())


def look() -> dict[Sample, float]:
    answer = Client().get("/metrics")
    assert answer.status_code == 200
    return parsed(answer.content.decode())


def added(before: dict[Sample, float], after: dict[Sample, float], name: str, *by: str) -> Counter[tuple[str, ...]]:
    """What a counter rose by, summed up over all labels but these; without what did not rise."""
    risen: Counter[tuple[str, ...]] = Counter()
    for (sample, labels), value in after.items():
        if sample == name:
            found = dict(labels)
            risen[tuple(found[label] for label in by)] += round(value - before.get((sample, labels), 0.0))
    return +risen


def values_by(shown: dict[Sample, float], name: str, label: str) -> dict[str, float]:
    """A gauge's values by its one label."""
    return {dict(labels)[label]: value for (sample, labels), value in shown.items() if sample == name}


def quantile_bounds(buckets: Iterable[tuple[float, float]], share: float) -> tuple[float, float]:
    """Between which bounds a histogram's quantile lies. `buckets` are (upper bound, cumulated count)."""
    ordered = sorted(buckets)
    wanted, lower = ordered[-1][1] * share, 0.0
    for upper, count in ordered:
        if count >= wanted:
            return lower, upper
        lower = upper
    raise AssertionError("A histogram ends with +Inf.")
