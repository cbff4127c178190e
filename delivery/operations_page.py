"""The operations page of the admin: one look at the whole pipeline, drawn on the server, that renews itself."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.cache import cache
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from pymongo.errors import PyMongoError

from delivery import operations_charts as charts
from delivery.admin_breakers import live_state, status_badge
from delivery.explanations import explain
from delivery.models import Breaker
from delivery.operations_figures import COUNTED_UP_TO, Figures, Spread, read
from followers import clock
from followers.admin_base import EMPTY, link, moment
from followers.choices import Channel
from notifications.choices import Priority

Document = dict[str, Any]

PERMISSION = "delivery.view_operations"
KEPT_SECONDS = 4
"""However many people look on, the servers are asked no more often."""

OVERDUE_SECONDS = 30
"""A wake-up that is due for longer: dispatch_due is far behind. No sweep for so long: it is not running."""

LAG_MAX = 1_000
"""Above it the alert rule NotifyHubConsumerLag speaks, too."""


def operations(request: HttpRequest) -> HttpResponse:
    """The page, or with `?fragment` the part of it that renews itself."""
    user: Any = request.user
    if not user.has_perm(PERMISSION):
        raise PermissionDenied
    context = shown(request)
    if "fragment" in request.GET:
        answer = TemplateResponse(request, "admin/operations_fragment.html", context)
        answer["Cache-Control"] = "no-store"
        return answer
    return TemplateResponse(
        request, "admin/operations.html", {**admin.site.each_context(request), "title": "Operations", **context}
    )


def shown(request: HttpRequest) -> Document:
    """What the fragment's template needs; only `is_away` while MongoDB is."""
    try:
        figures: Figures = cache.get_or_set("operations", lambda: read(clock.now()), KEPT_SECONDS)  # type: ignore[assignment]
        breakers = list(Breaker.objects.all()[:100])
    except PyMongoError:
        return {"is_away": True, "now": moment(clock.now())}
    return {
        "figures": figures,
        "now": moment(figures.at),
        "tiles": _tiles(figures),
        "chart": charts.pace_chart(figures.pace),
        "first_minute": f"{figures.pace.minutes[0]:%H:%M}",
        "last_minute": f"{figures.pace.minutes[-1]:%H:%M}",
        "busiest": f"{max([0, *(n for n in [*figures.pace.created, *figures.pace.finished] if n is not None)]):,}",
        "answers": _spread_rows(figures.answers),
        "arrivals": _spread_rows(figures.arrivals),
        "failures": _failures(figures),
        "queues": _queues(figures),
        "backlog": _backlog(figures),
        "breakers": [_breaker(request, breaker) for breaker in breakers],
        "slowest": _slowest(figures),
        "reviews": [(_bucket(c, str(Channel(c).label)), f"{n:,}") for c, n in figures.reviews_by_channel.most_common()
                    if c in Channel.values],
    }  # fmt: skip


# --- Parts ------------------------------------------------------------------------------------------------------------
def _tiles(figures: Figures) -> list[Document]:
    """The figures at the top: a word, a number, what it is of, and whether it is well."""
    created, finished = (_last_whole_minute(s) for s in (figures.pace.created, figures.pace.finished))
    depth = None if figures.depths is None else sum(figures.depths.values())
    more = "" if figures.backlog.is_counted_out else "+"
    since = None if figures.last_trade_at is None else figures.at - clock.as_utc(figures.last_trade_at)
    reviews = f"{COUNTED_UP_TO:,}+" if figures.reviews > COUNTED_UP_TO else f"{figures.reviews:,}"
    intake = (
        f"{_ms(figures.intake_ms.p99)} from trade to intake (p99)" if figures.intake_ms else "in the last 30 minutes"
    )
    return [
        {"word": "Alerts created", "figure": created, "of": "in the last full minute"},
        {"word": "Deliveries finished", "figure": finished, "of": "in the last full minute"},
        {"word": "Last trade", "figure": "none" if since is None else f"{int(since.total_seconds()):,} s ago",
         "of": intake},
        _lag_tile(figures),
        {"word": "Queue", "figure": "away" if depth is None else f"{depth:,}", "of": "hints waiting",
         "is_bad": depth is None},
        {"word": "Unfinished batches", "figure": f"{figures.backlog.total:,}{more}", "of": "fan-outs and deliveries"},
        _wake_up_tile(figures),
        {"word": "Review bucket", "figure": reviews, "of": "alerts wait for a person",
         "url": reverse("admin:delivery_reviewitem_changelist")},
    ]  # fmt: skip


def _lag_tile(figures: Figures) -> Document:
    if figures.lag is None:
        return {"word": "Kafka", "figure": "unknown", "of": "Kafka has not answered in time", "is_bad": True}
    is_bad = figures.lag > LAG_MAX
    return {"word": "Kafka", "figure": f"{figures.lag:,}", "of": "trades not taken in yet", "is_bad": is_bad}


def _wake_up_tile(figures: Figures) -> Document:
    """How late the wake-ups are, and when dispatch_due has last said that it looked: nothing may be due at all."""
    late, swept = max(figures.overdue_seconds.values()), figures.swept_seconds_ago
    if swept is None:
        of = "dispatch_due has never run"
    elif swept > OVERDUE_SECONDS:
        of = f"dispatch_due is silent since {swept:,.0f} s"
    else:
        of = "dispatch_due is far behind" if late > OVERDUE_SECONDS else "dispatch_due is at work"
    is_bad = swept is None or max(swept, late) > OVERDUE_SECONDS
    return {"word": "Wake-ups", "figure": f"{late:,.0f} s late" if late >= 1 else "on time", "of": of, "is_bad": is_bad}


def _last_whole_minute(series: list[int | None]) -> str:
    count = series[-2]
    return EMPTY if count is None else f"{count:,}"


def _spread_rows(spreads: dict[str, Spread]) -> list[tuple[object, ...]]:
    longest = charts.longest(list(spreads.values()))
    return [
        (channel.label, *(_ms(ms) for ms in (found.p50, found.p95, found.p99)), charts.spread_chart(found, longest))
        for channel in Channel
        if (found := spreads.get(channel)) is not None
    ]


def _failures(figures: Figures) -> list[tuple[object, ...]]:
    most = max((count for _, _, count in figures.failures), default=1)
    return [
        (
            Channel(channel).label if channel in Channel.values else channel,
            code or EMPTY,
            explain(channel, code).what,
            f"{count:,}",
            charts.share_chart(count, most, "failed"),
        )
        for channel, code, count in figures.failures
    ]


def _queues(figures: Figures) -> list[tuple[object, ...]]:
    waiting = {queue: depth for queue, depth in (figures.depths or {}).items() if depth}
    most = max(waiting.values(), default=1)
    return [
        (queue, f"{depth:,}", charts.share_chart(depth, most))
        for queue, depth in sorted(waiting.items(), key=lambda item: -item[1])[:10]
    ]


def _backlog(figures: Figures) -> list[tuple[object, ...]]:
    most = max(1, *figures.backlog.batches.values())
    return [
        (
            priority.label,
            f"{(count := figures.backlog.batches[priority]):,}" + ("+" if count >= figures.backlog.limit else ""),
            f"{figures.overdue_seconds[priority]:,.1f} s",
            charts.share_chart(count, most),
        )
        for priority in Priority
    ]


def _breaker(request: HttpRequest, breaker: Breaker) -> tuple[object, ...]:
    user: Any = request.user
    state = live_state(breaker)
    why = f"Forced by {breaker.forced_by}: {breaker.note}" if breaker.forced else state.reason
    word = "Switch" if user.has_perm("delivery.change_breaker") else "History"
    return (
        Channel(breaker.channel).label,
        status_badge(breaker.forced or state.status),
        why or EMPTY,
        link(Breaker, breaker.pk, word),
    )


def _slowest(figures: Figures) -> list[tuple[object, ...]]:
    most = max((row.mean_seconds for row in figures.slowest), default=1.0)
    return [
        (
            row.trader,
            f"{row.trades:,}",
            f"{row.alerts:,}",
            _ms(row.mean_seconds * 1_000),
            _ms(row.worst_seconds * 1_000),
            charts.share_chart(row.mean_seconds, most),
        )
        for row in figures.slowest
    ]


def _bucket(channel: str, word: str) -> SafeString:
    url = reverse("admin:delivery_reviewitem_changelist", query={"channel": channel})
    return format_html('<a class="ops-link" href="{}">{}</a>', url, word)


def _ms(milliseconds: float) -> str:
    if milliseconds < 1_000:
        return f"{milliseconds:,.0f} ms" if milliseconds >= 10 else f"{milliseconds:.2g} ms"
    return f"{milliseconds / 1_000:,.1f} s"
