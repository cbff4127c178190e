"""Switching endpoints off and on again: by a permission of its own, never without a reason."""

from __future__ import annotations

from typing import Any

from bson import ObjectId
from django import forms
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from followers import clock
from followers.admin_history import note_changes, reason_field
from followers.models import Endpoint

PERMISSION = "followers.switch_endpoint"


class SwitchForm(forms.Form):
    """Why an endpoint is switched."""

    reason = reason_field("It is kept with the endpoint and in its history.")


def may_switch(request: HttpRequest) -> bool:
    user: Any = request.user
    return bool(user.has_perm(PERMISSION))


def switch(request: HttpRequest, names: dict[ObjectId, str], active: bool, reason: str) -> int:
    """Deactivates or reactivates endpoints, and notes who and why in the history of each that was changed.

    Parameters:
      names: The endpoints, each with its masked address.
      active: What they shall be.

    Returns how many were changed. What is active already is left alone; what a vendor or somebody else has switched off
    before is now off for staff's reason, and does not come back by itself.
    """
    change: dict[str, Any] = (
        {"active": True, "deactivated_reason": "", "deactivated_at": None}
        if active
        else {"active": False, "deactivated_reason": reason, "deactivated_at": clock.now()}
    )
    stood = {"active": False} if active else {}
    chosen = Endpoint.objects.filter(pk__in=list(names), **stood)
    ids = list(chosen.order_by().values_list("pk", flat=True))
    changed = Endpoint.objects.filter(pk__in=ids, **stood).update(**change)
    done = "Activated" if active else "Deactivated"
    note_changes(request, Endpoint, {pk: names[pk] for pk in ids}, f"{done}: {reason}")
    return changed


def switch_button(url: str, active: bool) -> SafeString:
    """The way to the page that asks why."""
    return format_html(
        '<a class="border border-base-200 dark:border-base-700 font-medium hover:text-primary-600 '
        'dark:hover:text-primary-500 inline-block px-2 py-1 rounded-default whitespace-nowrap" href="{}">{}</a>',
        url,
        "Deactivate…" if active else "Reactivate…",
    )
