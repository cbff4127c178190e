"""The path of a trade or of one alert, step by step, with the time between the steps: what `manage.py trace` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson import ObjectId
from bson.errors import InvalidId

from followers.choices import Channel
from followers.models import Endpoint, Follower
from followers.mongo import collection
from notifications.models import InAppEntry, Notification, TradeEvent
from notifications.rendering import plain
from notifications.statements import event_id, notifications_of

Document = dict[str, Any]


class NothingFoundError(LookupError):
    """No event, alert or correlation id of that name is stored."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened, at a time (naive UTC, as stored)."""

    at: datetime
    what: str


@dataclass(frozen=True, slots=True)
class Path:
    """What is known of one event or alert."""

    title: str
    facts: dict[str, str]
    steps: list[Step]  # In the order of time.
    outcomes: dict[str, int]  # "fcm sent" → how many; of an event only.


def paths(identifier: str) -> list[Path]:
    """The paths that an event id, a correlation id or a notification id stands for.

    Raises NothingFoundError. Index: tradeevent (external_id), (correlation_id); notification by _id.
    """
    events = collection(TradeEvent)
    found = events.find_one({"_id": event_id(identifier)})
    if found is not None:
        return [event_path(found)]
    alert = collection(Notification).find_one({"_id": _object_id(identifier)}) if _object_id(identifier) else None
    if alert is not None:
        event = events.find_one({"_id": alert["event_id"]})
        return [alert_path(alert, event)]
    correlated = list(events.find({"correlation_id": identifier}).sort("received_at", 1).limit(100))
    if not correlated:
        raise NothingFoundError(f"No event, alert or correlation id {identifier!r} is stored.")
    return [event_path(event) for event in correlated]


def event_path(event: Document) -> Path:
    """A trade: from its execution to its last delivery, and what became of its alerts."""
    outcomes: Counter[str] = Counter()
    for row in notifications_of(event["_id"], {"state": 1, "sizing.reason": 1, "deliveries": 1}):
        if not row["deliveries"]:
            outcomes[f"alert skipped ({(row['sizing'] or {}).get('reason', '')})"] += 1
        for delivery in row["deliveries"]:
            outcomes[_outcome(delivery)] += 1
    what = f"{event['action'] or event['side']} {plain(event['quantity'])} {event['symbol']}"
    facts = {
        "trader": event["trader_external_id"],
        "trade": f"{what} @ {plain(event['price'])}",
        "state": _fan_out_state(event),
        "priority": event["priority"],
        "correlation id": event["correlation_id"],
        "expires": f"{event['expires_at']:%Y-%m-%d %H:%M:%S} UTC",
    }
    return Path(f"Event {event['external_id']}", facts, event_steps(event), dict(sorted(outcomes.items())))


def event_steps(event: Document) -> list[Step]:
    """What happened to a trade, in the order of time. Index: notification (event_id, state)."""
    outside = {"$filter": {"input": "$deliveries", "as": "d", "cond": {"$ne": ["$$d.channel", Channel.IN_APP.value]}}}
    sent_at = {"$let": {"vars": {"outside": outside}, "in": "$$outside.sent_at"}}
    group = {"_id": None, "first": {"$min": {"$min": sent_at}}, "last": {"$max": {"$max": sent_at}}}
    found = collection(Notification).aggregate([{"$match": {"event_id": event["_id"]}}, {"$group": group}])
    sent = next(iter(found), {"first": None, "last": None})
    steps = [
        (event["executed_at"], "executed by the trader"),
        (event["received_at"], "taken in from Kafka and stored"),
        (event["fanned_out_at"], f"fanned out, {event['shards']} shard(s)"),
        (sent["first"], "first vendor accepted"),
        (sent["last"], "last vendor accepted"),
    ]
    return sorted((Step(at, what) for at, what in steps if at is not None), key=lambda step: step.at)


def with_gaps(steps: Iterable[Step]) -> Iterator[tuple[Step, str | None]]:
    """Each step with the time since the one before, such as `+12 ms`; None for the first."""
    previous: Step | None = None
    for step in steps:
        yield step, None if previous is None else f"+{(step.at - previous.at).total_seconds() * 1_000:,.0f} ms"
        previous = step


def alert_path(alert: Document, event: Document | None) -> Path:
    """One alert: each attempt on each endpoint, with the vendor's answers."""
    steps = [Step(alert["executed_at"], "executed by the trader")]
    if event is not None:
        steps.append(Step(event["received_at"], "taken in from Kafka and stored"))
    steps.append(Step(alert["created_at"], "alert stored"))
    entry = collection(InAppEntry).find_one({"_id": alert["_id"]}, {"created_at": 1, "read_at": 1})
    if entry is not None and entry["read_at"]:
        steps.append(Step(entry["read_at"], "read in the inbox"))
    for delivery in alert["deliveries"]:
        steps += _delivery_steps(delivery)
    follower = collection(Follower).find_one({"_id": alert["follower_id"]}, {"external_id": 1})
    sizing = alert["sizing"]
    facts = {
        "follower": follower["external_id"] if follower else "the trader's community channel",
        "event": alert["event_key"],
        "state": alert["state"] + (f", superseded by {alert['superseded_by']}" if alert["superseded_by"] else ""),
        "quantity": f"{plain(sizing['suggested_qty'])} {sizing['reason']}".strip()
        if sizing
        else "none (community post)",
        "correlation id": alert["correlation_id"],
        "wakes": f"{alert['wake_at']:%H:%M:%S} UTC" if alert["wake_at"] else "not any more",
    }
    outcomes = dict(Counter(_outcome(d) for d in alert["deliveries"]))
    return Path(f"Alert {alert['_id']}", facts, sorted(steps, key=lambda s: s.at), outcomes)


def _delivery_steps(delivery: Document) -> list[Step]:
    name = delivery["channel"]
    if name == Channel.IN_APP:
        steps = [Step(delivery["sent_at"], "shown in the inbox")] if delivery["sent_at"] else []
    else:
        endpoint = Endpoint.objects.filter(pk=delivery["endpoint"]).first()
        name = str(endpoint) if endpoint else f"{name}, address erased"
        steps = [
            Step(a["at"], f"{name}: {a['outcome']} {a['code']} {a['message']}".rstrip() + _latency(a["latency_ms"]))
            for a in delivery["attempt_log"]
        ]
    if delivery["delivered_at"]:
        steps.append(Step(delivery["delivered_at"], f"{name}: confirmed"))
    return steps


def _latency(milliseconds: float | None) -> str:
    return "" if milliseconds is None else f" ({milliseconds:.0f} ms)"


def _outcome(delivery: Document) -> str:
    state = delivery["state"]
    shown = "in progress" if state == "queued" and delivery["batch"] else state
    reason = f" ({delivery['error_code']})" if delivery["error_code"] else ""
    return f"{delivery['channel']} {shown}{reason}"


def _fan_out_state(event: Document) -> str:
    return (
        event["state"]
        if event["fanned_out_at"]
        else f"{event['state']}, {len(event['shards_done'])} of {event['shards']} shards"
    )


def _object_id(text: str) -> ObjectId | None:
    try:
        return ObjectId(text)
    except InvalidId:
        return None
