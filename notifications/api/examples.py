"""What the schema shows as examples of followers' calls."""

from __future__ import annotations

from typing import Any

from followers.api.schema import ALERT_ID

PAYLOAD = {
    "type": "trade", "title": "Buy 5 RELIANCE @ 2945.5 INR", "body": "Valid until 14:50.", "symbol": "RELIANCE",
    "side": "BUY", "action": "OPEN", "price": "2945.5", "currency": "INR", "suggested_qty": "5",
}  # fmt: skip
ENTRY: dict[str, Any] = {
    "id": ALERT_ID, "created_at": "2026-11-21T09:15:00.310Z", "expires_at": "2026-11-21T09:20:00.123Z",
    "read_at": None, "payload": PAYLOAD,
}  # fmt: skip
