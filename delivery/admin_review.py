"""The admin of the review bucket: alerts that need a person, and what that person decides about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bson import ObjectId
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.views import ChangeList

from delivery import admin_review_page as page
from delivery.admin_decisions import DECIDED_AT_ONCE, DECISIONS, Decision, DecisionForm
from delivery.admin_review_filters import REVIEW_FILTERS, with_code
from delivery.explanations import explain
from delivery.models import ReviewItem
from followers import clock
from followers.admin_base import (
    EMPTY,
    ReadOnlyModelAdmin,
    badge,
    link,
    link_to,
    moment_column,
    object_id,
    once_per_page,
    plain,
)
from followers.admin_endpoints import masked_addresses
from notifications.admin import follower_pk
from notifications.admin_tables import event_link, labelled
from notifications.choices import DeliveryState, Priority, ReviewReason
from notifications.models import Notification
from notifications.statements import event_id

RETRY_MATCHING = "delivery_reviewitem_retry_matching"
_AGES = ((86_400, "d"), (3_600, "h"), (60, "min"))
_REASONS = {ReviewReason.UNKNOWN: "orange", ReviewReason.UNDONE: "orange"}


def short_age(seconds: float) -> str:
    """The largest whole unit, as in "3 h"."""
    for unit, name in _AGES:
        if seconds >= unit:
            return f"{int(seconds // unit)} {name}"
    return "now"


def _bulk(decision: Decision) -> Any:
    """The list's action of a decision: its preview for whatever was chosen."""

    @admin.action(description=f"{decision.title}…", permissions=["review"])
    def run(self: ReviewItemAdmin, request: HttpRequest, queryset: QuerySet[ReviewItem]) -> HttpResponse:
        ids = list(queryset.values_list("pk", flat=True)[:DECIDED_AT_ONCE])
        return self.preview(request, decision, ids, back=request.GET.urlencode())

    run.__name__ = f"{decision.name}_chosen"
    return run


def _single(decision: Decision, variant: ActionVariant) -> Any:
    """The item page's button of a decision: its preview for this one item."""

    @action(  # type: ignore[untyped-decorator]
        description=decision.title, url_path=decision.name, permissions=["review"], icon=decision.icon, variant=variant
    )
    def run(self: ReviewItemAdmin, request: HttpRequest, object_id: str) -> HttpResponse:
        item = self.get_object(request, object_id)
        if item is None:
            raise Http404
        return self.preview(request, decision, [item.pk])

    run.__name__ = f"{decision.name}_one"
    return run


class Matching(ChangeList):
    """What the list's filters leave, without a page of it: nothing is counted, and no row is read."""

    def get_results(self, request: HttpRequest) -> None:
        self.result_list: list[ReviewItem] = []


@admin.register(ReviewItem)
class ReviewItemAdmin(ReadOnlyModelAdmin):
    list_display = ("item", "opened", "follower_link", "trader_link", "trade", "why", "validity", "assigned")
    list_filter = REVIEW_FILTERS
    list_filter_submit = True
    list_fullwidth = True
    list_before_template = "admin/review_retry.html"
    related_in_list = ("follower", "trader")
    ordering = ("-review__opened_at", "-id")
    search_fields = ("event_key",)
    search_help_text = "External id of a follower, event id, notification id, or error code"
    actions = tuple(f"{name}_chosen" for name in DECISIONS)
    actions_detail = tuple(f"{name}_one" for name in DECISIONS)
    fieldsets = (
        ("Why it is here", {"fields": ("why_here", "assigned", "opened")}),
        ("What can be done", {"fields": ("options",)}),
        ("Deliveries", {"fields": ("timelines",)}),
        ("Alert", {"fields": ("alert_link", "trade_in_full", "urgency", "follower_link", "trader_link", "event_link",
                              "validity", "created", "expires")}),
        ("What was decided", {"fields": ("history",)}),
    )  # fmt: skip
    readonly_fields = (
        "why_here", "assigned", "opened", "options", "timelines", "alert_link", "trade_in_full", "urgency",
        "follower_link", "trader_link", "event_link", "validity", "created", "expires", "history",
    )  # fmt: skip

    retry_chosen, send_elsewhere_chosen, resolve_chosen, assign_chosen = map(_bulk, DECISIONS.values())
    retry_one = _single(DECISIONS["retry"], ActionVariant.PRIMARY)
    send_elsewhere_one = _single(DECISIONS["send_elsewhere"], ActionVariant.DEFAULT)
    resolve_one = _single(DECISIONS["resolve"], ActionVariant.SUCCESS)
    assign_one = _single(DECISIONS["assign"], ActionVariant.DEFAULT)

    def has_review_permission(self, request: HttpRequest, obj: object = None) -> bool:
        user: Any = request.user
        return bool(user.has_perm("delivery.work_on_reviews"))

    def get_queryset(self, request: HttpRequest) -> QuerySet[ReviewItem]:
        return super().get_queryset(request).filter(review__open__in=[True, False])

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        shown = {"may_review": self.has_review_permission(request), "query": request.GET.urlencode()}
        return super().changelist_view(request, {**shown, **(extra_context or {})})

    def found_by(self, term: str) -> Q:
        if (follower := follower_pk(term)) is not None:
            return Q(follower_id=follower)
        if (pk := object_id(term)) is not None:
            return Q(pk=pk)
        event = event_id(term)
        # One or the other: of both at once the database would sort everything that it finds.
        return Q(event_id=event) if Notification.objects.filter(event_id=event).exists() else with_code(term)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        match = request.resolver_match
        return Matching if match and match.url_name == RETRY_MATCHING else super().get_changelist(request, **kwargs)

    # --- Deciding -----------------------------------------------------------------------------------------------------
    def get_urls(self) -> list[Any]:
        decide = self.admin_site.admin_view(self.decide)
        matching = self.admin_site.admin_view(self.retry_matching)
        return [
            path("decide/<slug:name>/", decide, name="delivery_reviewitem_decide"),
            path("retry/", matching, name=RETRY_MATCHING),
            *super().get_urls(),
        ]

    def retry_matching(self, request: HttpRequest) -> HttpResponse:
        """The preview of a retry for whatever the list shows with these filters: all pages of it, within bounds."""
        if not self.has_review_permission(request):
            raise PermissionDenied
        matching = self.get_changelist_instance(request).get_queryset(request)
        ids = list(matching.values_list("pk", flat=True)[:DECIDED_AT_ONCE])
        return self.preview(request, DECISIONS["retry"], ids, back=request.GET.urlencode())

    def preview(
        self,
        request: HttpRequest,
        decision: Decision,
        ids: Sequence[ObjectId],
        back: str = "",
        form: DecisionForm | None = None,
    ) -> HttpResponse:
        """What the decision would do to these items, and the form that confirms it."""
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": decision.title,
            "decision": decision,
            "preview": decision.preview(ids, clock.now()),
            "form": form or self._form(request, decision),
            "ids": ",".join(map(str, ids)),
            "back": back,
            "cancel": self._way_back(ids, back),
            "chosen": len(ids),
            "at_most": DECIDED_AT_ONCE if len(ids) == DECIDED_AT_ONCE else 0,
        }
        return TemplateResponse(request, "admin/review_preview.html", context)

    def decide(self, request: HttpRequest, name: str) -> HttpResponse:
        """Carries out what was previewed, for exactly the items that were."""
        decision = DECISIONS.get(name)
        if decision is None or request.method != "POST":
            raise Http404
        if not self.has_review_permission(request):
            raise PermissionDenied
        ids = [pk for text in request.POST.get("ids", "").split(",") if (pk := object_id(text)) is not None]
        ids, back = ids[:DECIDED_AT_ONCE], request.POST.get("back", "")
        form = self._form(request, decision, request.POST)
        if not form.is_valid():
            return self.preview(request, decision, ids, back, form)
        done = decision.decide(ids, form.cleaned_data, request.user.get_username(), clock.now())
        self._keep(request, done.changed, done.history)
        self.message_user(request, done.message, messages.SUCCESS if done.changed else messages.WARNING)
        return redirect(self._way_back(ids, back))

    def _form(self, request: HttpRequest, decision: Decision, data: Any = None) -> DecisionForm:
        return decision.form(data, me=request.user.get_username())

    def _way_back(self, ids: Sequence[ObjectId], back: str) -> str:
        if len(ids) == 1 and not back:
            return reverse("admin:delivery_reviewitem_change", args=[ids[0]])
        return reverse("admin:delivery_reviewitem_changelist") + (f"?{back}" if back else "")

    def _keep(self, request: HttpRequest, ids: Sequence[ObjectId], words: str) -> None:
        content_type = ContentType.objects.get_for_model(ReviewItem, for_concrete_model=False)
        LogEntry.objects.bulk_create(
            LogEntry(
                user_id=request.user.pk, content_type=content_type, object_id=str(pk), object_repr=f"Review item {pk}",
                action_flag=CHANGE, change_message=words,
            )
            for pk in ids
        )  # fmt: skip

    # --- Columns ------------------------------------------------------------------------------------------------------
    @admin.display(description="Item")
    def item(self, item: ReviewItem) -> SafeString:
        review = item.review
        if not review.open:
            return badge("resolved", "green")
        if any(d.state == DeliveryState.QUEUED for d in item.deliveries):
            return badge("under way", "blue")
        return badge(review.reason, _REASONS.get(review.reason, "red"))

    @admin.display(description="Waiting since")
    def opened(self, item: ReviewItem) -> SafeString:
        seconds = (clock.now() - item.review.opened_at).total_seconds()
        shown = page.moment(item.review.opened_at)
        return format_html("{} <span class='text-xs'>({})</span>", shown, short_age(seconds))

    @admin.display(description="Trade")
    def trade(self, item: ReviewItem) -> str:
        return " ".join(filter(None, (item.side, item.symbol, item.action and f"({item.action})")))

    @admin.display(description="What happened")
    def why(self, item: ReviewItem) -> SafeString:
        delivery = page.worst_delivery(item)
        if delivery is None:
            return format_html("{}", EMPTY)
        words = explain(delivery.channel, delivery.error_code)
        channels = format_html_join(" ", "{}", ((badge(channel, "grey"),) for channel in item.review.channels))
        return format_html(
            '<div class="flex flex-col gap-1 whitespace-normal max-w-96">{}<span>{}</span></div>',
            format_html("<span>{} {}</span>", channels, delivery.error_code),
            words.what,
        )

    @admin.display(description="Valid")
    def validity(self, item: ReviewItem) -> SafeString:
        left = (item.expires_at - clock.now()).total_seconds()
        if item.superseded_by:
            return badge("withdrawn", "grey")
        return badge(f"{short_age(left)} left", "green") if left > 0 else badge("over", "grey")

    @admin.display(description="Assigned to")
    def assigned(self, item: ReviewItem) -> str:
        return item.review.assignee or "nobody"

    # --- The page of one item -----------------------------------------------------------------------------------------
    @admin.display(description="In words")
    def why_here(self, item: ReviewItem) -> SafeString:
        return page.why_here(item)

    @admin.display(description="Ways on")
    @once_per_page
    def options(self, item: ReviewItem) -> SafeString:
        return page.options(item, clock.now())

    @admin.display(description="What happened to each")
    @once_per_page
    def timelines(self, item: ReviewItem) -> SafeString:
        endpoints = [d.endpoint for d in item.deliveries if d.endpoint is not None]
        return page.timelines(item, masked_addresses(endpoints), clock.now())

    @admin.display(description="History")
    @once_per_page
    def history(self, item: ReviewItem) -> SafeString:
        return page.history(item)

    @admin.display(description="Alert")
    def alert_link(self, item: ReviewItem) -> SafeString:
        return link(Notification, item.pk, item.pk)

    @admin.display(description="Trade")
    def trade_in_full(self, item: ReviewItem) -> str:
        return f"{self.trade(item)} at {plain(item.price)} {item.currency}".strip()

    @admin.display(description="Priority")
    def urgency(self, item: ReviewItem) -> SafeString:
        return labelled(Priority, item.priority)

    @admin.display(description="Event")
    def event_link(self, item: ReviewItem) -> SafeString:
        alert: Any = item
        return event_link(alert.event_id, alert.kind, alert.event_key)

    @admin.display(description="Follower")
    def follower_link(self, item: ReviewItem) -> SafeString:
        return link_to(item, "follower")

    @admin.display(description="Trader")
    def trader_link(self, item: ReviewItem) -> SafeString:
        return link_to(item, "trader")

    created = moment_column("created_at", "Created")
    expires = moment_column("expires_at", "Valid until")
