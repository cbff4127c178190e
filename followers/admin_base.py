"""What every admin page shares: lists that stay quick with millions of rows, and pages that cannot be edited.

On this database a join reads both collections before its limit, a sort without an index reads everything, and so does
an exact count. So lists follow an index, related rows are fetched by id for the one page that is shown, searches look
an id up first, and counts are estimated or end early.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from functools import wraps
from typing import Any, TypeVar

from bson import ObjectId
from bson.errors import InvalidId
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.core.exceptions import ObjectDoesNotExist
from django.core.paginator import Paginator
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import formats, timezone
from django.utils.functional import cached_property
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin

from followers.index_order import in_index_order
from followers.mongo import collection

Shown = TypeVar("Shown")

EMPTY = "–"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""Before every time that is stored: "later than this" asks an index for those that have a time at all."""

COUNTED_UP_TO = 10_000
"""A filtered list is counted no further; nobody turns to page 200."""


class QuickPaginator(Paginator):
    """Counts what is cheap to count: an estimate for the whole collection, and at most COUNTED_UP_TO for a filter."""

    @cached_property
    def count(self) -> int:
        rows = self.object_list
        if not isinstance(rows, QuerySet):
            return super().count
        if not rows.query.where:
            return collection(rows.model).estimated_document_count()
        return rows.order_by()[:COUNTED_UP_TO].count()


class QuickHistory:
    """A mixin for a model's admin: its history is read by the index on the object, its people by their ids.

    Django joins the log with people and kinds of objects before it looks for the one object, and a decision about ten
    thousand review items writes ten thousand lines into it.
    """

    def get_paginator(self, request: HttpRequest, queryset: Any, *args: Any, **kwargs: Any) -> Any:
        if queryset.model is LogEntry:
            queryset = in_index_order(queryset.select_related(None).prefetch_related("user"))
        return super().get_paginator(request, queryset, *args, **kwargs)  # type: ignore[misc]


class QuickModelAdmin(QuickHistory, ModelAdmin):
    """A list in the order of an index, without joins, whatever its size."""

    list_select_related = ()
    show_full_result_count = False
    paginator = QuickPaginator
    list_per_page = 50
    list_max_show_all = 200
    sortable_by = ()  # Only the list's own order has an index.
    empty_value_display = EMPTY
    deferred_in_list: Sequence[str] = ()
    """Large fields that the list does not show."""
    related_in_list: Sequence[str] = ()
    """Relations that the list shows: fetched by id for the one page."""

    class Media:
        css = {"all": ("followers/admin.css",)}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = in_index_order(super().get_queryset(request))
        match = request.resolver_match
        if match and match.url_name and match.url_name.endswith("_changelist"):
            return rows.defer(*self.deferred_in_list) if self.deferred_in_list else rows
        return rows

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changelist = super().get_changelist_instance(request)
        for relation in self.related_in_list:
            fetch_related(changelist.result_list, relation)
        return changelist

    def get_search_results(self, request: HttpRequest, queryset: QuerySet[Any], search_term: str) -> tuple[Any, bool]:
        term = search_term.strip()
        return (queryset.filter(self.found_by(term)) if term else queryset), False

    def found_by(self, term: str) -> Q:
        """The rows that a search finds, as a condition on indexed fields of the list's own collection."""
        raise NotImplementedError(f"{type(self).__name__} has a search but does not say what it finds.")


class ReadOnlyModelAdmin(QuickModelAdmin):
    """What the pipeline has written: for reading only."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def fetch_related(rows: Iterable[Model], relation: str) -> None:
    """Gives each row its related object, None where it is gone, by one look-up of their ids.

    `prefetch_related` would scan: Django compares tuples of columns there, which the backend (5.2.4) makes an `$expr`
    of, and no index serves one. Index: _id.
    """
    listed = list(rows)
    if not listed:
        return
    field: Any = listed[0]._meta.get_field(relation)
    ids = {getattr(row, field.attname) for row in listed} - {None}
    found = {related.pk: related for related in field.related_model.objects.filter(pk__in=list(ids))}
    for row in listed:
        field.set_cached_value(row, found.get(getattr(row, field.attname)))


def once_per_page(show: Callable[[Any, Any], Shown]) -> Callable[[Any, Any], Shown]:
    """A field that is costly to make: unfold's form asks for each field's content five times.

    It is kept with the object, which lives as long as the page.
    """

    @wraps(show)
    def shown(self: Any, row: Any) -> Shown:
        kept = row.__dict__.setdefault("_shown_once", {})
        if show.__name__ not in kept:
            kept[show.__name__] = show(self, row)
        return kept[show.__name__]  # type: ignore[no-any-return]

    return shown


# --- Searching -------------------------------------------------------------------------------------------------------
def starts_with(field: str, term: str) -> Q:
    """A prefix as a range, which an index serves; the `startswith` look-up is a regular expression and scans."""
    return Q(**{f"{field}__gte": term, f"{field}__lt": term + "\U0010ffff"})


def object_id(text: str) -> ObjectId | None:
    try:
        return ObjectId(text)
    except InvalidId:
        return None


# --- Showing ---------------------------------------------------------------------------------------------------------
def link(model: type[Model], pk: object, text: object) -> SafeString:
    """A link to an object's page; without an id only the text."""
    if pk is None:
        return format_html("{}", text or EMPTY)
    options = model._meta
    url = reverse(f"admin:{options.app_label}_{options.model_name}_change", args=[pk])
    return format_html('<a class="text-primary-600 dark:text-primary-500 hover:underline" href="{}">{}</a>', url, text)


def list_link(model: type[Model], text: object, **query: object) -> SafeString:
    """A link to a list with these filters."""
    options = model._meta
    url = reverse(f"admin:{options.app_label}_{options.model_name}_changelist", query=query)
    return format_html('<a class="text-primary-600 dark:text-primary-500 hover:underline" href="{}">{}</a>', url, text)


def link_to(row: Model, relation: str) -> SafeString:
    """A link to a related trader or follower by its external id; prefetch the relation in lists."""
    field = row._meta.get_field(relation)
    pk = getattr(row, field.attname)  # type: ignore[union-attr]
    if pk is None:
        return format_html("{}", EMPTY)
    try:
        related = getattr(row, relation)
        text = related.external_id if related is not None else f"{pk} (gone)"
    except ObjectDoesNotExist:
        return format_html("{} (gone)", pk)
    return link(field.related_model, pk, text)  # type: ignore[arg-type]


def plain(number: Decimal | None) -> str:
    """A number for reading: no exponent, no zeros at its end."""
    if number is None:
        return EMPTY
    text = f"{number:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def moment(at: datetime | None) -> str:
    """To the millisecond: support compares these."""
    if at is None:
        return EMPTY
    local = timezone.localtime(at)
    return f"{formats.date_format(local, 'j M Y H:i:s')}.{local.microsecond // 1000:03d}"


def moment_column(field: str, description: str) -> Any:
    """A column, or a read-only field, that shows a time to the millisecond."""

    @admin.display(description=description)
    def column(self: Any, row: Model) -> str:
        return moment(getattr(row, field))

    return column


def number_column(field: str, description: str) -> Any:
    """A column, or a read-only field, that shows a number without the zeros at its end."""

    @admin.display(description=description)
    def column(self: Any, row: Model) -> str:
        return plain(getattr(row, field))

    return column


def badge(text: object, colour: str) -> SafeString:
    """A coloured word; `colour` is one of green, red, orange, blue, grey."""
    return format_html(
        '<span class="inline-block font-semibold rounded-default text-[11px] uppercase whitespace-nowrap h-6 '
        'leading-6 px-2 {}">'
        "{}</span>",
        _COLOURS[colour],
        text,
    )


_COLOURS = {
    "green": "bg-green-100 text-green-700 dark:bg-green-500/20 dark:text-green-400",
    "red": "bg-red-100 text-red-700 dark:bg-red-500/20 dark:text-red-400",
    "orange": "bg-orange-100 text-orange-700 dark:bg-orange-500/20 dark:text-orange-400",
    "blue": "bg-blue-100 text-blue-700 dark:bg-blue-500/20 dark:text-blue-400",
    "grey": "bg-base-100 text-base-600 dark:bg-base-700 dark:text-base-200",
}


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> SafeString:
    """An HTML table; cells are escaped unless they are safe already."""
    head = format_html_join(
        "", '<th class="px-3 py-2 text-left font-semibold whitespace-nowrap">{}</th>', ((h,) for h in headers)
    )
    body = [
        format_html(
            '<tr class="border-t border-base-200 dark:border-base-800">{}</tr>',
            format_html_join("", '<td class="px-3 py-2 align-top">{}</td>', ((cell,) for cell in row)),
        )
        for row in rows
    ]
    if not body:
        return format_html("{}", EMPTY)
    return format_html(
        '<div class="overflow-x-auto border border-base-200 rounded-default dark:border-base-800">'
        '<table class="w-full text-sm"><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>',
        head,
        format_html_join("", "{}", ((row,) for row in body)),
    )


def preformatted(text: str) -> SafeString:
    """A text as it is; JSON is laid out where that changes no digit of it."""
    with suppress(ValueError):  # Not JSON, or with numbers that Python would write differently: shown as it came.
        text = json.dumps(json.loads(text, parse_float=_refuse), indent=2, ensure_ascii=False)
    return format_html(
        '<pre class="text-xs whitespace-pre-wrap break-all max-h-96 overflow-y-auto bg-base-50 '
        'dark:bg-base-800 p-3 rounded-default">'
        "{}</pre>",
        text,
    )


def _refuse(number: str) -> str:
    raise ValueError(number)
