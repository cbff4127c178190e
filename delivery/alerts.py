"""Builds what a fan-out stores for each follower: the notification, its deliveries, its line in the inbox."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

import structlog
from bson import ObjectId

from delivery import statements
from delivery.wishes import Wishes
from followers.choices import Channel
from followers.clock import as_utc
from followers.decimals import decimal_of, to_decimal, to_decimal128
from followers.preferences import DEFAULT, Preferences
from followers.statements import AudienceMember
from notifications.choices import EXITS, DeliveryState, Kind, NotificationState, Reason
from notifications.models import SCHEMA_VERSION
from notifications.models import Sizing as StoredSizing
from notifications.rendering import content_of
from notifications.sizing import Sizer, Sizing, SizingInputs
from notifications.statements import community_of, ended, notification_id_maker

logger = structlog.get_logger(__name__)
Document = dict[str, Any]
EMPTY: frozenset[ObjectId] = frozenset()
SIZING_FIELDS = tuple(field.attname for field in StoredSizing._meta.get_fields())


@dataclass(slots=True)
class Alerts:
    """What one chunk of followers adds to the database."""

    notifications: list[Document] = field(default_factory=list)
    entries: list[Document] = field(default_factory=list)
    batches: list[Document] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Recipient:
    """Whose preferences count; a trader's community has none."""

    follower: Document | None = None
    wishes: Preferences = DEFAULT


class AlertWriter:
    """Turns followers into documents for one event, under one fan-out shard."""

    def __init__(self, event: Document, shard_batch: Document, open_channels: frozenset[str]) -> None:
        self._event = event
        self._shard_batch = shard_batch
        self._open_channels = open_channels
        self.superseded_by = ""
        """The id of an exit that came after this entry; then nothing of it is sent."""
        self._common = _common_fields(event)
        self._wishes = Wishes(event)
        self._id_of = notification_id_maker(event["executed_at"], event["external_id"])

    def alerts_for(
        self, members: Iterable[AudienceMember], known: set[ObjectId], now: datetime, withheld: Set[ObjectId] = EMPTY
    ) -> Alerts:
        """Documents for a chunk of followers.

        Parameters:
          known: Notifications that are stored already; they get no new batch (their own wakes up).
          withheld: Those of them that were kept out of the inbox; they stay out, whatever is wished for now.
        """
        alerts = Alerts()
        lanes = Lanes(self._event, self._shard_batch, now)
        for member in members:
            row = self._row(member.follower["_id"], self._sized(member), now)
            if row["sizing"] is None or not row["sizing"]["reason"]:
                wishes = self._wishes.of(member.follower)
                closed = self._closed(now)
                if closed is None and row["_id"] not in known:
                    closed = self._withheld(wishes, row)
                recipient = Recipient(member.follower, wishes)
                deliveries = self._deliveries(row, recipient, member.endpoints, lanes, known, closed, now)
                row["deliveries"] = [self._in_app(closed, now), *deliveries]
                if closed is None and row["_id"] not in withheld:
                    alerts.entries.append(self._entry(row, now))
            alerts.notifications.append(_summed_up(row))
        alerts.batches = lanes.batches
        return alerts

    def community_post(self, endpoints: list[Document], known: set[ObjectId], now: datetime) -> Alerts:
        """The one post of a trader's community channels: nobody's quantity, nobody's inbox."""
        lanes = Lanes(self._event, self._shard_batch, now)
        row = self._row(None, None, now)
        row["deliveries"] = self._deliveries(row, Recipient(), endpoints, lanes, known, self._closed(now), now)
        return Alerts(notifications=[_summed_up(row)], batches=lanes.batches)

    def notification_id(self, follower: ObjectId | None) -> ObjectId:
        return self._id_of(follower or community_of(self._event["trader_id"]))

    @cached_property
    def _sizing_common(self) -> Document:
        return _common_sizing(self._event)

    @cached_property
    def _sizer(self) -> Sizer:
        return Sizer(sizing_inputs(self._event))

    def _sized(self, member: AudienceMember) -> Document | None:
        """The stored sizing. Figures that cannot be read cost their own follower the alert, and nobody else."""
        try:
            return self._sizing_document(member, self._size(member))
        except (AttributeError, KeyError, TypeError, ValueError):
            logger.exception("A follower's figures cannot be read.", follower=str(member.follower["_id"]))
            unsized = dict.fromkeys(SIZING_FIELDS)
            return {**unsized, "reason": Reason.UNREADABLE_FIGURES.value, "is_estimate": False, "capped": False}

    def _size(self, member: AudienceMember) -> Sizing:
        follow, follower = member.follow, member.follower
        return self._sizer.size(
            to_decimal(follower["portfolio_value"]),
            to_decimal(follow["allocation"]),
            decimal_of(follow["multiplier"]),
            to_decimal(follow["max_notional"]),
            follower["currency"],
        )

    def _row(self, follower: ObjectId | None, sizing: Document | None, now: datetime) -> Document:
        return {
            "_id": self.notification_id(follower),
            **self._common,
            "superseded_by": self.superseded_by,
            "follower_id": follower,
            "sizing": sizing,
            "created_at": now,
            "deliveries": [],
        }

    def _sizing_document(self, member: AudienceMember, sizing: Sizing) -> Document:
        """The sizing as it is stored: the result and every input, these as they were read."""
        follow = member.follow
        own = follow["allocation"]
        return {
            "suggested_qty": to_decimal128(sizing.suggested_qty),
            "ratio": to_decimal128(sizing.ratio),
            "reason": sizing.reason,
            "notional": to_decimal128(sizing.notional),
            "is_estimate": sizing.is_estimate,
            "capped": sizing.capped,
            "follower_portfolio": member.follower["portfolio_value"] if own is None else own,
            "multiplier": follow["multiplier"],
            "max_notional": follow["max_notional"],
            **self._sizing_common,
        }

    def _closed(self, now: datetime) -> tuple[DeliveryState, Reason] | None:
        """Why nothing of this event is sent any more, or None."""
        if self.superseded_by:
            return DeliveryState.CANCELLED, Reason.SUPERSEDED_BY_EXIT
        if self._event["expires_at"] <= now.replace(tzinfo=None):
            return DeliveryState.EXPIRED, Reason.VALIDITY_OVER
        return None

    def _withheld(self, wishes: Preferences, row: Document) -> tuple[DeliveryState, Reason] | None:
        """Why a follower does not want to be told of this event at all, or None."""
        reason = self._wishes.withheld(wishes, row["sizing"] and row["sizing"]["notional"])
        return None if reason is None else (DeliveryState.SKIPPED, reason)

    def _in_app(self, closed: tuple[DeliveryState, Reason] | None, now: datetime) -> Document:
        if closed is not None:
            return delivery(Channel.IN_APP, None, **ended(*closed))
        return delivery(Channel.IN_APP, None, state=DeliveryState.SENT.value, sent_at=now)

    def _deliveries(
        self,
        row: Document,
        recipient: Recipient,
        endpoints: list[Document],
        lanes: Lanes,
        known: set[ObjectId],
        closed: tuple[DeliveryState, Reason] | None,
        now: datetime,
    ) -> list[Document]:
        deliveries = []
        used: dict[str, int] = {}
        for endpoint in endpoints:
            channel = endpoint["channel"]
            if closed is not None:
                fields = ended(*closed)
            elif channel not in self._open_channels:
                fields = ended(DeliveryState.SKIPPED, Reason.CHANNEL_OFF)
            elif (reason := self._wishes.skipped(recipient.wishes, recipient.follower, channel)) is not None:
                fields = ended(DeliveryState.SKIPPED, reason)
            elif held := self._wishes.held(recipient.wishes, recipient.follower, channel, now):
                fields = held
            else:
                lane = used[channel] = used.get(channel, -1) + 1
                batch = None if row["_id"] in known else lanes.place(channel, lane, row["_id"])
                # While in a batch the batch does the waking; the row itself only wakes to expire.
                # A known row has its own batch; should it be gone after all, its new self is due at once.
                fields = {"batch": batch, "next_attempt_at": row["expires_at"] if batch else now}
            deliveries.append(delivery(channel, endpoint["_id"], **fields))
        return deliveries

    def _entry(self, row: Document, now: datetime) -> Document:
        return {
            "_id": row["_id"],
            "notification_id": row["_id"],
            "follower_id": row["follower_id"],
            "trader_id": row["trader_id"],
            "instrument": row["instrument"],
            "order_id": self._event["order_id"],
            "executed_at": row["executed_at"],
            "event_key": row["event_key"],
            "payload": content_of(row).payload,
            "created_at": now,
            "expires_at": row["expires_at"],
            "read_at": None,
            "archived_at": None,
        }


class Lanes:
    """Fills delivery batches: one open batch per channel and lane, so that no batch names a notification twice."""

    def __init__(self, event: Document, shard_batch: Document, now: datetime) -> None:
        self.batches: list[Document] = []
        self._event = event
        self._shard_batch = shard_batch
        self._now = now
        self._open: dict[tuple[str, int], Document] = {}
        self._sizes: dict[str, int] = {}

    def place(self, channel: str, lane: int, notification: ObjectId) -> ObjectId:
        """Puts a notification's delivery into a batch and returns the batch's id."""
        batch = self._open.get((channel, lane))
        if batch is None or len(batch["ids"]) >= self._sizes[channel]:
            self._sizes[channel] = statements.batch_size(channel)
            batch = statements.delivery_batch(
                channel, self._event["priority"], [], self._now, self._event["correlation_id"], self._shard_batch
            )
            self._open[channel, lane] = batch
            self.batches.append(batch)
        batch["ids"].append(notification)
        return batch["_id"]


def delivery(channel: str, endpoint: ObjectId | None, **fields: Any) -> Document:
    """A stored delivery; queued unless `fields` say otherwise."""
    return {
        "channel": str(channel),
        "endpoint": endpoint,
        "state": DeliveryState.QUEUED.value,
        "attempts": 0,
        "batch": None,
        "last_attempt_at": None,
        "next_attempt_at": None,
        "provider_message_id": "",
        "error_code": "",
        "error_message": "",
        "sent_at": None,
        "delivered_at": None,
        "attempt_log": [],
        **fields,
    }


def sizing_inputs(event: Document) -> SizingInputs:
    """A stored event as the sizing wants it."""
    return SizingInputs(
        executed_qty=decimal_of(event["quantity"]),
        price=decimal_of(event["price"]),
        trader_portfolio=to_decimal(event["trader_portfolio"]),
        currency=event["currency"],
        quantity_step=decimal_of(event["quantity_step"]),
        min_quantity=decimal_of(event["min_quantity"]),
        min_notional=decimal_of(event["min_notional"]),
        contract_multiplier=decimal_of(event["contract_multiplier"]),
        is_exit=event["action"] in EXITS,
        exit_fraction=to_decimal(event["exit_fraction"]),
    )


def _common_fields(event: Document) -> Document:
    return {
        "kind": Kind.TRADE_ALERT.value,
        "event_id": event["_id"],
        "trader_id": event["trader_id"],
        "event_key": event["external_id"],
        "executed_at": event["executed_at"],
        "instrument": event["instrument"],
        "symbol": event["symbol"],
        "side": event["side"],
        "action": event["action"],
        "price": event["price"],
        "currency": event["currency"],
        "exit_fraction": event["exit_fraction"],
        "priority": event["priority"],
        "correlation_id": event["correlation_id"],
        "expires_at": event["expires_at"],
        "review": None,
        "schema_version": SCHEMA_VERSION,
    }


def _common_sizing(event: Document) -> Document:
    """The trade's side of a stored sizing."""
    return {
        "executed_qty": event["quantity"],
        "trader_portfolio": event["trader_portfolio"],
        "quantity_step": event["quantity_step"],
        "min_quantity": event["min_quantity"],
        "min_notional": event["min_notional"],
        "exit_fraction": event["exit_fraction"],
    }


def _summed_up(row: Document) -> Document:
    """Adds state and wake_at to a new row: the rule of notifications.statements.derive, for what an insert can hold.

    Nothing is inserted as failed or unknown, so that no new row needs a review.
    """
    states = {d["state"] for d in row["deliveries"] if d["channel"] != Channel.IN_APP} or {
        d["state"] for d in row["deliveries"]
    }
    if DeliveryState.QUEUED in states:
        waits = [d["next_attempt_at"] for d in row["deliveries"] if d["state"] == DeliveryState.QUEUED]
        # The one that is due now (aware) comes before what waits for its validity's end (naive, as read).
        first = waits[0] if len(waits) == 1 else min(waits, key=as_utc)
        row["state"], row["wake_at"] = NotificationState.PENDING.value, first
        return row
    row["wake_at"] = None
    for state, summary in (
        (DeliveryState.SENT, NotificationState.DELIVERED),
        (DeliveryState.EXPIRED, NotificationState.EXPIRED),
        (DeliveryState.CANCELLED, NotificationState.CANCELLED),
    ):
        if state in states:
            row["state"] = summary.value
            return row
    row["state"] = NotificationState.SKIPPED.value
    return row
