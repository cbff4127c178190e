"""General updates as the fan-out reads them: events that have no trade, an audience of their own, and words.

So an update goes through everything that a trade goes through. Its alerts name it as their event.
"""

from __future__ import annotations

import hashlib
from typing import Any

from bson import ObjectId

from followers.mongo import collection, durably
from notifications.choices import Kind
from notifications.models import TradeEvent, Update

Document = dict[str, Any]

KEY_PREFIX = "update:"
"""Before an update's id where an event's id stands, so that the two never meet."""

NOT_A_TRADE: Document = {
    "kind": Kind.UPDATE.value,
    "instrument": "",
    "symbol": "",
    "side": "",
    "action": "",
    "price": None,
    "currency": "",
    "exit_fraction": None,
    "order_id": "",
    "closes_position": False,
}


def update_id(external_id: str) -> ObjectId:
    """The update's id, made from its caller's: publishing it twice is publishing it once."""
    return ObjectId(hashlib.sha256(f"{KEY_PREFIX}{external_id}".encode()).digest()[:12])


def as_event(update: Document) -> Document:
    """A stored update as the fan-out and the proof read an event; `follower_ids` and `words` are its own."""
    words = {name: update.get(name) for name in ("title", "text", "is_test")}
    key = KEY_PREFIX + update["external_id"]
    return {**NOT_A_TRADE, **update, "external_id": key, "executed_at": update["received_at"], "words": words}


def is_update(event: Document) -> bool:
    return event.get("kind") == Kind.UPDATE


def stored_update(oid: ObjectId) -> Document | None:
    return durably(lambda: collection(Update).find_one({"_id": oid}))


def change_event(query: Document, change: Document | list[Document]) -> None:
    """Changes the trade event or the general update that `query` names by `_id`; nothing if its state has moved on."""
    if not durably(lambda: collection(TradeEvent).update_one(query, change)).matched_count:
        durably(lambda: collection(Update).update_one(query, change))
