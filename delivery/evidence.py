"""The evidence about alerts: why somebody got one, when, and with what quantity. `manage.py export_alerts` writes it.

It is read in batches of `READ` alerts, so that memory stays flat however much is asked for. Addresses are masked.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from itertools import islice
from typing import Any

from bson import ObjectId

from delivery.explanations import explain
from followers.admin_endpoints import masked_addresses
from followers.clock import as_utc
from followers.models import Follower
from followers.mongo import collection
from notifications.admin_tables import sizing_words
from notifications.choices import AckEvent, Reason
from notifications.models import Delivery, Notification, Sizing, TradeEvent
from notifications.rendering import plain

Document = dict[str, Any]

READ = 500
SIZING_FIELDS = [field.name for field in Sizing._meta.fields]


def alerts_of_follower(follower: ObjectId, since: datetime | None, until: datetime | None) -> Iterator[ObjectId]:
    """Ids, the newest first. Index: notifications_notification (follower_id, created_at)."""
    query = {"follower_id": follower, **_between("created_at", since, until)}
    for row in collection(Notification).find(query, {"_id": 1}).sort("created_at", -1):
        yield row["_id"]


def alerts_of_trader(trader: ObjectId, since: datetime | None, until: datetime | None) -> Iterator[ObjectId]:
    """Ids, trade by trade. Index: notifications_tradeevent (trader_id, instrument, executed_at)."""
    query = {"trader_id": trader, **_between("executed_at", since, until)}
    for event in collection(TradeEvent).find(query, {"_id": 1}, batch_size=READ):
        yield from alerts_of_event(event["_id"], None, None)


def alerts_of_event(event: ObjectId, since: datetime | None, until: datetime | None) -> Iterator[ObjectId]:
    """Ids. Index: notifications_notification (event_id, state)."""
    query = {"event_id": event, **_between("created_at", since, until)}
    for row in collection(Notification).find(query, {"_id": 1}, batch_size=READ):
        yield row["_id"]


def _between(field: str, since: datetime | None, until: datetime | None) -> Document:
    """From `since`, which is included, to `until`, which is not; aware UTC."""
    bounds = {**({"$gte": since} if since else {}), **({"$lt": until} if until else {})}
    return {field: bounds} if bounds else {}


def evidence(ids: Iterator[ObjectId]) -> Iterator[Document]:
    """What is known of each of these alerts, in their order, as plain JSON. One that is gone meanwhile is left out."""
    while batch := list(islice(ids, READ)):
        alerts: dict[ObjectId, Any] = Notification.objects.in_bulk(batch)
        found = alerts.values()
        events = _events({a.event_id for a in found})
        followers = _followers({a.follower_id for a in found})
        addresses = masked_addresses([d.endpoint for a in found for d in a.deliveries if d.endpoint])
        for oid in batch:
            if (alert := alerts.get(oid)) is not None:
                yield _alert(alert, events.get(alert.event_id, {}), followers.get(alert.follower_id, ""), addresses)


def _events(ids: set[Any]) -> dict[ObjectId, Document]:
    fields = {"trader_external_id": 1, "received_at": 1, "fanned_out_at": 1, "quantity": 1, "product_type": 1}
    return {e["_id"]: e for e in collection(TradeEvent).find({"_id": {"$in": list(ids)}}, fields)}


def _followers(ids: set[Any]) -> dict[ObjectId, str]:
    found = collection(Follower).find({"_id": {"$in": list(ids)}}, {"external_id": 1})
    return {f["_id"]: f["external_id"] for f in found}


def _alert(alert: Any, event: Document, follower: str, addresses: dict[Any, str]) -> Document:
    return {
        "notification": str(alert.pk),
        "event": alert.event_key,
        "trader": event.get("trader_external_id", ""),
        "follower": follower,
        "kind": alert.kind,
        "symbol": alert.symbol,
        "instrument": alert.instrument,
        "side": alert.side,
        "action": alert.action,
        "price": plain(alert.price),
        "currency": alert.currency,
        "priority": alert.priority,
        "correlation_id": alert.correlation_id,
        "executed_at": _time(alert.executed_at),
        "received_at": _time(event.get("received_at")),
        "fanned_out_at": _time(event.get("fanned_out_at")),
        "created_at": _time(alert.created_at),
        "expires_at": _time(alert.expires_at),
        "state": alert.state,
        "superseded_by": alert.superseded_by,
        "sizing": _sizing(alert.sizing),
        "explanation": " ".join(sizing_words(alert)),
        "deliveries": [_delivery(d, addresses) for d in alert.deliveries],
    }


def _sizing(sizing: Sizing | None) -> Document | None:
    """Numbers as text: exact, and the same in each format."""
    if sizing is None:
        return None
    values = {name: getattr(sizing, name) for name in SIZING_FIELDS}
    return {name: plain(value) if isinstance(value, Decimal) else value for name, value in values.items()}


def _delivery(delivery: Delivery, addresses: dict[Any, str]) -> Document:
    code = delivery.error_code
    return {
        "channel": delivery.channel,
        "address": addresses.get(delivery.endpoint, "erased") if delivery.endpoint else "",
        "state": delivery.state,
        "attempts": delivery.attempts,
        "sent_at": _time(delivery.sent_at),
        "delivered_at": _time(delivery.delivered_at),
        **{f"ack_{event}_at": _time(getattr(delivery.acks, event, None)) for event in AckEvent.values},
        "next_attempt_at": _time(delivery.next_attempt_at),
        "provider_message_id": delivery.provider_message_id,
        "error_code": code,
        "error_message": delivery.error_message,
        "explanation": _explained(delivery.channel, code),
        "attempt_log": [
            {
                "at": _time(attempt.at),
                "outcome": attempt.outcome,
                "code": attempt.code,
                "message": attempt.message,
                "latency_ms": attempt.latency_ms,
            }
            for attempt in delivery.attempt_log
        ],
    }


def _explained(channel: str, code: str) -> str:
    if not code:
        return ""
    return Reason(code).label if code in Reason.values else explain(channel, code).what


def _time(at: datetime | None) -> str | None:
    return None if at is None else as_utc(at).isoformat(timespec="milliseconds").replace("+00:00", "Z")
