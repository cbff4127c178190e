"""The admin of general updates: what was published, to whom, and how far it has come."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import Q
from django.utils.safestring import SafeString

from delivery.admin_rerun import RerunnableAdmin
from followers.admin_base import list_link, moment_column
from notifications.admin_tables import outcome_table, state_badge
from notifications.choices import FanOutState
from notifications.models import Notification, Update
from notifications.update_events import update_id


@admin.register(Update)
class UpdateAdmin(RerunnableAdmin):
    list_display = ("external_id", "received", "title", "audience", "progress", "is_test", "published_by")
    ordering = ("-received_at", "-id")
    search_fields = ("external_id",)
    search_help_text = "Update id, or correlation id"
    deferred_in_list = ("text", "unknown_followers")
    fieldsets = (
        (None, {"fields": ("external_id", "correlation_id", "published_by", "progress", "outcomes", "alerts")}),
        ("Words", {"fields": ("title", "text", "is_test")}),
        ("Audience", {"fields": ("audience", "unknown_followers")}),
        ("Times", {"fields": ("received", "expires", "fanned_out")}),
    )
    readonly_fields = ("audience", "progress", "outcomes", "alerts", "received", "expires", "fanned_out")

    def found_by(self, term: str) -> Q:
        return Q(pk=update_id(term.removeprefix("update:"))) | Q(correlation_id=term)

    @admin.display(description="Audience")
    def audience(self, update: Update) -> str:
        if update.trader_external_id:
            return f"Followers of {update.trader_external_id}"
        return f"{len(update.follower_ids):,} named followers"

    @admin.display(description="Fan-out")
    def progress(self, update: Update) -> SafeString:
        label = str(FanOutState(update.state).label)
        if update.state in {FanOutState.PENDING, FanOutState.FAILED}:
            label += f", {len(update.shards_done)} of {update.shards} shards done"
        return state_badge(update.state, label)

    @admin.display(description="Outcomes")
    def outcomes(self, update: Update) -> SafeString:
        return outcome_table(update)

    @admin.display(description="Alerts")
    def alerts(self, update: Update) -> SafeString:
        return list_link(Notification, "Show the alerts of this update", event__id__exact=update.pk)

    received = moment_column("received_at", "Published")
    expires = moment_column("expires_at", "Expires")
    fanned_out = moment_column("fanned_out_at", "Fanned out")
