"""What a usual team writes: the ORM, a Celery task for each follower, late acknowledgements, requests.

Workers: `celery -A bench.rivals.plain worker -c 8`; the consumer: `python -m bench.rivals.plain`.
"""

# ruff: noqa: PLC0415  # Models can be imported only once Django is set up.
from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import cache
from typing import Any

import requests
from celery import Celery

from bench.rivals import work

TIMEOUT_SECONDS = 10
app = Celery("plain", broker=os.environ["DRAMATIQ_BROKER_URL"])
app.conf.update(task_acks_late=True, task_ignore_result=True, task_default_queue="plain")
work.prepare()


@cache
def session() -> requests.Session:
    made = requests.Session()
    made.headers.update(work.HEADERS)
    made.trust_env = False
    return made


@app.task(name="alert")  # type: ignore[untyped-decorator]
def alert(event_id: str, follow_id: str) -> None:
    from followers.models import Endpoint, Follow, Follower
    from notifications.models import InAppEntry, TradeEvent

    event: Any = TradeEvent.objects.get(pk=event_id)
    follow = Follow.objects.get(pk=follow_id)
    follower = Follower.objects.get(pk=follow.follower_id)
    endpoint = Endpoint.objects.get(follower=follower, active=True)
    now = datetime.now(UTC)
    notification = _notification(event, follow, follower, endpoint, now)
    notification.save(force_insert=True)
    shown = _shown(notification)
    wording = work.Words(shown)
    title, text, data = wording.of(shown)
    InAppEntry.objects.create(
        pk=notification.pk, notification=notification, follower=follower, trader_id=event.trader_id,
        instrument=event.instrument, executed_at=event.executed_at, event_key=event.external_id,
        payload={"title": title, "body": text, **data}, created_at=now, expires_at=event.expires_at,
    )  # fmt: skip
    answer = session().post(
        work.send_url(), json=work.message(shown, endpoint.address, wording), timeout=TIMEOUT_SECONDS
    )
    answer.raise_for_status()
    _mark_sent(notification, answer.json()["name"])


def _notification(event: Any, follow: Any, follower: Any, endpoint: Any, now: datetime) -> Any:
    from notifications.models import Delivery, Notification, Sizing

    ratio = follower.portfolio_value / event.trader_portfolio * follow.multiplier
    quantity = ratio * event.quantity // event.quantity_step * event.quantity_step
    sizing = Sizing(
        suggested_qty=quantity, ratio=ratio, notional=quantity * event.price, executed_qty=event.quantity,
        trader_portfolio=event.trader_portfolio, follower_portfolio=follower.portfolio_value,
        multiplier=follow.multiplier, quantity_step=event.quantity_step, min_quantity=event.min_quantity,
        min_notional=event.min_notional,
    )  # fmt: skip
    return Notification(
        event_id=event.pk, trader_id=event.trader_id, follower_id=follower.pk, event_key=event.external_id,
        executed_at=event.executed_at, instrument=event.instrument, symbol=event.symbol, side=event.side,
        action=event.action, price=event.price, currency=event.currency, sizing=sizing, priority=event.priority,
        correlation_id=event.correlation_id, created_at=now, expires_at=event.expires_at, state="pending",
        wake_at=event.expires_at,
        deliveries=[
            Delivery(channel="in_app", state="sent", sent_at=now),
            Delivery(channel="fcm", endpoint=endpoint.pk, state="queued", next_attempt_at=event.expires_at),
        ],
    )  # fmt: skip


def _shown(notification: Any) -> work.Document:
    """The notification as `work.Words` and `work.message` read it."""
    names = ("event_key", "symbol", "side", "action", "price", "currency", "priority", "expires_at", "correlation_id")
    sizing = {"suggested_qty": notification.sizing.suggested_qty, "ratio": notification.sizing.ratio}
    return {name: getattr(notification, name) for name in names} | {"_id": notification.pk, "sizing": sizing}


def _mark_sent(notification: Any, provider_id: str) -> None:
    from notifications.models import Attempt

    now, delivery = datetime.now(UTC), notification.deliveries[1]
    delivery.state, delivery.sent_at, delivery.attempts, delivery.next_attempt_at = "sent", now, 1, None
    delivery.last_attempt_at, delivery.provider_message_id = now, provider_id
    delivery.attempt_log = [Attempt(at=now, outcome="sent")]
    notification.state, notification.wake_at = "delivered", None
    notification.save()


def consume() -> None:
    from followers.models import Follow

    for event in work.trades("bench-plain"):
        for follow_id in Follow.objects.filter(trader=event["trader_id"]).values_list("pk", flat=True):
            alert.delay(str(event["_id"]), str(follow_id))


if __name__ == "__main__":
    consume()
