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
from followers.mongo import collection, durably
from notifications.choices import AckEvent
from notifications.models import InAppEntry, Notification, TradeEvent, Update
from notifications.rendering import plain
from notifications.statements import event, event_id, notifications_of
from notifications.update_events import KEY_PREFIX, as_event, is_update, update_id

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
    """The paths that the id of an event, an update or a notification stands for, or a correlation id.

    Raises NothingFoundError. Index: all by _id; tradeevent and update (correlation_id).
    """
    found = events_called(identifier)
    if found:
        return [event_path(one) for one in found]
    alert = alert_called(identifier)
    if alert is None:
        raise NothingFoundError(f"No event, update, alert or correlation id {identifier!r} is stored.")
    return [alert_path(alert, event(alert["event_id"]))]


def events_called(identifier: str) -> list[Document]:
    """The trade or the general update of this id, else those of this correlation id, trades first.

    Index: both by _id and (correlation_id).
    """
    found = event(event_id(identifier)) or event(update_id(identifier.removeprefix(KEY_PREFIX)))
    if found is not None:
        return [found]
    of_trades, of_updates = (_correlated(model, identifier) for model in (TradeEvent, Update))
    return [*of_trades, *map(as_event, of_updates)]


def alert_called(identifier: str) -> Document | None:
    """The alert of this id. Index: notification _id."""
    try:
        pk = ObjectId(identifier)
    except InvalidId:
        return None
    return durably(lambda: collection(Notification).find_one({"_id": pk}))


def _correlated(model: type[TradeEvent | Update], correlation_id: str) -> list[Document]:
    found = collection(model).find({"correlation_id": correlation_id})
    return durably(lambda: list(found.clone().sort("received_at", 1).limit(CORRELATED_MAX)))


CORRELATED_MAX = 100


def event_path(event: Document) -> Path:
    """A trade or a general update: from its beginning to its last delivery, and what became of its alerts."""
    outcomes: Counter[str] = Counter()
    for row in notifications_of(event["_id"], {"state": 1, "sizing.reason": 1, "deliveries": 1}):
        if not row["deliveries"]:
            outcomes[f"alert skipped ({(row.get('sizing') or {}).get('reason', '')})"] += 1
        for delivery in row["deliveries"]:
            outcomes[_outcome(delivery)] += 1
    facts = {
        **_what(event),
        "state": _fan_out_state(event),
        "priority": event["priority"],
        "correlation id": event["correlation_id"],
        "expires": f"{event['expires_at']:%Y-%m-%d %H:%M:%S} UTC",
    }
    return Path(f"Event {event['external_id']}", facts, event_steps(event), dict(sorted(outcomes.items())))


def event_steps(event: Document, looked_at: int | None = None) -> list[Step]:
    """What happened to a trade, in the order of time. Index: notification (event_id, state, _id).

    With `looked_at` no more than so many of its alerts are read, and the steps say so.
    """
    outside = {"$filter": {"input": "$deliveries", "as": "d", "cond": {"$ne": ["$$d.channel", Channel.IN_APP.value]}}}
    sent_at = {"$let": {"vars": {"outside": outside}, "in": "$$outside.sent_at"}}
    group = {"_id": None, "first": {"$min": {"$min": sent_at}}, "last": {"$max": {"$max": sent_at}}}
    limit: list[Document] = [{"$limit": looked_at}] if looked_at is not None else []
    pipeline = [{"$match": {"event_id": event["_id"]}}, *limit, {"$group": group}]
    sent = next(iter(collection(Notification).aggregate(pipeline)), {"first": None, "last": None})
    is_sample = looked_at is not None and (event["alerts_written"] or 0) > looked_at
    of = f", of {looked_at:,} alerts that were looked at" if is_sample else ""
    later = [
        (event["fanned_out_at"], f"fanned out, {event['shards']} shard(s)"),
        (sent["first"], f"first vendor accepted{of}"),
        (sent["last"], f"last vendor accepted{of}"),
    ]
    steps = [*_beginning(event), *(Step(at, what) for at, what in later if at is not None)]
    return sorted(steps, key=lambda step: step.at)


def with_gaps(steps: Iterable[Step]) -> Iterator[tuple[Step, str | None]]:
    """Each step with the time since the one before, such as `+12 ms`; None for the first."""
    previous: Step | None = None
    for step in steps:
        yield step, None if previous is None else f"+{(step.at - previous.at).total_seconds() * 1_000:,.0f} ms"
        previous = step


def _beginning(event: Document) -> list[Step]:
    if is_update(event):
        return [Step(event["received_at"], "published and stored")]
    return [
        Step(event["executed_at"], "executed by the trader"),
        Step(event["received_at"], "taken in from Kafka and stored"),
    ]


def _what(event: Document) -> dict[str, str]:
    if is_update(event):
        audience = event["trader_external_id"] or f"{len(event['follower_ids']):,} named followers"
        return {"audience": audience, "update": event["title"], "by": event["published_by"]}
    what = f"{event['action'] or event['side']} {plain(event['quantity'])} {event['symbol']}"
    return {"trader": event["trader_external_id"], "trade": f"{what} @ {plain(event['price'])}"}


def alert_path(alert: Document, event: Document | None) -> Path:
    """One alert: each attempt on each endpoint, with the vendor's answers."""
    steps = [Step(alert["executed_at"], "executed by the trader")] if event is None else _beginning(event)
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
        "quantity": f"{plain(sizing['suggested_qty'])} {sizing['reason']}".strip() if sizing else "none",
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
    acks = delivery.get("acks") or {}
    steps += [Step(acks[event], f"{name}: {event}, says the app") for event in AckEvent.values if acks.get(event)]
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
