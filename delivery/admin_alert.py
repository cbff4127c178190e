"""The page of one alert, with its story in plain words, as the review bucket tells it of its items."""

from __future__ import annotations

from django.contrib import admin
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from delivery import admin_review_page as page
from delivery.admin_timeline import alert_timeline
from delivery.models import ReviewItem
from delivery.why_not import in_sentences
from followers import clock
from followers.admin_base import link, once_per_page
from followers.admin_endpoints import masked_addresses
from notifications.admin import NotificationAdmin
from notifications.models import Notification


@admin.register(Notification)
class ExplainedAlertAdmin(NotificationAdmin):
    fieldsets = (
        NotificationAdmin.fieldsets[0],
        ("What happened", {"fields": ("in_words", "attempts")}),
        ("Timeline", {"fields": ("timeline",)}),
        *NotificationAdmin.fieldsets[1:],
    )
    readonly_fields = (*NotificationAdmin.readonly_fields, "in_words", "attempts", "timeline")

    @admin.display(description="In words")
    def in_words(self, alert: Notification) -> SafeString:
        deliveries = [(d.channel, d.state, d.error_code) for d in alert.deliveries]
        words = in_sentences(deliveries, alert.sizing.reason if alert.sizing else "")
        lines = format_html_join("", "<p>{}</p>", ((line,) for line in words))
        if alert.review is None:
            return lines
        word = "It waits in the review bucket." if alert.review.open else "It was in the review bucket."
        return format_html("{}<p>{}</p>", lines, link(ReviewItem, alert.pk, word))

    @admin.display(description="Timeline")
    @once_per_page
    def timeline(self, alert: Notification) -> SafeString:
        return alert_timeline(alert)

    @admin.display(description="Step by step")
    @once_per_page
    def attempts(self, alert: Notification) -> SafeString:
        endpoints = [d.endpoint for d in alert.deliveries if d.endpoint is not None]
        return page.timelines(alert, masked_addresses(endpoints), clock.now())
