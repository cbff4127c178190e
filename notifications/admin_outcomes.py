"""What became of a trade's alerts: by state from an index alone, by channel from a bounded sample of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from bson import ObjectId
from django.utils.html import format_html
from django.utils.safestring import SafeString

from followers.admin_base import EMPTY, badge, table
from followers.choices import Channel
from followers.mongo import collection, durably
from notifications.admin_tables import labelled, outcomes_of
from notifications.choices import DeliveryState
from notifications.models import Notification, TradeEvent
from notifications.statements import EVENT_INDEX

READ_PER_STATE = 2_000
"""Alerts of each state whose deliveries are read; of a larger state it is a sample. All seven states take 14,000."""


@dataclass(slots=True)
class Outcomes:
    """Deliveries of one trade by (channel, delivery state); `is_estimate` says that some were projected."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    is_estimate: bool = False


def outcomes_by_channel(event: TradeEvent) -> Outcomes:
    """How the deliveries of a trade's alerts ended, channel by channel.

    Rare states, which are those that matter, are counted to the last; of a state with more than READ_PER_STATE alerts
    so many are read, and the rest is taken to be like them. Index: notifications_notification (event_id, state).
    """
    found = Outcomes()
    for state, total in outcomes_of(event).items():
        read = min(total, READ_PER_STATE)
        found.is_estimate |= read < total
        for row in _deliveries(event.pk, state):
            found.counts[row["_id"]["channel"], row["_id"]["state"]] += round(row["count"] * total / read)
    return found


def _deliveries(event_id: ObjectId, state: str) -> list[dict[str, Any]]:
    pipeline: list[dict[str, Any]] = [
        {"$match": {"event_id": event_id, "state": state}},
        {"$limit": READ_PER_STATE},
        {"$project": {"_id": 0, "deliveries.channel": 1, "deliveries.state": 1}},
        {"$unwind": "$deliveries"},
        {"$group": {"_id": {"channel": "$deliveries.channel", "state": "$deliveries.state"}, "count": {"$sum": 1}}},
    ]
    return durably(lambda: list(collection(Notification).aggregate(pipeline, hint=EVENT_INDEX)))


def channel_table(event: TradeEvent) -> SafeString:
    found = outcomes_by_channel(event)
    states = [s for s in DeliveryState if any(found.counts[c, s] for c in Channel)]
    shown = table(
        ("Channel", *(labelled(DeliveryState, s) for s in states)),
        (
            (
                channel.label,
                *(_figure(found, channel, s) for s in states),
            )
            for channel in Channel
            if any(found.counts[channel, s] for s in states)
        ),
    )
    if not found.is_estimate:
        return shown
    words = f"Projected from {READ_PER_STATE:,} alerts of each state; states with fewer are exact."
    return format_html('<div class="flex flex-col gap-2 w-full">{}<span>{}</span></div>', shown, words)


def _figure(found: Outcomes, channel: str, state: str) -> str:
    count = found.counts[channel, state]
    return f"{'about ' if found.is_estimate else ''}{count:,}" if count else EMPTY


def progress_line(event: TradeEvent) -> SafeString:
    """How many shards are done, and how many alerts they have written."""
    done, written = len(event.shards_done), event.alerts_written
    shards = badge(f"{done} of {event.shards} shards done", "green" if done >= event.shards else "blue")
    alerts = "" if written is None else f"{written:,} alert{'' if written == 1 else 's'} written"
    return format_html('<div class="flex flex-wrap gap-3 items-center">{}<span>{}</span></div>', shards, alerts)
