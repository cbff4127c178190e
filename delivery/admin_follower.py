"""The page about one follower: who they are, where they are reached, and what became of their last alerts, and why."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from delivery.admin_test_alert import TestAlertMixin, may_send_test_alert
from delivery.explanations import explain
from delivery.why_not import Answer, Cause, what_became, why
from followers import clock
from followers.admin import FollowerAdmin
from followers.admin_base import link, list_link, moment, object_id, once_per_page, table
from followers.choices import Channel
from followers.models import Follower
from followers.mongo import collection, durably
from notifications.admin_tables import event_link, labelled
from notifications.choices import DeliveryState, Kind, NotificationState
from notifications.models import Notification

Document = dict[str, Any]

ALERTS_SHOWN = 20
LOOKED_BACK = 200
"""What was not sent is summed up over so many of the newest alerts."""

UNSENT = frozenset({
    DeliveryState.SKIPPED, DeliveryState.EXPIRED, DeliveryState.CANCELLED, DeliveryState.FAILED, DeliveryState.UNKNOWN,
})  # fmt: skip
_FIELDS = {
    "event_id": 1, "event_key": 1, "kind": 1, "created_at": 1, "side": 1, "symbol": 1, "action": 1, "state": 1,
    "words.title": 1, "sizing.reason": 1, "deliveries.channel": 1, "deliveries.state": 1, "deliveries.error_code": 1,
}  # fmt: skip


@admin.register(Follower)
class FollowerStoryAdmin(TestAlertMixin, FollowerAdmin):
    change_form_outer_before_template = "admin/follower_question.html"
    fieldsets = (
        FollowerAdmin.fieldsets[0],
        ("Last alerts", {"fields": ("last_alerts",)}),
        ("What was not sent", {"fields": ("not_sent",)}),
        *FollowerAdmin.fieldsets[1:],
    )
    readonly_fields = (*FollowerAdmin.readonly_fields, "last_alerts", "not_sent")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Document | None = None
    ) -> HttpResponse:
        """With `?trade=` the page also answers what became of that trade, or update, for this follower."""
        term = request.GET.get("trade", "").strip()[:128]
        shown = {
            "trade": term,
            "answer": _answered(object_id, term) if term else None,
            "may_test": may_send_test_alert(request),
        }
        return super().change_view(request, object_id, form_url, {**shown, **(extra_context or {})})

    @admin.display(description=f"The newest {ALERTS_SHOWN}")
    @once_per_page
    def last_alerts(self, follower: Follower) -> SafeString:
        every = list_link(Notification, "All their alerts", q=follower.external_id)
        return format_html(
            '<div class="flex flex-col gap-2 w-full">{}<span>{}</span></div>',
            table(
                ("Created", "About", "State", "What happened", ""),
                (_alert_cells(alert) for alert in newest_alerts(follower, ALERTS_SHOWN)),
            ),
            every,
        )

    @admin.display(description=f"Of the newest {LOOKED_BACK}")
    @once_per_page
    def not_sent(self, follower: Follower) -> SafeString | str:
        rows = unsent(newest_alerts(follower, LOOKED_BACK))
        if not rows:
            return "Everything was sent, or waits to be."
        return table(("On", "How many", "Last", "Why", "What to do"), rows)


def newest_alerts(follower: Follower, limit: int) -> list[Document]:
    """A follower's newest alerts. Index: notifications_notification (follower_id, created_at)."""
    found = collection(Notification).find({"follower_id": follower.pk}, _FIELDS)
    return durably(lambda: list(found.clone().sort("created_at", -1).limit(limit)))


def unsent(alerts: Iterable[Document]) -> list[tuple[object, ...]]:
    """The reasons for which something was not sent, the most frequent first: where, how often, when last, why, and
    what to do about it."""
    counts: dict[tuple[str, str], int] = {}
    last: dict[tuple[str, str], datetime] = {}
    for alert in alerts:  # The newest first.
        for key in _unsent_in(alert):
            counts[key] = counts.get(key, 0) + 1
            last.setdefault(key, alert["created_at"])
    ordered = sorted(counts, key=lambda key: -counts[key])
    return [
        (
            Channel(channel).label if channel else "every channel",
            f"{counts[channel, code]:,}",
            moment(clock.as_utc(last[channel, code])),
            format_html("{} <em>({})</em>", explain(channel, code).what, code or "no code"),
            explain(channel, code).todo,
        )
        for channel, code in ordered
    ]


def _unsent_in(alert: Document) -> list[tuple[str, str]]:
    if not alert["deliveries"]:
        return [("", (alert.get("sizing") or {}).get("reason") or "")]
    return [(d["channel"], d["error_code"]) for d in alert["deliveries"] if d["state"] in UNSENT]


def _alert_cells(alert: Document) -> tuple[object, ...]:
    return (
        moment(clock.as_utc(alert["created_at"])),
        event_link(alert["event_id"], alert["kind"], _about(alert)),
        labelled(NotificationState, alert["state"]),
        _sentences(what_became(alert)),
        link(Notification, alert["_id"], "Timeline"),
    )


def _about(alert: Document) -> str:
    if alert["kind"] == Kind.UPDATE:
        return str(alert["words"]["title"])
    return " ".join(filter(None, (alert["side"], alert["symbol"], alert["action"] and f"({alert['action']})")))


def _sentences(words: Iterable[str]) -> SafeString:
    lines = format_html_join("", "<span>{}</span>", ((line,) for line in words))
    return format_html('<div class="flex flex-col gap-1 whitespace-normal">{}</div>', lines)


def _answered(pk: str, term: str) -> Document | None:
    """The answer, as the template shows it. None = there is no such follower."""
    follower = Follower.objects.filter(pk=object_id(pk)).first()
    if follower is None:
        return None
    answer = why(follower, term)
    return {
        "words": answer.words,
        "links": list(_links(answer)),
        "is_ours": answer.cause in {Cause.MISSING, Cause.FAN_OUT_FAILED},
    }


def _links(answer: Answer) -> Iterable[SafeString]:
    if answer.alert is not None:
        yield link(Notification, answer.alert, "Its timeline")
    if answer.event is not None:
        yield event_link(answer.event, answer.kind, "The update" if answer.kind is Kind.UPDATE else "The trade")
    if answer.cause is Cause.NO_TRADE:
        url = reverse("admin:notifications_rejectedevent_changelist")
        yield format_html('<a class="text-primary-600 dark:text-primary-500" href="{}">Rejected messages</a>', url)
    if answer.cause is Cause.MISSING:
        url = reverse("admin:delivery_proofrun_changelist")
        yield format_html('<a class="text-primary-600 dark:text-primary-500" href="{}">Proof</a>', url)
