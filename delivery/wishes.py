"""What a follower's preferences, legal hours for SMS and the test mode make of an alert, before it is stored.

Exits pass a mute, quiet hours and a least value, unless the follower has said "exits too"; a channel that they have
switched off is off for exits as well, and legal hours for SMS hold for everything.
"""

from __future__ import annotations

from datetime import datetime, time
from decimal import Decimal
from typing import Any

from bson import Decimal128
from django.conf import settings

from followers.choices import Channel
from followers.clock import as_utc
from followers.preferences import Hours, Level, Preferences, read, zone_of
from notifications.choices import EXITS, DeliveryState, Priority, Reason
from notifications.statements import ended

Document = dict[str, Any]


def _span(start: str, end: str) -> Hours:
    return Hours(time.fromisoformat(start), time.fromisoformat(end))


NIGHT = _span("21:00", "08:00")
"""When no SMS comes to a follower who wants none at night, where SMS_LEGAL_HOURS says nothing else."""


class Wishes:
    """The preferences' effect on one event's alerts; what is the same for everybody is worked out once."""

    def __init__(self, event: Document) -> None:
        self._is_exit = event["action"] in EXITS
        self._is_critical = self._is_exit or event["priority"] == Priority.CRITICAL
        self._trader = event["trader_external_id"]
        self._currency = event["currency"].upper()
        self._expires_at = as_utc(event["expires_at"])
        legal = settings.SMS_LEGAL_HOURS
        self._unlawful = _span(legal[1], legal[0]) if legal else None
        self._testers = settings.NOTIFYHUB_TEST_FOLLOWERS if settings.NOTIFYHUB_TEST_MODE else None

    def of(self, follower: Document) -> Preferences:
        return read(follower.get("preferences"))

    def withheld(self, preferences: Preferences, notional: Decimal128 | None) -> Reason | None:
        """Why a follower is not told of it at all, not even in the inbox; None = they are."""
        if self._trader in preferences.muted_traders and (preferences.mute_exits or not self._is_exit):
            return Reason.MUTED
        least = preferences.min_value
        if least is None or self._is_exit or notional is None or least.currency != self._currency:
            return None
        value: Decimal = notional.to_decimal()
        return Reason.BELOW_MIN_VALUE if value < least.amount else None

    def skipped(self, preferences: Preferences, follower: Document | None, channel: str) -> Reason | None:
        """Why nothing is sent to a follower (None: a community) on a channel; None = it is."""
        if self._testers is not None and (follower is None or follower["external_id"] not in self._testers):
            return Reason.TEST_MODE
        level = preferences.level(channel)
        if level is Level.OFF:
            return Reason.CHANNEL_OFF_BY_FOLLOWER
        return Reason.CRITICAL_ONLY if level is Level.CRITICAL_ONLY and not self._is_critical else None

    def held(self, preferences: Preferences, follower: Document | None, channel: str, now: datetime) -> Document | None:
        """What becomes of a delivery whose time is not now: it waits, or is skipped if its validity ends before.

        None = it may be sent now. Spans that follow on each other are waited for together.
        """
        spans = self._spans(preferences, channel) if follower is not None else []
        if not spans or follower is None:
            return None
        zone = zone_of(str(follower.get("timezone") or "UTC"))
        until, why = now, Reason.QUIET_HOURS
        for _ in range(MOST_SPANS):
            found = next(((end, reason) for span, reason in spans if (end := span.until(until, zone))), None)
            if found is None:
                break
            until, why = found
        if until == now:
            return None
        if until >= self._expires_at:
            return ended(DeliveryState.SKIPPED, why)
        return {"next_attempt_at": until, "error_code": why.value, "error_message": str(why.label)}

    def _spans(self, preferences: Preferences, channel: str) -> list[tuple[Hours, Reason]]:
        spans = []
        heeded = preferences.quiet_exits or not self._is_exit
        if heeded and preferences.quiet_hours is not None:
            spans.append((preferences.quiet_hours, Reason.QUIET_HOURS))
        if channel == Channel.SMS:
            if self._unlawful is not None:
                spans.append((self._unlawful, Reason.SMS_LEGAL_HOURS))
            elif heeded and not preferences.sms_at_night:
                spans.append((NIGHT, Reason.QUIET_HOURS))
        return spans


MOST_SPANS = 8
"""Quiet hours and nights meet at most so often before an alert's validity is over."""
