"""In-app entries and their notifications, stored as the fan-out stores them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from bson import ObjectId

from followers import clock
from followers.models import Follower
from followers.mongo import collection
from notifications.models import InAppEntry, Notification
from notifications.statements import insert_entries, insert_notifications


def entry(follower: Follower, created_at: datetime | None = None, **fields: Any) -> dict[str, Any]:
    """An entry's document, not stored yet."""
    oid = ObjectId()
    at = created_at or clock.now()
    return {
        "_id": oid,
        "notification_id": oid,
        "follower_id": follower.pk,
        "trader_id": None,
        "instrument": "XNSE:RELIANCE",
        "order_id": "O-1",
        "executed_at": at,
        "event_key": f"E-{oid}",
        "payload": {"title": "Buy 5 RELIANCE @ 2945.5 INR", "symbol": "RELIANCE", "side": "BUY", "suggested_qty": "5"},
        "created_at": at,
        "expires_at": at + timedelta(minutes=5),
        "read_at": None,
        "archived_at": None,
        **fields,
    }


def stored_entry(follower: Follower, created_at: datetime | None = None, **fields: Any) -> dict[str, Any]:
    document = entry(follower, created_at, **fields)
    insert_entries([document])
    return document


def stored_alert(follower: Follower, created_at: datetime | None = None, **fields: Any) -> dict[str, Any]:
    """An entry with its notification: in_app sent, and one push still queued."""
    document = stored_entry(follower, created_at, **fields)
    wake_at = document["expires_at"]
    insert_notifications(
        [
            {
                "_id": document["_id"],
                "kind": "trade_alert",
                "event_id": ObjectId(),
                "follower_id": follower.pk,
                "event_key": document["event_key"],
                "state": "pending",
                "wake_at": wake_at,
                "deliveries": [
                    {"channel": "in_app", "endpoint": None, "state": "sent", "batch": None, "next_attempt_at": None},
                    {
                        "channel": "fcm",
                        "endpoint": ObjectId(),
                        "state": "queued",
                        "batch": None,
                        "next_attempt_at": wake_at,
                        "attempt_log": [],
                    },
                ],
            }
        ]
    )
    return document


def sent_push(alert: ObjectId, channel: str) -> ObjectId:
    """Adds a delivery that its vendor has accepted to an alert. Returns its device."""
    device = ObjectId()
    delivery = {"channel": channel, "endpoint": device, "state": "sent", "batch": None, "attempt_log": []}
    collection(Notification).update_one({"_id": alert}, {"$push": {"deliveries": delivery}})
    return device


def notification(oid: ObjectId) -> dict[str, Any]:
    found = collection(Notification).find_one({"_id": oid})
    assert found is not None
    return found


def inbox_entry(oid: ObjectId) -> dict[str, Any]:
    found = collection(InAppEntry).find_one({"_id": oid})
    assert found is not None
    return found
