"""Small charts as SVG, drawn on the server; their colours are classes of delivery/operations.css."""

from __future__ import annotations

import math
from collections.abc import Sequence

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from delivery.operations_figures import Pace, Spread

WIDTH, HEIGHT = 600, 150


def pace_chart(pace: Pace) -> SafeString:
    """Two bars a minute: alerts created, deliveries finished. Minutes that were not read are left empty."""
    top = max([1, *(n for n in [*pace.created, *pace.finished] if n is not None)])
    slot = WIDTH / max(1, len(pace.minutes))
    bars: list[SafeString] = []
    for index, at in enumerate(pace.minutes):
        both = (("created", pace.created[index]), ("finished", pace.finished[index]))
        for offset, (word, count) in enumerate(both):
            if count:
                x = slot * (index + 0.1 + 0.4 * offset)
                bars.append(_bar(x, slot * 0.36, count, top, word, f"{at:%H:%M} {word} {count:,}"))
    lines = [(WIDTH, HEIGHT * share) for share in (0.25, 0.5, 0.75)]
    return format_html(
        '<svg class="ops-chart" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" '
        'aria-label="Alerts created and deliveries finished per minute">{}{}</svg>',
        WIDTH,
        HEIGHT,
        format_html_join("", '<line class="ops-grid" x1="0" x2="{0}" y1="{1}" y2="{1}"></line>', lines),
        format_html_join("", "{}", ((bar,) for bar in bars)),
    )


def _bar(x: float, width: float, count: int, top: int, name: str, title: str) -> SafeString:
    height = max(2.0, HEIGHT * count / top)
    return format_html(
        '<rect class="ops-{}" x="{}" y="{}" width="{}" height="{}" rx="1.5"><title>{}</title></rect>',
        name,
        f"{x:.1f}",
        f"{HEIGHT - height:.1f}",
        f"{width:.1f}",
        f"{height:.1f}",
        title,
    )


def spread_chart(spread: Spread, longest_ms: float) -> SafeString:
    """A line from the median to the 99th percentile, on a logarithmic scale that ends at `longest_ms`."""
    end = math.log10(max(10.0, longest_ms))

    def x(ms: float) -> str:
        return f"{100 * max(0.0, math.log10(max(1.0, ms))) / end:.1f}"

    return format_html(
        '<svg class="ops-spread" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<line class="ops-grid" x1="0" x2="100" y1="5" y2="5"></line>'
        '<line class="ops-range" x1="{}" x2="{}" y1="5" y2="5"></line>'
        '<line class="ops-mark" x1="{}" x2="{}" y1="1" y2="9"></line></svg>',
        x(spread.p50),
        x(spread.p99),
        x(spread.p50),
        x(spread.p50),
    )


def share_chart(part: float, whole: float, name: str = "created") -> SafeString:
    """A bar that is full where `part` is all of `whole`."""
    share = 100 * min(1.0, part / whole) if whole else 0.0
    return format_html(
        '<svg class="ops-share" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="ops-track" width="100" height="6" rx="1"></rect>'
        '<rect class="ops-{}" width="{}" height="6" rx="1"></rect></svg>',
        name,
        f"{share:.1f}",
    )


def longest(spreads: Sequence[Spread]) -> float:
    """The end of a scale that holds all of them, in milliseconds."""
    return max((s.p99 for s in spreads), default=1_000.0)
