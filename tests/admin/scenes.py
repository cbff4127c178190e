"""What support and operators look at: a follower with a history, a vendor's outage, half an hour of trades."""

from __future__ import annotations

import importlib
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import redis
from bson import ObjectId
from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test import Client

from delivery.breakers import ensure_breakers, note_change
from delivery.guards.breaker import State, opened
from delivery.guards.shared import encoded, state_key
from delivery.models import Batch
from delivery.sweeps import note_sweep
from followers import clock
from followers.models import Endpoint, Follow, Follower, Trader
from followers.mongo import collection
from notifications.models import Attempt, Delivery, Notification, Sizing, TradeEvent
from notifications.statements import derive, notification_id
from tests.admin.builders import ADDRESS, build_event, build_notification

NUMBER = "+14155550117"


def make_groups() -> None:
    """Runs what the migrations run."""
    made: Any = importlib.import_module("delivery.migrations.0006_support_and_operators")
    extended: Any = importlib.import_module("delivery.migrations.0009_updates_and_test_alerts")
    made.make_groups(apps, connection.schema_editor())
    extended.extend_groups(apps, connection.schema_editor())


def member(group: str, name: str = "mira") -> User:
    make_groups()
    user = User.objects.create_user(name, password="x", is_staff=True)
    user.groups.add(Group.objects.get(name=group))
    return user


def session_of(user: User) -> str:
    client = Client()
    client.force_login(user)
    return client.cookies[settings.SESSION_COOKIE_NAME].value


def attempt(at: datetime, outcome: str, code: str = "", ms: float = 40.0) -> Attempt:
    return Attempt(at=at, outcome=outcome, code=code, message="", latency_ms=ms)


def sms(endpoint: Endpoint, state: str, code: str, at: datetime, outcome: str = "retry", tries: int = 3) -> Delivery:
    log = [attempt(at + timedelta(seconds=4 * n), outcome, code, 900.0 + 300 * n) for n in range(tries)]
    return Delivery(
        channel="sms", endpoint=endpoint.pk, state=state, attempts=tries, last_attempt_at=log[-1].at if log else None,
        error_code=code, error_message="Service unavailable" if code else "", attempt_log=log,
    )  # fmt: skip


def follower_scene() -> Follower:
    """F-17, who got some alerts and not others; the newest trade, E-LAST, was too small for them."""
    now = clock.now()
    trader = Trader.objects.create(external_id="T-4", name="Meera Iyer", portfolio_value=Decimal(2_500_000))
    follower = Follower.objects.create(
        external_id="F-17", name="Asha Rao", portfolio_value=Decimal(25_000), currency="INR", timezone="Asia/Kolkata",
        preferences={"channels": {"discord": "critical_only"}, "quiet_hours": {"start": "22:00", "end": "07:00"}},
    )  # fmt: skip
    Follow.objects.create(trader=trader, follower=follower, multiplier=Decimal("1.5"), since=now - timedelta(days=90))
    phone = Endpoint.objects.create(follower=follower, channel="fcm", address=ADDRESS, platform="android")
    number = Endpoint.objects.create(follower=follower, channel="sms", address=NUMBER)
    Endpoint.objects.create(
        follower=follower, channel="apns", address="ab" * 32, platform="ios", active=False,
        deactivated_reason="Unregistered", deactivated_at=now - timedelta(days=3),
    )  # fmt: skip
    for n, (symbol, text) in enumerate(
        (("RELIANCE", "sent"), ("INFY", "failed"), ("TCS", "quiet_hours"), ("HDFCBANK", "expired"), ("SBIN", "sent")), 2
    ):
        at = now - timedelta(minutes=11 * n)
        event = build_event(
            trader, f"E-{symbol}", symbol=symbol, executed_at=at, received_at=at, fanned_out_at=at, state="done",
            shards_done=[0], alerts_written=1, trader_external_id="T-4",
        )  # fmt: skip
        _alert(event, follower, phone, number, at, text)
    at = now - timedelta(minutes=5)
    event = build_event(
        trader, "E-LAST", symbol="MRF", executed_at=at, received_at=at, fanned_out_at=at, state="done",
        shards_done=[0], alerts_written=1, trader_external_id="T-4",
    )  # fmt: skip
    build_notification(
        event, follower, phone, symbol="MRF", executed_at=at, created_at=at, state="skipped", wake_at=None,
        deliveries=[], id=_id(event, follower, at),
        sizing=Sizing(suggested_qty=Decimal(0), reason="below_min_qty", multiplier=Decimal("1.5")),
    )  # fmt: skip
    return follower


def _id(event: TradeEvent, follower: Follower, at: datetime) -> ObjectId:
    return notification_id(at, event.external_id, follower.pk)


def _alert(event: TradeEvent, follower: Follower, phone: Endpoint, number: Endpoint, at: datetime, text: str) -> None:
    push = Delivery(
        channel="fcm", endpoint=phone.pk, state="sent", attempts=1, sent_at=at + timedelta(milliseconds=210),
        attempt_log=[attempt(at, "sent")],
    )  # fmt: skip
    second = {
        "sent": Delivery(
            channel="sms",
            endpoint=number.pk,
            state="delivered",
            attempts=1,
            delivered_at=at + timedelta(seconds=3),
            sent_at=at + timedelta(milliseconds=420),
            attempt_log=[attempt(at, "sent", ms=380.0)],
        ),
        "failed": sms(number, "failed", "http_503", at),
        "quiet_hours": Delivery(channel="sms", endpoint=number.pk, state="skipped", error_code="quiet_hours"),
        "expired": Delivery(channel="sms", endpoint=number.pk, state="expired", error_code="validity_over"),
    }[text]
    inbox = Delivery(channel="in_app", state="sent", sent_at=at + timedelta(milliseconds=18))
    build_notification(
        event, follower, phone, symbol=event.symbol, executed_at=at, created_at=at, state="delivered", wake_at=None,
        id=_id(event, follower, at), deliveries=[inbox, push, second],
    )  # fmt: skip
    collection(Notification).update_one({"_id": _id(event, follower, at)}, derive())


def outage_scene(valid: int = 30, over: int = 12) -> None:
    """SMS failed for an hour: some of these alerts are still valid, others are not."""
    now = clock.now()
    trader = Trader.objects.create(external_id="T-9", name="Ravi Kapoor", portfolio_value=Decimal(900_000))
    event = build_event(
        trader, "E-OUTAGE", symbol="NIFTY", trader_external_id="T-9", state="done", shards_done=[0],
        fanned_out_at=now - timedelta(minutes=59), received_at=now - timedelta(minutes=60), alerts_written=valid + over,
    )  # fmt: skip
    for n in range(valid + over):
        follower = Follower.objects.create(external_id=f"F-{200 + n}")
        number = Endpoint.objects.create(follower=follower, channel="sms", address=f"+1415555{2000 + n}")
        at = now - timedelta(minutes=60 - n)
        validity = timedelta(hours=3) if n >= over else timedelta(minutes=5)
        build_notification(
            event, follower, number, symbol="NIFTY", executed_at=at, created_at=at, expires_at=at + validity,
            id=_id(event, follower, at), wake_at=None,
            deliveries=[
                Delivery(channel="in_app", state="sent", sent_at=at + timedelta(milliseconds=12 + n)),
                Delivery(
                    channel="fcm", endpoint=number.pk, state="sent", attempts=1,
                    sent_at=at + timedelta(milliseconds=90 + 9 * n), attempt_log=[attempt(at, "sent", ms=30.0 + 4 * n)],
                ),
                sms(number, "failed", "http_503", at),
            ],
        )  # fmt: skip
    collection(Notification).update_many({"event_id": event.pk}, derive())


def busy_scene() -> None:
    """Half an hour of trades: who was told how many, the batches, and the breakers with SMS's open."""
    now = clock.now()
    note_sweep(now)
    for n in range(88):
        at = now - timedelta(seconds=20 * n + 2)
        trader = f"T-{(4, 9, 17, 23, 31, 40)[n % 6]}"
        alerts = (320, 45, 900, 150, 60, 500)[n % 6] * (1 + (n * 7 % 5))
        took = timedelta(milliseconds=alerts * 0.9 + 40 * (n % 6))
        build_event(
            None, f"E-B{n}", executed_at=at - timedelta(milliseconds=12), received_at=at, state="done",
            shards_done=[0], fanned_out_at=at + took, alerts_written=alerts, trader_external_id=trader,
        )  # fmt: skip
        for left in range(0, alerts * 2, 200):
            Batch.objects.create(
                kind="deliver", channel="fcm", priority="high", ids=[ObjectId()] * min(200, alerts * 2 - left),
                shard=0, created_at=at, finished_at=min(now, at + took + timedelta(seconds=1)),
            )  # fmt: skip
    for n in range(12):
        Batch.objects.create(
            kind="deliver", channel="sms", priority=("critical", "high", "normal")[n % 3], ids=[ObjectId()], shard=0,
            created_at=now, next_look_at=now + timedelta(minutes=2),
        )  # fmt: skip
    ensure_breakers(dict.fromkeys(("apns", "fcm", "sms", "discord", "onesignal"), "main"))
    state = opened(State(), now.timestamp() - 1_500, 40.0, "25 failed of 30 calls within 10 s")
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.set(state_key("sms:main"), encoded(state))
    note_change("sms", "main", State(), state, "worker:1")
