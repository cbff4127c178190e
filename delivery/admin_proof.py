"""The admin's page of the proof: what the last runs have found, and a new one at a click."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from bson import ObjectId
from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST
from unfold.widgets import UnfoldAdminSelectWidget

from delivery.choices import Gap
from delivery.models import Batch, ProofRun
from delivery.proof import Limits, keep_run, prove
from delivery.proof_words import figures, verdict
from followers import clock
from followers.admin_base import EMPTY, ReadOnlyModelAdmin, badge, link, moment, moment_column, table
from followers.index_order import in_index_order
from followers.models import Follower
from notifications.models import Notification, TradeEvent, Update
from notifications.update_events import KEY_PREFIX

Document = dict[str, Any]

PERIODS = {"1": "the last hour", "24": "the last 24 hours", "48": "the last 2 days", "168": "the last 7 days"}
"""Hours, and how they are called."""

PAGE_LIMITS = Limits(alerts=200_000, seconds=10)
"""A page has to answer; what is beyond is for `manage.py prove`."""

NOT_STORED = {Gap.ALERT_MISSING, Gap.POST_MISSING}


class PeriodForm(forms.Form):
    """Which trades are to be looked at."""

    hours = forms.ChoiceField(choices=list(PERIODS.items()), initial="24", widget=UnfoldAdminSelectWidget)


@admin.register(ProofRun)
class ProofRunAdmin(ReadOnlyModelAdmin):
    list_display = ("started", "outcome", "period", "by", "took")
    ordering = ("-id",)
    list_before_template = "proof_form.html"
    fields = ("outcome", "sentence", "period", "started", "by", "gaps", "counted")
    readonly_fields = ("outcome", "sentence", "period", "started", "by", "gaps", "counted")

    started = moment_column("started_at", "Started")

    def has_prove_permission(self, request: HttpRequest) -> bool:
        user: Any = request.user
        return bool(user.has_perm("delivery.add_proofrun"))

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(require_POST(self.prove_view))
        return [path("prove/", view, name="delivery_proofrun_prove"), *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: Document | None = None) -> HttpResponse:
        form = PeriodForm() if self.has_prove_permission(request) else None
        last = in_index_order(ProofRun.objects.order_by("-id")).first()
        return super().changelist_view(request, {"prove_form": form, "last_run": last, **(extra_context or {})})

    def prove_view(self, request: HttpRequest) -> HttpResponse:
        """Runs a proof of the chosen period, within PAGE_LIMITS, and shows what it has found."""
        if not self.has_prove_permission(request):
            raise PermissionDenied
        form = PeriodForm(request.POST)
        if not form.is_valid():
            self.message_user(request, "Choose one of the periods.", messages.ERROR)
            return redirect("admin:delivery_proofrun_changelist")
        since = clock.now() - timedelta(hours=int(form.cleaned_data["hours"]))
        run = keep_run(prove(since, PAGE_LIMITS), request.user.get_username())
        return redirect("admin:delivery_proofrun_change", run.pk)

    @admin.display(description="Result")
    def outcome(self, run: ProofRun) -> SafeString:
        if run.missing:
            return badge(f"{run.missing:,} missing", "red")
        return badge("in part", "orange") if run.cut_short else badge("proved", "green")

    @admin.display(description="In words")
    def sentence(self, run: ProofRun) -> str:
        if not run.cut_short:
            return verdict(run.result)
        rest = f"manage.py prove --since {run.since:%Y-%m-%dT%H:%M:%S}" if run.since else "manage.py prove"
        return f"{verdict(run.result)} There is more than a page can look at in time; for all of it: {rest}"

    @admin.display(description="Trades received")
    def period(self, run: ProofRun) -> str:
        return f"since {moment(run.since)}" if run.since else "all"

    @admin.display(description="Took")
    def took(self, run: ProofRun) -> str:
        return f"{run.seconds:.1f} s"

    @admin.display(description="Counted")
    def counted(self, run: ProofRun) -> SafeString:
        return table(("What", "How many"), figures(run.result))

    @admin.display(description="Missing")
    def gaps(self, run: ProofRun) -> SafeString | str:
        result = run.result
        if not result["findings"]:
            return "Nothing."
        named = table(("Gap", "What is missing", "Look at"), (_gap_cells(finding) for finding in result["findings"]))
        more = f"… and {result['not_named']:,} more." if result["not_named"] else ""
        return format_html('<div class="flex flex-col gap-2 w-full">{}{}</div>', named, more)


LINKS = (
    ("event", TradeEvent, "Trade"), ("notification", Notification, "Alert"), ("follower", Follower, "Follower"),
    ("batch", Batch, "Batch"),
)  # fmt: skip
"""What a finding may lead to: its name in the finding, its model, and the word for it."""


def _gap_cells(finding: Document) -> tuple[object, ...]:
    gap = Gap(finding["gap"])
    is_of_update = finding["event_id"].startswith(KEY_PREFIX)
    links = [
        link(Update if name == "event" and is_of_update else model, ObjectId(finding[name]), word)
        for name, model, word in LINKS
        if name in finding and not (name == "notification" and gap in NOT_STORED)
    ]
    return badge(gap.label, "red"), finding["text"], format_html_join(" · ", "{}", ((one,) for one in links)) or EMPTY
