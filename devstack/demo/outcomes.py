"""What became of the session's trades, read from MongoDB by small, indexed queries. Needs Django set up.

A trade's alerts are summed up by the server, whenever the (index-covered) counts of its notifications' states have
changed. Once nothing more can happen to it, it is added to the totals and forgotten.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from bson import ObjectId

from devstack.demo.percentiles import FACTOR
from followers.clock import as_utc
from followers.mongo import collection
from notifications.choices import DeliveryState, FanOutState, NotificationState
from notifications.models import Notification, TradeEvent

Document = dict[str, Any]

EVENT_FIELDS = {
    "trader_external_id": 1, "executed_at": 1, "received_at": 1, "fanned_out_at": 1, "state": 1, "symbol": 1, "side": 1,
    "action": 1, "quantity": 1, "price": 1, "currency": 1, "strike": 1, "right": 1, "product_type": 1,
}  # fmt: skip
OVERLAP = timedelta(seconds=5)
"""Events may be stored a little later than their time of reception says."""

EVENTS_READ = 1_000  # At once, the oldest first.
WINDOW = timedelta(seconds=60)
"""Latencies are those of the trades received in so long a time."""

STALE_AFTER = timedelta(seconds=5)
"""A trade with retries is summed up again after so long even if no notification's state has changed."""

FORGOTTEN_AFTER = timedelta(minutes=10)
"""A trade with alerts that wait longer (an exit may, for a day) is counted as it is then."""

RETRYING = "retrying"
"""Shown in place of `queued` where an attempt was made and another waits."""

TROUBLES = [DeliveryState.QUEUED.value, DeliveryState.FAILED.value, DeliveryState.UNKNOWN.value]
"""The states whose error code tells of a vendor's answer; that of the others is a reason of ours."""

REACHED = (NotificationState.DELIVERED, NotificationState.PARTIAL)


@dataclass(slots=True)
class Sums:
    """Alerts, summed up."""

    states: Counter[tuple[str, str]] = field(default_factory=Counter)  # (channel, delivery state or RETRYING)
    skipped: Counter[str] = field(default_factory=Counter)  # Followers without an alert, by reason.
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)  # (channel, code) of what is not sent.

    def add(self, other: Sums) -> None:
        self.states.update(other.states)
        self.skipped.update(other.skipped)
        self.errors.update(other.errors)


@dataclass(slots=True)
class TradeFigures:
    """One trade and its alerts."""

    event: Document
    notifications: Counter[str] = field(default_factory=Counter)  # By state.
    sums: Sums = field(default_factory=Sums)
    latencies: dict[str, Counter[int]] = field(default_factory=dict)  # Channel → bucket → deliveries.
    first_sent_at: datetime | None = None  # Accepted by a vendor.
    summed_at: datetime | None = None

    @property
    def reached(self) -> int:
        """Followers with an alert on all or some of their channels."""
        return sum(self.notifications[state] for state in REACHED)

    @property
    def skipped(self) -> int:
        return self.sums.skipped.total()

    @property
    def is_settled(self) -> bool:
        """Whether its fan-out is over and nothing waits."""
        over = self.event["state"] != FanOutState.PENDING
        return over and not self.notifications[NotificationState.PENDING] and self.summed_at is not None


class Outcomes:
    """The trades received since the session began."""

    def __init__(self, since: datetime) -> None:
        self.received = 0
        self.recent: deque[TradeFigures] = deque(maxlen=40)
        """The newest trades, the newest last."""
        self.first_sent_at: datetime | None = None
        self._since = since
        self._open: dict[ObjectId, TradeFigures] = {}
        self._seen: dict[ObjectId, datetime] = {}
        self._settled = Sums()
        self._window: deque[TradeFigures] = deque()

    def totals(self) -> Sums:
        sums = Sums()
        sums.add(self._settled)
        for trade in self._open.values():
            sums.add(trade.sums)
        return sums

    def latencies(self) -> dict[str, Counter[int]]:
        """Channel → bucket → deliveries, from the trade to the vendor's acceptance, of the last minute's trades."""
        merged: dict[str, Counter[int]] = {}
        for trade in self._window:
            for channel, buckets in trade.latencies.items():
                merged.setdefault(channel, Counter()).update(buckets)
        return merged

    def refresh(self, now: datetime) -> None:
        """Bring everything up to date."""
        self._read_events(now)
        self._read_fan_outs()
        changed = self._changed(now)
        if changed:
            self._sum_up(changed, now)
        self._settle(now)

    def _read_events(self, now: datetime) -> None:
        """Index: notifications_tradeevent (received_at)."""
        query = {"received_at": {"$gte": self._since}}
        found = collection(TradeEvent).find(query, EVENT_FIELDS).sort("received_at", 1).limit(EVENTS_READ)
        for event in found:
            if event["_id"] not in self._seen:
                self._seen[event["_id"]] = as_utc(event["received_at"])
                self.received += 1
                trade = TradeFigures(event)
                self._open[event["_id"]] = trade
                self.recent.append(trade)
                self._window.append(trade)
            self._since = max(self._since, as_utc(event["received_at"]) - OVERLAP)
        self._seen = {_id: at for _id, at in self._seen.items() if at >= self._since}
        while self._window and as_utc(self._window[0].event["received_at"]) < now - WINDOW:
            self._window.popleft()

    def _read_fan_outs(self) -> None:
        """Index: notifications_tradeevent (_id)."""
        pending = [_id for _id, trade in self._open.items() if trade.event["state"] == FanOutState.PENDING]
        for event in collection(TradeEvent).find({"_id": {"$in": pending}}, EVENT_FIELDS) if pending else ():
            self._open[event["_id"]].event = event

    def _changed(self, now: datetime) -> list[TradeFigures]:
        """The trades to sum up. Index: notifications_notification (event_id, state), which covers the counts."""
        if not self._open:
            return []
        counts: dict[ObjectId, Counter[str]] = {_id: Counter() for _id in self._open}
        for row in collection(Notification).aggregate(
            [
                {"$match": {"event_id": {"$in": list(self._open)}}},
                {"$group": {"_id": {"event": "$event_id", "state": "$state"}, "count": {"$sum": 1}}},
            ],
            hint={"event_id": 1, "state": 1, "_id": -1},
        ):
            counts[row["_id"]["event"]][row["_id"]["state"]] = row["count"]
        changed = []
        for _id, trade in self._open.items():
            is_stale = trade.summed_at is None or trade.summed_at < now - STALE_AFTER
            if counts[_id] != trade.notifications or is_stale:
                trade.notifications = counts[_id]
                changed.append(trade)
        return changed

    def _sum_up(self, trades: Iterable[TradeFigures], now: datetime) -> None:
        """Index: notifications_notification (event_id, state)."""
        summed = {trade.event["_id"]: trade for trade in trades}
        for trade in summed.values():
            trade.sums, trade.latencies, trade.summed_at = Sums(), {}, now
        for row in collection(Notification).aggregate(summing_pipeline(list(summed))):
            key, count = row["_id"], row["count"]
            trade, channel = summed[key["event"]], key.get("channel")
            if channel is None:
                trade.sums.skipped[key.get("reason") or NotificationState.SKIPPED.value] += count
                continue
            trade.sums.states[channel, key["state"]] += count
            if key.get("error"):
                trade.sums.errors[channel, key["error"]] += count
            if key.get("bucket") is not None:
                trade.latencies.setdefault(channel, Counter())[int(key["bucket"])] += count
                if row["first"] is not None:
                    self._note_first(as_utc(row["first"]))

    def _note_first(self, sent_at: datetime) -> None:
        if self.first_sent_at is None or sent_at < self.first_sent_at:
            self.first_sent_at = sent_at

    def _settle(self, now: datetime) -> None:
        for _id, trade in list(self._open.items()):
            if trade.is_settled or now - as_utc(trade.event["received_at"]) > FORGOTTEN_AFTER:
                self._settled.add(trade.sums)
                del self._open[_id]


def summing_pipeline(events: list[ObjectId]) -> list[Document]:
    """Counts a few trades' deliveries by event, channel, state, error code and bucket of latency.

    A follower who was skipped has a notification without deliveries; it is counted by its reason.
    """
    is_queued = {"$eq": ["$deliveries.state", DeliveryState.QUEUED.value]}
    was_tried = {"$ne": ["$deliveries.error_code", ""]}
    is_trouble = {"$in": ["$deliveries.state", TROUBLES]}
    taken = {"$subtract": ["$deliveries.sent_at", "$executed_at"]}
    bucket = {"$floor": {"$multiply": [FACTOR, {"$ln": {"$max": [1, taken]}}]}}
    return [
        {"$match": {"event_id": {"$in": events}}},
        {
            "$project": {
                "event_id": 1, "executed_at": 1, "sizing.reason": 1, "deliveries.channel": 1, "deliveries.state": 1,
                "deliveries.sent_at": 1, "deliveries.error_code": 1,
            }
        },
        {"$unwind": {"path": "$deliveries", "preserveNullAndEmptyArrays": True}},
        {
            "$group": {
                "_id": {
                    "event": "$event_id",
                    "channel": "$deliveries.channel",
                    "state": {"$cond": [{"$and": [is_queued, was_tried]}, RETRYING, "$deliveries.state"]},
                    "error": {"$cond": [is_trouble, "$deliveries.error_code", ""]},
                    "reason": {"$cond": [{"$eq": [{"$type": "$deliveries"}, "missing"]}, "$sizing.reason", None]},
                    "bucket": {"$cond": [{"$eq": [{"$type": "$deliveries.sent_at"}, "date"]}, bucket, None]},
                },
                "count": {"$sum": 1},
                "first": {"$min": "$deliveries.sent_at"},
            }
        },
    ]  # fmt: skip
