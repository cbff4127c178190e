"""The path of a trade and of an alert on their admin pages: the same steps as `manage.py trace` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.utils.safestring import SafeString

from delivery.trace import Step, alert_path, event_steps, with_gaps
from followers.admin_base import EMPTY, moment, table
from followers.clock import as_utc
from followers.mongo import collection
from notifications.admin import NotificationAdmin
from notifications.models import Notification, TradeEvent


def timeline(steps: Sequence[Step]) -> SafeString:
    """When each step was, how long after the one before, and what it was."""
    rows = ((moment(as_utc(step.at)), EMPTY if gap is None else gap, step.what) for step, gap in with_gaps(steps))
    return table(("When", "After", "What"), rows)


def event_timeline(event: TradeEvent) -> SafeString:
    stored = collection(TradeEvent).find_one({"_id": event.pk})
    return timeline(event_steps(stored) if stored else ())


@admin.register(Notification)
class TracedNotificationAdmin(NotificationAdmin):
    fieldsets: Any = (
        *NotificationAdmin.fieldsets[:-1],
        ("Timeline", {"fields": ("timeline",)}),
        NotificationAdmin.fieldsets[-1],
    )
    readonly_fields: Any = (*NotificationAdmin.readonly_fields, "timeline")

    @admin.display(description="Timeline")
    def timeline(self, notification: Notification) -> SafeString:
        stored = collection(Notification).find_one({"_id": notification.pk})
        event = collection(TradeEvent).find_one({"_id": stored["event_id"]}) if stored else None
        return timeline(alert_path(stored, event).steps if stored else ())
