"""The admin of alerts and inboxes: for reading only, as the pipeline writes them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from bson import ObjectId
from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from followers import clock
from followers.admin_base import (
    EMPTY,
    ReadOnlyModelAdmin,
    link,
    link_to,
    moment_column,
    number_column,
    object_id,
    once_per_page,
    plain,
)
from followers.admin_endpoints import masked_addresses
from followers.models import Follower
from followers.mongo import collection, durably
from notifications.admin_tables import deliveries_table, delivery_summary, event_link, labelled, sizing_list
from notifications.choices import NotificationState, Priority
from notifications.models import InAppEntry, Notification
from notifications.statements import event_id

RECENT_HOURS = 24
"""How far back a list looks for what no index finds: alerts in the most common states, or of one priority."""

PENDING_SHOWN = 1_000
"""How many pending alerts a list shows; in a healthy system there are few, and in a sick one nobody reads them all."""


def follower_pk(external_id: str) -> ObjectId | None:
    return Follower.objects.filter(external_id=external_id).values_list("pk", flat=True).first()


EVENT_PARAMETER = "event__id__exact"
"""Of one event, by its id. With every state named, the list merges the index's own orders and sorts nothing."""


class RecentFilter(admin.SimpleListFilter):
    """A filter that no index serves looks at the newest alerts only, unless the list is narrowed already."""

    def narrowed(self, request: HttpRequest) -> bool:
        return bool({EVENT_PARAMETER, "follower__id__exact", "q"} & set(request.GET))

    def recent(self, request: HttpRequest, queryset: QuerySet[Notification]) -> QuerySet[Notification]:
        if self.narrowed(request):
            return queryset
        # The id begins with the trade's time.
        return queryset.filter(pk__gte=ObjectId.from_datetime(clock.now() - timedelta(hours=RECENT_HOURS)))


def first_to_wake() -> list[ObjectId]:
    """The ids of PENDING_SHOWN alerts that are unfinished, those that have a time at which they wake: the most urgent
    and earliest ones.

    A query uses a partial index on a type only if it names the type, which the ORM cannot.
    Index: notifications_notification (priority, wake_at), partial, in its own order.
    """
    query = {"priority": {"$in": Priority.values}, "wake_at": {"$type": "date"}}
    pending = collection(Notification).find(query, {"_id": 1}, hint=[("priority", 1), ("wake_at", 1)])
    first = pending.sort([("priority", 1), ("wake_at", 1)]).limit(PENDING_SHOWN)
    return durably(lambda: [row["_id"] for row in first.clone()])


class NotificationStateFilter(RecentFilter):
    """Indexes: the partial ones on (state, _id), for end states that need a look, and on (priority, wake_at)."""

    title = "state"
    parameter_name = "state"
    COMMON = frozenset({NotificationState.DELIVERED, NotificationState.SKIPPED})

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        suffix = "" if self.narrowed(request) else f" (last {RECENT_HOURS} h)"
        return [(s.value, f"{s.label}{suffix if s in self.COMMON else ''}") for s in NotificationState]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Notification]) -> QuerySet[Notification]:
        state = self.value()
        if not state:
            return queryset.filter(state__in=NotificationState.values) if EVENT_PARAMETER in request.GET else queryset
        if state == NotificationState.PENDING and not self.narrowed(request):
            return queryset.filter(pk__in=first_to_wake())
        return (self.recent(request, queryset) if state in self.COMMON else queryset).filter(state=state)


class PriorityFilter(RecentFilter):
    title = "priority"
    parameter_name = "priority"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        suffix = "" if self.narrowed(request) else f" (last {RECENT_HOURS} h)"
        return [(p.value, f"{p.label}{suffix}") for p in Priority]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Notification]) -> QuerySet[Notification]:
        return self.recent(request, queryset).filter(priority=self.value()) if self.value() else queryset


class NotificationAdmin(ReadOnlyModelAdmin):
    """Registered in delivery.admin_alert, which adds the story in words."""

    list_display = (
        "id",
        "created",
        "follower_link",
        "symbol",
        "side",
        "action",
        "suggested",
        "urgency",
        "status",
        "channels",
    )
    list_filter = (NotificationStateFilter, PriorityFilter)
    related_in_list = ("follower",)
    ordering = ("-id",)  # Begins with the trade's time, so that the newest are first without an index of their own.
    search_fields = ("event_key",)
    search_help_text = "External id of a follower, event id, or notification id"
    fieldsets: Any = (
        (
            None,
            {
                "fields": (
                    "id",
                    "kind",
                    "status",
                    "urgency",
                    "event_link",
                    "follower_link",
                    "trader_link",
                    "correlation_id",
                )
            },
        ),
        ("Trade", {"fields": ("instrument", "side", "action", "price_", "currency")}),
        ("Sizing", {"fields": ("sizing_explained",)}),
        ("Deliveries", {"fields": ("deliveries_explained",)}),
        ("Times", {"fields": ("executed", "created", "expires", "wakes", "superseded_by")}),
    )
    readonly_fields: Any = (
        "id", "status", "urgency", "event_link", "follower_link", "trader_link", "sizing_explained",
        "deliveries_explained", "executed", "created", "expires", "wakes", "price_",
    )  # fmt: skip

    price_ = number_column("price", "Price")

    def found_by(self, term: str) -> Q:
        found = Q(event_id=event_id(term), state__in=NotificationState.values)  # As for EVENT_PARAMETER.
        if (follower := follower_pk(term)) is not None:
            found |= Q(follower_id=follower)
        if (pk := object_id(term)) is not None:
            found |= Q(pk=pk)
        return found

    @admin.display(description="State")
    def status(self, notification: Notification) -> SafeString:
        return labelled(NotificationState, notification.state)

    @admin.display(description="Priority")
    def urgency(self, notification: Notification) -> SafeString:
        return labelled(Priority, notification.priority)

    @admin.display(description="Suggested")
    def suggested(self, notification: Notification) -> str:
        return plain(notification.sizing.suggested_qty) if notification.sizing else EMPTY

    @admin.display(description="Channels")
    def channels(self, notification: Notification) -> SafeString:
        return delivery_summary(notification)

    @admin.display(description="Event")
    def event_link(self, notification: Notification) -> SafeString:
        alert: Any = notification
        return event_link(alert.event_id, alert.kind, alert.event_key)

    @admin.display(description="Follower")
    def follower_link(self, notification: Notification) -> SafeString:
        return link_to(notification, "follower")

    @admin.display(description="Trader")
    def trader_link(self, notification: Notification) -> SafeString:
        return link_to(notification, "trader")

    @admin.display(description="How it was sized")
    def sizing_explained(self, notification: Notification) -> SafeString:
        return sizing_list(notification)

    @admin.display(description="Deliveries")
    @once_per_page
    def deliveries_explained(self, notification: Notification) -> SafeString:
        endpoints = [d.endpoint for d in notification.deliveries if d.endpoint is not None]
        return deliveries_table(notification, masked_addresses(endpoints))

    executed = moment_column("executed_at", "Executed")
    created = moment_column("created_at", "Created")
    expires = moment_column("expires_at", "Expires")
    wakes = moment_column("wake_at", "Wakes")


@admin.register(InAppEntry)
class InAppEntryAdmin(ReadOnlyModelAdmin):
    list_display = ("id", "created", "follower_link", "title", "expires", "read", "archived")
    related_in_list = ("follower",)
    ordering = ("-id",)
    search_fields = ("follower__external_id",)
    search_help_text = "External id of a follower, or notification id"
    fields = (
        "id", "notification_link", "follower_link", "trader_link", "event_key", "instrument", "order_id",
        "created", "expires", "read", "archived", "payload",
    )  # fmt: skip
    readonly_fields = (
        "id", "notification_link", "follower_link", "trader_link", "created", "expires", "read", "archived",
    )  # fmt: skip

    def found_by(self, term: str) -> Q:
        found = Q(follower_id=pk) if (pk := follower_pk(term)) is not None else Q(pk__in=[])
        return found | Q(pk=entry) if (entry := object_id(term)) is not None else found

    @admin.display(description="Title")
    def title(self, entry: InAppEntry) -> str:
        return entry.payload.get("title", EMPTY)

    @admin.display(description="Alert")
    def notification_link(self, entry: InAppEntry) -> SafeString:
        return link(Notification, entry.notification_id, entry.notification_id)  # type: ignore[attr-defined]

    @admin.display(description="Follower")
    def follower_link(self, entry: InAppEntry) -> SafeString:
        return link_to(entry, "follower")

    @admin.display(description="Trader")
    def trader_link(self, entry: InAppEntry) -> SafeString:
        return link_to(entry, "trader")

    created = moment_column("created_at", "Created")
    expires = moment_column("expires_at", "Expires")
    read = moment_column("read_at", "Read")
    archived = moment_column("archived_at", "Archived")
