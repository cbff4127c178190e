"""The admin of batches, and of trades with their fan-out."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from delivery import (  # noqa: F401  They register their own pages.
    admin_alert,
    admin_breakers,
    admin_follower,
    admin_proof,
    admin_rejected,
    admin_review,
    admin_timeline,
    admin_updates,
)
from delivery.admin_rerun import RerunnableAdmin
from delivery.choices import BatchKind
from delivery.models import Batch
from delivery.statements import batches_by_id, shard_batch_id
from followers import clock
from followers.admin_base import (
    EMPTY,
    EPOCH,
    ReadOnlyModelAdmin,
    badge,
    link,
    list_link,
    moment,
    moment_column,
    object_id,
    once_per_page,
    table,
)
from followers.choices import Channel
from notifications.admin_events import TradeEventAdmin
from notifications.admin_outcomes import channel_table, progress_line
from notifications.admin_tables import event_link, labelled
from notifications.choices import Kind, Priority
from notifications.models import Notification, TradeEvent
from notifications.update_events import stored_update


def batch_state(finished: bool, token: str | None, waits: bool) -> SafeString:
    """Where a batch stands, in one word."""
    if finished:
        return badge("finished", "green")
    if token is not None:
        return badge("claimed", "blue")
    return badge("waiting", "grey") if waits else badge("failed", "red")


@admin.register(TradeEvent)
class FannedOutEventAdmin(RerunnableAdmin, TradeEventAdmin):
    fieldsets = (
        *TradeEventAdmin.fieldsets[:1],
        ("Fan-out", {"fields": ("shards_done_", "shard_table")}),
        ("Deliveries by channel", {"fields": ("by_channel",)}),
        ("Timeline", {"fields": ("timeline",)}),
        *TradeEventAdmin.fieldsets[1:],
    )
    readonly_fields = (*TradeEventAdmin.readonly_fields, "shards_done_", "shard_table", "by_channel", "timeline")

    @admin.display(description="Timeline")
    @once_per_page
    def timeline(self, event: TradeEvent) -> SafeString:
        return admin_timeline.event_timeline(event)

    @admin.display(description="Progress")
    def shards_done_(self, event: TradeEvent) -> SafeString:
        return progress_line(event)

    @admin.display(description="How they ended")
    @once_per_page
    def by_channel(self, event: TradeEvent) -> SafeString:
        return channel_table(event)

    @admin.display(description="Fan-out shards")
    @once_per_page
    def shard_table(self, event: TradeEvent) -> SafeString:
        shards = {shard_batch_id(event.external_id, shard): shard for shard in range(event.shards)}
        stored = batches_by_id(list(shards))
        return table(
            ("Shard", "State", "Failures", "Next look", "Worker", "Error"),
            ((shard, *_shard_cells(stored.get(pk), shard in event.shards_done)) for pk, shard in shards.items()),
        )


def _shard_cells(batch: dict[str, Any] | None, done: bool) -> tuple[object, ...]:
    if batch is None:  # Finished ones are removed after BATCH_RETENTION_SECONDS.
        return (badge("done", "green") if done else badge("gone", "red"), EMPTY, EMPTY, EMPTY, EMPTY)
    state = (
        badge("done", "green")
        if done
        else batch_state(bool(batch["finished_at"]), batch["token"], bool(batch["next_look_at"]))
    )
    next_look = batch["next_look_at"] and moment(clock.as_utc(batch["next_look_at"]))
    return (
        link(Batch, batch["_id"], state),
        batch["failures"],
        next_look or EMPTY,
        batch["worker"] or EMPTY,
        batch["error"] or EMPTY,
    )


# --- Batches ---------------------------------------------------------------------------------------------------------
class BatchStateFilter(admin.SimpleListFilter):
    """Index: delivery_batch (finished_at); unfinished batches are few."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("open", "Unfinished"), ("failed", "Failed"), ("finished", "Finished")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Batch]) -> QuerySet[Batch]:
        match self.value():
            case "open":
                return queryset.filter(finished_at=None)
            case "failed":
                return queryset.filter(finished_at=None, next_look_at=None, token=None)
            case "finished":
                return queryset.filter(finished_at__gt=EPOCH)
        return queryset


@admin.register(Batch)
class BatchAdmin(ReadOnlyModelAdmin):
    list_display = (
        "id",
        "kind",
        "what",
        "urgency",
        "status",
        "created",
        "next_look",
        "failures",
        "worker",
        "short_error",
    )
    list_filter = (BatchStateFilter,)
    ordering = ("-id",)
    search_fields = ("id",)
    search_help_text = "Batch id"
    fieldsets = (
        (None, {"fields": ("id", "kind", "channel", "urgency", "status", "correlation_id", "created", "finished")}),
        ("Claim", {"fields": ("token_", "worker", "lease", "next_look", "hints", "failures", "error")}),
        ("Content", {"fields": ("event_link", "shard", "shard_link", "alerts")}),
    )
    readonly_fields = (
        "id", "urgency", "status", "created", "finished", "token_", "lease", "next_look", "event_link",
        "shard_link", "alerts",
    )  # fmt: skip

    created = moment_column("created_at", "Created")
    finished = moment_column("finished_at", "Finished")
    next_look = moment_column("next_look_at", "Next look")
    lease = moment_column("lease_until", "Lease until")

    def found_by(self, term: str) -> Q:
        return Q(pk=found) if (found := object_id(term)) else Q(pk__in=[])

    @admin.display(description="Holds")
    def what(self, batch: Batch) -> str:
        if batch.kind == BatchKind.FAN_OUT:
            return f"shard {batch.shard}"
        return f"{len(batch.ids):,} × {Channel(batch.channel).label}"

    @admin.display(description="Priority")
    def urgency(self, batch: Batch) -> SafeString:
        return labelled(Priority, batch.priority)

    @admin.display(description="State")
    def status(self, batch: Batch) -> SafeString:
        return batch_state(batch.finished_at is not None, batch.token, batch.next_look_at is not None)

    @admin.display(description="Error")
    def short_error(self, batch: Batch) -> str:
        return batch.error if len(batch.error) <= 80 else f"{batch.error[:80]}…"

    @admin.display(description="Claimed")
    def token_(self, batch: Batch) -> str:
        return "yes" if batch.token else "no"

    @admin.display(description="Event")
    def event_link(self, batch: Batch) -> SafeString:
        if batch.event is None:
            return format_html("{}", EMPTY)
        kind = Kind.TRADE_ALERT if stored_update(batch.event) is None else Kind.UPDATE
        return event_link(batch.event, kind, batch.event)

    @admin.display(description="Made by the shard")
    def shard_link(self, batch: Batch) -> SafeString:
        return link(Batch, batch.shard_batch, batch.shard_batch or EMPTY)

    @admin.display(description="Alerts")
    def alerts(self, batch: Batch) -> SafeString | str:
        if not batch.ids:
            return EMPTY
        return list_link(Notification, f"Show the {len(batch.ids):,} alerts", id__in=",".join(map(str, batch.ids)))
