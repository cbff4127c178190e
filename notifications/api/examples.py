"""What the schema shows as examples of followers' calls."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from bson import Decimal128, ObjectId

from followers.api.schema import ALERT_ID
from notifications.choices import Action, Kind, Priority, Side
from notifications.rendering import content_of

EXECUTED_AT = datetime(2026, 11, 21, 9, 15, 0, 123_000, UTC)
ALERT: dict[str, Any] = {
    "_id": ObjectId(ALERT_ID), "kind": Kind.TRADE_ALERT.value, "event_key": "01JD0000000000000000000001",
    "symbol": "RELIANCE", "side": Side.BUY.value, "action": Action.OPEN.value, "price": Decimal128("2945.50"),
    "currency": "INR", "sizing": {"suggested_qty": Decimal128("5"), "ratio": Decimal128("0.1")}, "exit_fraction": None,
    "priority": Priority.HIGH.value, "correlation_id": "c-1", "executed_at": EXECUTED_AT,
    "expires_at": EXECUTED_AT.replace(minute=20),
}  # fmt: skip
"""As much of a stored notification as its words are made from: so the examples say what the code says."""
PAYLOAD = content_of(ALERT).payload
ENTRY: dict[str, Any] = {
    "id": ALERT_ID, "created_at": "2026-11-21T09:15:00.310Z", "expires_at": "2026-11-21T09:20:00.123Z",
    "read_at": None, "payload": PAYLOAD,
}  # fmt: skip
