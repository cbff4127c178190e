"""Running a failed fan-out again, of a trade as of a general update."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.auth import get_permission_codename
from django.db.models import QuerySet
from django.http import HttpRequest

from delivery.operations import rerun_fan_out
from followers.admin_base import ReadOnlyModelAdmin
from followers.admin_history import note_changes
from notifications.choices import FanOutState


class RerunnableAdmin(ReadOnlyModelAdmin):
    """The admin of what is fanned out: whoever may change it may have it fanned out again."""

    actions = ("run_again",)

    def has_rerun_permission(self, request: HttpRequest) -> bool:
        user: Any = request.user
        return bool(user.has_perm(f"{self.opts.app_label}.{get_permission_codename('change', self.opts)}"))

    @admin.action(description="Run the fan-out again", permissions=["rerun"])
    def run_again(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        failed = list(queryset.filter(state=FanOutState.FAILED).order_by().values_list("pk", "external_id"))
        if not failed:
            chosen = str(self.opts.verbose_name_plural)
            self.message_user(request, f"None of the chosen {chosen} has failed.", messages.WARNING)
            return
        for pk, external_id in failed:
            shards = rerun_fan_out(pk)
            note_changes(request, self.model, {pk: external_id}, f"Fan-out run again: {shards} shards.")
            self.message_user(request, f"{external_id}: {shards} shards run again within seconds.", messages.SUCCESS)
