"""The filters of the review bucket. Each is served by a partial index that begins with `review.open`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from unfold.contrib.filters.admin import TextFilter

from delivery.models import ReviewItem
from followers import clock
from followers.choices import VENDOR_CHANNELS
from followers.models import Trader
from notifications.reviews import codes_of_newest

CODES_SHOWN = 15
"""The most frequent codes are offered; any other is found by the search."""


class OpenFilter(admin.SimpleListFilter):
    """Open items, unless somebody asks for others. The condition is also what lets the partial indexes serve."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("resolved", "Resolved"), ("all", "All")]

    def choices(self, changelist: Any) -> Iterator[Any]:
        default, *others = super().choices(changelist)
        yield {**default, "display": "Open"}
        yield from others

    def queryset(self, request: HttpRequest, queryset: QuerySet[ReviewItem]) -> QuerySet[ReviewItem]:
        if self.value() == "all":
            return queryset.filter(review__open__in=[True, False])
        return queryset.filter(review__open=self.value() != "resolved")


class ReviewChannelFilter(admin.SimpleListFilter):
    title = "channel"
    parameter_name = "channel"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(c.value, str(c.label)) for c in VENDOR_CHANNELS]

    def choices(self, changelist: Any) -> Iterator[Any]:
        """Another channel lets go of the code, which belongs to one channel: nothing has both, and to learn that, all
        of one would be read."""
        for value, choice in zip([None, *self.lookup_choices], super().choices(changelist), strict=True):
            chosen = {} if value is None else {self.parameter_name: value[0]}
            without = [CodeFilter.parameter_name, self.parameter_name]
            yield {**choice, "query_string": changelist.get_query_string(chosen, without)}

    def queryset(self, request: HttpRequest, queryset: QuerySet[ReviewItem]) -> QuerySet[ReviewItem]:
        chosen: Any = [self.value()]
        return queryset.filter(review__channels__contains=chosen) if self.value() else queryset


class CodeFilter(admin.SimpleListFilter):
    """The codes of the newest open items, the most frequent first; of the chosen channel, where one is chosen."""

    title = "error code"
    parameter_name = "code"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        channel = request.GET.get(ReviewChannelFilter.parameter_name)
        counts = Counter(
            {code: n for code, n in codes_of_newest().items() if channel is None or code.startswith(f"{channel}:")}
        ).most_common(CODES_SHOWN)
        offered = [(code, f"{code.replace(':', ' ', 1)} ({count:,})") for code, count in counts]
        chosen = request.GET.get(self.parameter_name)
        if chosen is None or chosen in dict(counts):
            return offered
        return [*offered, (chosen, chosen.replace(":", " ", 1))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ReviewItem]) -> QuerySet[ReviewItem]:
        chosen: Any = [self.value()]
        return queryset.filter(review__codes__contains=chosen) if self.value() else queryset


def with_code(code: str) -> Q:
    """Items with this code on whatever channel."""
    codes: Any = [f"{channel.value}:{code}" for channel in VENDOR_CHANNELS]
    return Q(review__codes__overlap=codes)


class TraderFilter(TextFilter):
    title = "trader's external id"
    parameter_name = "trader"

    def queryset(self, request: HttpRequest, queryset: QuerySet[ReviewItem]) -> QuerySet[ReviewItem]:
        term = (self.value() or "").strip()
        if not term:
            return queryset
        trader = Trader.objects.filter(external_id=term).values_list("pk", flat=True).first()
        return queryset.none() if trader is None else queryset.filter(trader_id=trader)


class AgeFilter(admin.SimpleListFilter):
    """How long an item has been waiting: a range of the list's own order."""

    title = "age"
    parameter_name = "age"
    AGES = {
        "hour": ("Under an hour", timedelta(hours=1), True),
        "day": ("Under a day", timedelta(days=1), True),
        "older": ("Over a day", timedelta(days=1), False),
        "week": ("Over a week", timedelta(days=7), False),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, label) for name, (label, _, _) in self.AGES.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ReviewItem]) -> QuerySet[ReviewItem]:
        chosen = self.AGES.get(self.value() or "")
        if chosen is None:
            return queryset
        _, age, is_younger = chosen
        limit = clock.now() - age
        return queryset.filter(**{f"review__opened_at__{'gte' if is_younger else 'lt'}": limit})


class AssigneeFilter(admin.SimpleListFilter):
    title = "assignee"
    parameter_name = "assignee"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("me", "Mine"), ("nobody", "Nobody's")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ReviewItem]) -> QuerySet[ReviewItem]:
        if self.value() not in {"me", "nobody"}:
            return queryset
        name = request.user.get_username() if self.value() == "me" else ""
        return queryset.filter(review__assignee=name)


REVIEW_FILTERS = (OpenFilter, ReviewChannelFilter, CodeFilter, AgeFilter, AssigneeFilter, TraderFilter)
