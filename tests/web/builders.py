"""In-app entries and their notifications, stored as the fan-out stores them."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from bson import Decimal128, ObjectId

from followers import clock
from followers.models import Follower
from followers.mongo import collection
from notifications.api.examples import ALERT
from notifications.models import InAppEntry, Notification
from notifications.rendering import content_of
from notifications.statements import insert_entries, insert_notifications


def entry(follower: Follower, created_at: datetime | None = None, **fields: Any) -> dict[str, Any]:
    """An entry's document, not stored yet."""
    oid = ObjectId()
    at = created_at or clock.now()
    document = {
        "_id": oid,
        "notification_id": oid,
        "follower_id": follower.pk,
        "trader_id": None,
        "instrument": "XNSE:RELIANCE",
        "order_id": "O-1",
        "executed_at": at,
        "event_key": f"E-{oid}",
        "created_at": at,
        "expires_at": at + timedelta(minutes=5),
        "read_at": None,
        "archived_at": None,
        **fields,
    }
    return {"payload": _payload(document), **document}


def _payload(document: dict[str, Any]) -> dict[str, str]:
    """What the fan-out would say of it: five shares of RELIANCE."""
    given = {name: document[name] for name in ("_id", "event_key", "executed_at", "expires_at")}
    return content_of({**ALERT, **given, "correlation_id": ""}).payload


def stored_entry(follower: Follower, created_at: datetime | None = None, **fields: Any) -> dict[str, Any]:
    document = entry(follower, created_at, **fields)
    insert_entries([document])
    return document


_UNTOLD = {"error_code": "", "sent_at": None, "delivered_at": None}


def _sizing(quantity: str, fraction: str | None) -> dict[str, Any]:
    """Of a follower with a tenth of the trader's portfolio, as the fan-out stores it."""
    given: dict[str, str | int | Decimal] = {
        "executed_qty": Decimal(quantity) * 10,
        "follower_portfolio": 250_000,
        "trader_portfolio": 2_500_000,
        "ratio": "0.1",
        "multiplier": 1,
        "suggested_qty": quantity,
    }
    sized = {name: Decimal128(Decimal(value)) for name, value in given.items()}
    unlimited = {"quantity_step": None, "min_quantity": None, "min_notional": None, "max_notional": None}
    return {**sized, **unlimited, "exit_fraction": fraction and Decimal128(fraction), "capped": False, "reason": ""}


def stored_alert(follower: Follower, created_at: datetime | None = None, **fields: Any) -> dict[str, Any]:
    """An entry with its notification: in_app sent, and one push still queued. The follower has a tenth of the trader's
    portfolio."""
    document = stored_entry(follower, created_at, **fields)
    wake_at, payload = document["expires_at"], document["payload"]
    fraction = payload.get("exit_fraction")
    insert_notifications(
        [
            {
                "_id": document["_id"],
                "kind": "trade_alert",
                "event_id": ObjectId(),
                "follower_id": follower.pk,
                "event_key": document["event_key"],
                "symbol": payload.get("symbol", ""),
                "side": payload.get("side", "BUY"),
                "action": payload.get("action", "OPEN"),
                "price": Decimal128("2945.5"),
                "currency": payload.get("currency", "INR"),
                "priority": payload.get("priority", "high"),
                "correlation_id": "",
                "executed_at": document["executed_at"],
                "created_at": document["created_at"],
                "expires_at": document["expires_at"],
                "exit_fraction": fraction and Decimal128(fraction),
                "sizing": _sizing(payload.get("suggested_qty", "0"), fraction),
                "state": "pending",
                "wake_at": wake_at,
                "deliveries": [
                    {
                        **_UNTOLD,
                        "channel": "in_app",
                        "endpoint": None,
                        "state": "sent",
                        "batch": None,
                        "next_attempt_at": None,
                    },
                    {
                        **_UNTOLD,
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
