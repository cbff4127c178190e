"""The admin of circuit breakers: where each stands and why, its history, and the switch."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import redis
import structlog
from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString

from delivery.breakers import force_breaker, guard_name
from delivery.choices import BreakerStatus
from delivery.guards.breaker import State
from delivery.guards.shared import live_states
from delivery.models import Breaker, BreakerChange
from followers import clock
from followers.admin_base import EMPTY, QuickModelAdmin, badge, moment, moment_column, table
from followers.choices import Channel
from followers.mongo import collection

logger = structlog.get_logger(__name__)

CHANGES_SHOWN = 50
_COLOURS = {BreakerStatus.CLOSED: "green", BreakerStatus.HALF_OPEN: "orange", BreakerStatus.OPEN: "red"}


def status_badge(status: str) -> SafeString:
    return badge(BreakerStatus(status).label, _COLOURS[BreakerStatus(status)])


class ForceForm(forms.ModelForm):
    """What staff decide, and why."""

    class Meta:
        model = Breaker
        fields = ("forced", "note")

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if "forced" in self.changed_data and not cleaned.get("note", "").strip():
            self.add_error("note", "Say why: whoever comes next will want to know.")
        return cleaned


@admin.register(Breaker)
class BreakerAdmin(QuickModelAdmin):
    """The rows are made by the workers, one per channel and account; staff only force them."""

    form = ForceForm
    list_display = ("channel_name", "account", "status_now", "why", "since", "probe", "forced_to")
    ordering = ("pk",)
    fieldsets = (
        (None, {"fields": ("channel_name", "account", "status_now", "why", "since", "probe")}),
        (
            "Switch",
            {
                "fields": ("forced", "note", "forced_by", "forced_moment"),
                "description": "Open: nothing is sent on this channel; its alerts wait, and expire when their time is "
                "over. Closed: everything is sent, whatever the vendor does. Workers follow within seconds.",
            },
        ),
        ("History", {"fields": ("history",)}),
    )
    readonly_fields = ("channel_name", "account", "status_now", "why", "since", "probe", "forced_by", "forced_moment",
                       "history")  # fmt: skip

    forced_moment = moment_column("forced_at", "Forced at")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Breaker, form: Any, change: bool) -> None:
        """By a statement of its own: the row's other fields belong to the workers."""
        if "forced" in form.changed_data:
            wanted = BreakerStatus(obj.forced) if obj.forced else None
            force_breaker(obj.pk, wanted, request.user.get_username(), obj.note, clock.now())

    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> Any:
        """Says in the history what was forced, and why."""
        if "forced" not in form.changed_data:
            return super().construct_change_message(request, form, formsets, add)
        forced, note = form.cleaned_data["forced"], form.cleaned_data["note"]
        done = f"Forced {BreakerStatus(forced).label.lower()}" if forced else "Left to itself again"
        return f"{done}: {note}"

    @admin.display(description="Channel")
    def channel_name(self, breaker: Breaker) -> str:
        return str(Channel(breaker.channel).label)

    @admin.display(description="State")
    def status_now(self, breaker: Breaker) -> SafeString:
        return status_badge(breaker.forced or live_state(breaker).status)

    @admin.display(description="Reason")
    def why(self, breaker: Breaker) -> str:
        if breaker.forced:
            return f"Forced by {breaker.forced_by}: {breaker.note}"
        return live_state(breaker).reason or EMPTY

    @admin.display(description="Since")
    def since(self, breaker: Breaker) -> str:
        return moment(breaker.forced_at) if breaker.forced else _moment(live_state(breaker).since)

    @admin.display(description="Next probe")
    def probe(self, breaker: Breaker) -> str:
        state = live_state(breaker)
        waits = state.status is BreakerStatus.OPEN and not breaker.forced
        return _moment(state.probe_at) if waits else EMPTY

    @admin.display(description="Forced")
    def forced_to(self, breaker: Breaker) -> SafeString | str:
        return status_badge(breaker.forced) if breaker.forced else EMPTY

    @admin.display(description=f"The last {CHANGES_SHOWN} changes")
    def history(self, breaker: Breaker) -> SafeString | str:
        """Index: delivery_breakerchange (channel, at)."""
        query = {"channel": breaker.channel, "account": breaker.account}
        changes = list(collection(BreakerChange).find(query).sort([("channel", 1), ("at", -1)]).limit(CHANGES_SHOWN))
        if not changes:
            return "It has never changed."
        return table(
            ("At", "From", "To", "Why", "By"),
            (
                (
                    moment(clock.as_utc(change["at"])),
                    status_badge(change["status_before"]),
                    status_badge(change["status_after"]),
                    change["reason"],
                    change["by"],
                )
                for change in changes
            ),
        )


def live_state(breaker: Breaker) -> State:
    """The state as the workers share it, read once for a row; its last known one while Redis is away."""
    found: State | None = getattr(breaker, "_live_state", None)
    if found is None:
        found = breaker._live_state = _read(breaker)  # type: ignore[attr-defined]
    return found


def _read(breaker: Breaker) -> State:
    name = guard_name({"channel": breaker.channel, "account": breaker.account})
    try:
        return live_states([name])[name]
    except redis.RedisError as error:
        logger.warning("Redis is away; the breaker's last known state is shown.", error=str(error)[:200])
        probe_at = breaker.next_probe_at.timestamp() if breaker.next_probe_at else 0.0
        since = breaker.changed_at.timestamp() if breaker.changed_at else 0.0
        return State(BreakerStatus(breaker.status), since, breaker.reason, probe_at=probe_at)


def _moment(epoch: float) -> str:
    return moment(datetime.fromtimestamp(epoch, UTC)) if epoch else EMPTY
