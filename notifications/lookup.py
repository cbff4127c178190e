"""Alerts as services look them up: one with all that happened to it, and lists, each by an index of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from bson import ObjectId
from pymongo.cursor import Cursor

from followers.addresses import mask_address
from followers.encryption import UnknownKeyError, decrypt
from followers.models import Follower, Trader
from followers.mongo import Position, collection, durably, older_than
from followers.statements import addresses
from notifications.choices import NotificationState
from notifications.models import InAppEntry, Notification, TradeEvent
from notifications.statements import EVENT_INDEX

Document = dict[str, Any]

COMMON_STATES = frozenset({NotificationState.PENDING, NotificationState.DELIVERED, NotificationState.SKIPPED})
"""States that most alerts are in or pass through: no index leads to them, but the one of a follower or an event."""

PATIENCE_SECONDS = 3.0
NEWEST = {"created_at": -1, "_id": -1}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which alerts; None = whichever."""

    follower: ObjectId | None = None
    event: ObjectId | None = None
    trader: ObjectId | None = None
    state: NotificationState | None = None

    @property
    def is_too_wide(self) -> bool:
        """Whether no index leads to them."""
        return self.state in COMMON_STATES and self.follower is None and self.event is None


def page(wanted: Wanted, after: Position | None, limit: int) -> list[Document]:
    """The alerts that `found` finds."""
    return durably(lambda: list(found(wanted, after, limit)), PATIENCE_SECONDS)


def found(wanted: Wanted, after: Position | None, limit: int) -> Cursor[Document]:
    """The alerts after the one made at that time with that id; the newest first, those of an event by their ids.

    Index: notifications_notification (follower_id, created_at, _id); (event_id, state, _id); of a trader
    (trader_id, created_at, _id), and (trader_id, state, created_at, _id) for the rare states; (state, _id); _id.
    """
    query: Document = {
        name: value
        for name, value in (
            ("follower_id", wanted.follower), ("event_id", wanted.event), ("trader_id", wanted.trader),
            ("state", wanted.state and wanted.state.value),
        )
        if value is not None
    }  # fmt: skip
    by_time = wanted.follower is not None or (wanted.trader is not None and wanted.event is None)
    if wanted.event is not None and wanted.state is None and not by_time:
        query["state"] = {"$in": NotificationState.values}  # Each in the index's order, merged: nothing is sorted.
    if by_time:
        query |= older_than(after)
    elif after is not None:
        query["_id"] = {"$lt": after[1]}
    order = NEWEST if by_time else {"_id": -1}
    return collection(Notification).find(query).sort(order).hint(_index(wanted)).limit(limit)


def _index(wanted: Wanted) -> Document:
    if wanted.follower is not None:
        return {"follower_id": 1, **NEWEST}
    if wanted.event is not None:
        return EVENT_INDEX
    if wanted.trader is not None:
        return {"trader_id": 1, **({"state": 1} if wanted.state else {}), **NEWEST}
    return {"state": 1, "_id": -1} if wanted.state else {"_id": 1}


def alert(notification_id: ObjectId) -> Document | None:
    query = {"_id": notification_id}
    return durably(lambda: collection(Notification).find_one(query), PATIENCE_SECONDS)


def inbox_entry(notification_id: ObjectId) -> Document | None:
    """When the entry of an alert was read or archived; None once it has left the inbox."""
    fields = {"read_at": 1, "archived_at": 1}
    return durably(lambda: collection(InAppEntry).find_one({"_id": notification_id}, fields), PATIENCE_SECONDS)


def event_times(event_id: ObjectId) -> Document | None:
    fields = {"executed_at": 1, "received_at": 1}
    return durably(lambda: collection(TradeEvent).find_one({"_id": event_id}, fields), PATIENCE_SECONDS)


def names(model: type[Trader | Follower], ids: Iterable[ObjectId | None]) -> dict[ObjectId, str]:
    """External ids by ours."""
    query = {"_id": {"$in": [oid for oid in set(ids) if oid is not None]}}
    people = collection(model)
    return durably(lambda: {p["_id"]: p["external_id"] for p in people.find(query, {"external_id": 1})})


@dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses of some endpoints, to be shown and to be kept out of what vendors have said."""

    _plain: dict[ObjectId, str | None]  # None = its key is gone.

    @classmethod
    def of(cls, endpoint_ids: Collection[ObjectId]) -> Addresses:
        plain: dict[ObjectId, str | None] = {}
        for oid, stored in addresses(endpoint_ids).items() if endpoint_ids else ():
            try:
                plain[oid] = decrypt(stored["address"])
            except UnknownKeyError:
                plain[oid] = None
        return cls(plain)

    def shown(self, endpoint_id: ObjectId | None) -> str | None:
        """Masked; None where it is erased, or cannot be read."""
        plain = self._plain.get(endpoint_id) if endpoint_id else None
        return None if plain is None else mask_address(plain)

    def kept_out_of(self, text: str, endpoint_id: ObjectId | None) -> str:
        """What a vendor has said, with the whole address masked where it repeats it."""
        plain = self._plain.get(endpoint_id) if endpoint_id else None
        return text if plain is None else text.replace(plain, mask_address(plain))
