"""The path of a trade and of an alert on their admin pages: the same steps as `manage.py trace` prints."""

from __future__ import annotations

from collections.abc import Sequence

from django.utils.safestring import SafeString

from delivery.trace import Step, alert_path, event_steps, with_gaps
from followers.admin_base import EMPTY, moment, table
from followers.clock import as_utc
from followers.mongo import collection
from notifications.models import Notification, TradeEvent
from notifications.statements import event


def timeline(steps: Sequence[Step]) -> SafeString:
    """When each step was, how long after the one before, and what it was."""
    rows = ((moment(as_utc(step.at)), EMPTY if gap is None else gap, step.what) for step, gap in with_gaps(steps))
    return table(("When", "After", "What"), rows)


ALERTS_READ = 2_000
"""Alerts of a trade that its page looks at for the times of the first and the last one; `manage.py trace` reads all."""


def event_timeline(trade: TradeEvent) -> SafeString:
    stored = event(trade.pk)
    return timeline(event_steps(stored, ALERTS_READ) if stored else ())


def alert_timeline(alert: Notification) -> SafeString:
    stored = collection(Notification).find_one({"_id": alert.pk})
    return timeline(alert_path(stored, event(stored["event_id"])).steps if stored else ())
