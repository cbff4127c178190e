"""What a person can do about rejected messages: replay a few, or everything that matches the list's filters."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from delivery.replay import Replay, replay
from followers import clock
from followers.admin_base import object_id, table
from followers.admin_history import note_changes
from notifications.admin_events import RejectedEventAdmin
from notifications.models import RejectedEvent

SECONDS_A_CLICK = 15.0
"""The page answers in time; the next click goes on where this one ended."""

PREVIEW_SECONDS = 1.0


@admin.register(RejectedEvent)
class ReplayableEventAdmin(RejectedEventAdmin):
    actions = ("replay",)

    def has_replay_permission(self, request: HttpRequest) -> bool:
        user: Any = request.user
        return bool(user.has_perm("notifications.change_rejectedevent"))

    @admin.action(description="Replay", permissions=["replay"])
    def replay(self, request: HttpRequest, queryset: QuerySet[RejectedEvent]) -> HttpResponse | None:
        """Those that were ticked at once; "select all" everything that matches, after a look at how many that is."""
        waiting = queryset.filter(replayed_at=None).order_by()
        if not waiting[:1].exists():
            self.message_user(request, "All of the chosen messages were replayed before.", messages.WARNING)
            return None
        takes_all = request.POST.get("select_across") == "1"
        if takes_all and "confirmed" not in request.POST:
            return self._preview(request, waiting)
        after = object_id(request.POST.get("after", ""))
        result = replay(
            waiting,
            clock.now(),
            after=after,
            seconds=SECONDS_A_CLICK,
            after_page=lambda so_far: _note(request, so_far),
        )
        level = messages.WARNING if result.still_rejected else messages.SUCCESS
        text = f"{result.accepted:,} taken in as events, {result.still_rejected:,} are still rejected."
        self.message_user(request, text, level)
        if result.is_complete:
            return None
        return self._preview(request, waiting.filter(pk__gt=result.last), result)

    def _preview(
        self, request: HttpRequest, waiting: QuerySet[RejectedEvent], so_far: Replay | None = None
    ) -> HttpResponse:
        counts = dict(waiting.values_list("code").annotate(number=Count("pk")).order_by())
        sample = replay(waiting, clock.now(), dry_run=True, seconds=PREVIEW_SECONDS)
        context = {
            **self.admin_site.each_context(request),
            "title": "Replay rejected messages",
            "opts": self.model._meta,
            "total": sum(counts.values()),
            "codes": table(("Code", "Messages"), sorted((code, f"{n:,}") for code, n in counts.items())),
            "sample": sample,
            "back": request.get_full_path(),
            "selected": request.POST.getlist("_selected_action")[:1],
            "after": so_far.last if so_far else "",
        }
        return TemplateResponse(request, "admin/replay_preview.html", context)


def _note(request: HttpRequest, so_far: Replay) -> None:
    note_changes(request, RejectedEvent, so_far.replayed, "Replayed: taken in as an event.")
