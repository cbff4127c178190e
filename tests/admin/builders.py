"""Rows as the pipeline leaves them, for the pages that show them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from bson import ObjectId

from delivery.models import Batch
from delivery.statements import insert_batches, shard_batch
from followers import clock
from followers.models import Endpoint, Follow, Follower, Trader
from followers.mongo import collection
from notifications.models import (
    Attempt,
    Delivery,
    InAppEntry,
    Notification,
    RejectedEvent,
    Sizing,
    TradeEvent,
)
from notifications.statements import event_id, notification_id

ADDRESS = "dK3x:APA91b-Secret-Token-0123456789"
MASKED = "dK3x…6789"
EVENT_ID = "01JD0000000000000000000001"


@dataclass
class World:
    """One trade of one trader, as one follower was told of it."""

    trader: Trader
    follower: Follower
    follow: Follow
    endpoint: Endpoint
    community: Endpoint
    event: TradeEvent
    notification: Notification
    entry: InAppEntry
    rejected: RejectedEvent
    batch: Batch


def build_world() -> World:
    now = clock.now()
    trader = Trader.objects.create(external_id="T-17", portfolio_value=Decimal(100000), currency="INR")
    follower = Follower.objects.create(external_id="F-1", portfolio_value=Decimal(10000), currency="INR")
    follow = Follow.objects.create(trader=trader, follower=follower)
    endpoint = Endpoint.objects.create(follower=follower, channel="fcm", address=ADDRESS, platform="android")
    webhook = "https://discord.com/api/webhooks/123456789012345678/secret-webhook-token"
    community = Endpoint.objects.create(trader=trader, channel="discord", address=webhook)
    event = build_event(trader)
    notification = build_notification(event, follower, endpoint)
    entry = InAppEntry.objects.create(
        id=notification.pk, notification=notification, follower=follower, trader=trader, instrument=event.instrument,
        order_id="O-1", executed_at=now, event_key=EVENT_ID, payload={"title": "Buy 5 RELIANCE"}, created_at=now,
        expires_at=now + timedelta(hours=1),
    )  # fmt: skip
    rejected = build_rejected(1)
    insert_batches([shard_batch(_document(event), 0, now)])
    batch = Batch.objects.create(
        kind="deliver", channel="fcm", priority="high", ids=[notification.pk], event=event.pk, shard=0,
        created_at=now, next_look_at=now,
    )  # fmt: skip
    return World(trader, follower, follow, endpoint, community, event, notification, entry, rejected, batch)


def build_event(trader: Trader | None, external_id: str = EVENT_ID, **fields: Any) -> TradeEvent:
    now = clock.now()
    return TradeEvent.objects.create(**{
        "id": event_id(external_id), "external_id": external_id, "trader": trader, "trader_external_id": "T-17",
        "executed_at": now, "received_at": now, "expires_at": now + timedelta(hours=1), "priority": "high",
        "correlation_id": "c-1", "instrument": "XNSE|RELIANCE", "symbol": "RELIANCE", "exchange": "XNSE",
        "product_type": "DELIVERY", "side": "BUY", "action": "OPEN", "quantity": Decimal(50),
        "price": Decimal("2945.50"), "currency": "INR", "trader_portfolio": Decimal(100000),
        "payload": '{"eventId": "x"}', "state": "pending", "shards": 1, "shards_done": [], **fields,
    })  # fmt: skip


def build_notification(event: TradeEvent, follower: Follower, endpoint: Endpoint, **fields: Any) -> Notification:
    now = clock.now()
    attempt = Attempt(at=now, outcome="retry", code="UNAVAILABLE", message="Try again later.", latency_ms=31.4)
    deliveries = [
        Delivery(channel="in_app", state="sent", sent_at=now),
        Delivery(
            channel="fcm", endpoint=endpoint.pk, state="queued", attempts=1, last_attempt_at=now, next_attempt_at=now,
            error_code="UNAVAILABLE", error_message="Try again later.", attempt_log=[attempt],
        ),
    ]  # fmt: skip
    sizing = Sizing(
        suggested_qty=Decimal(5), ratio=Decimal("0.1"), notional=Decimal("14727.5"), executed_qty=Decimal(50),
        trader_portfolio=Decimal(100000), follower_portfolio=Decimal(10000), multiplier=Decimal(1),
        quantity_step=Decimal(1), min_quantity=Decimal(1), min_notional=Decimal(0),
    )  # fmt: skip
    return Notification.objects.create(**{
        "id": notification_id(now, event.external_id, follower.pk), "event": event, "trader": event.trader,
        "follower": follower, "event_key": event.external_id, "executed_at": now, "instrument": event.instrument,
        "symbol": "RELIANCE", "side": "BUY", "action": "OPEN", "price": Decimal("2945.50"), "currency": "INR",
        "sizing": sizing, "priority": "high", "correlation_id": "c-1", "created_at": now,
        "expires_at": now + timedelta(hours=1), "state": "pending", "wake_at": now, "deliveries": deliveries,
        **fields,
    })  # fmt: skip


def build_rejected(offset: int, value: bytes = b'{"eventId": \xff', **fields: Any) -> RejectedEvent:
    return RejectedEvent.objects.create(**{
        "topic": "trade.executed", "partition": 0, "offset": offset, "key": b"T-17", "value": value, "headers": [],
        "code": "bad_utf8", "reason": "Byte 12 of the message is not UTF-8.", "received_at": clock.now(), **fields,
    })  # fmt: skip


def _document(event: TradeEvent) -> dict[str, Any]:
    document = collection(TradeEvent).find_one({"_id": ObjectId(event.pk)})
    assert document is not None
    return document
