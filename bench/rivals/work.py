"""The work that every rival does for a trade, by pymongo alone and as directly as it can be written."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any

import django
import orjson
from bson import Decimal128, ObjectId
from pymongo import MongoClient, UpdateOne

from followers.decimals import decimal_of, to_decimal128

Document = dict[str, Any]
CHUNK = 2_000
RIVALS_TOPIC = "bench.trades"
HEADERS = {"content-type": "application/json", "authorization": "Bearer bench"}


def prepare() -> None:
    """Django's settings and models, for whoever runs as a process of its own."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "notifyhub.settings")
    django.setup()


@cache
def database() -> Any:
    """One client a process, with NotifyHub's write concern."""
    return MongoClient(os.environ["MONGODB_URL"], w="majority", journal=True).get_default_database()


def table(name: str) -> Any:
    return database()[name]


def send_url() -> str:
    return f"{os.environ['FCM_BASE_URL']}/v1/projects/bench/messages:send"


def trades(group: str) -> Iterator[Document]:
    """The trade events that come from Kafka from now on, stored."""
    from kafka import KafkaConsumer  # noqa: PLC0415

    from delivery.intake import read_message  # noqa: PLC0415
    from delivery.intake_documents import AcceptedEvent, event_document  # noqa: PLC0415
    from followers.statements import traders_by_external_id  # noqa: PLC0415
    from notifications.statements import event_id  # noqa: PLC0415

    consumer = KafkaConsumer(
        RIVALS_TOPIC,
        bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        group_id=f"{group}-{uuid.uuid4().hex}",  # What was for the others meanwhile is none of its own.
        enable_auto_commit=False,
        auto_offset_reset="latest",
    )
    while not consumer.assignment():
        consumer.poll(timeout_ms=100)
    for partition in consumer.assignment():
        consumer.position(partition)
    print("Ready.", flush=True)  # noqa: T201  Whoever started this process waits for it.
    for record in consumer:
        accepted = read_message(record.value, record.headers, record.key)
        if not isinstance(accepted, AcceptedEvent):
            raise TypeError(f"No trade: {accepted}")
        name = accepted.event.trader_id
        now = datetime.now(UTC)
        event = event_document(
            event_id(accepted.event.event_id), accepted, traders_by_external_id([name])[name], 1, now
        )
        table("notifications_tradeevent").insert_one(event)
        yield event
        consumer.commit()


def audience(event: Document, chunk: int = CHUNK) -> Iterator[list[Document]]:
    """A trader's follows, by the chunk."""
    page: list[Document] = []
    for follow in table("followers_follow").find({"trader_id": event["trader_id"]}).batch_size(chunk):
        page.append(follow)
        if len(page) == chunk:
            yield page
            page = []
    if page:
        yield page


def with_people(follows: Sequence[Document]) -> list[tuple[Document, Document, Document]]:
    """(follow, follower, endpoint) of each."""
    ids = [follow["follower_id"] for follow in follows]
    people = {f["_id"]: f for f in table("followers_follower").find({"_id": {"$in": ids}}, {"portfolio_value": 1})}
    fields = {"follower_id": 1, "channel": 1, "address": 1}
    endpoints = {e["follower_id"]: e for e in table("followers_endpoint").find({"follower_id": {"$in": ids}}, fields)}
    return [(f, people[f["follower_id"]], endpoints[f["follower_id"]]) for f in follows]


class Sizes:
    """The sizing of one trade, as it is stored; what is the same for everybody is worked out once."""

    def __init__(self, event: Document) -> None:
        self._executed, self._step = decimal_of(event["quantity"]), decimal_of(event["quantity_step"])
        self._portfolio, self._price = decimal_of(event["trader_portfolio"]), decimal_of(event["price"])
        self._same = {
            "reason": "", "exit_fraction": None, "is_estimate": False, "capped": False,
            "executed_qty": event["quantity"], "trader_portfolio": event["trader_portfolio"],
            "quantity_step": event["quantity_step"], "min_quantity": event["min_quantity"],
            "min_notional": event["min_notional"], "max_notional": None,
        }  # fmt: skip

    def of(self, follow: Document, follower: Document) -> Document:
        ratio = decimal_of(follower["portfolio_value"]) / self._portfolio * decimal_of(follow["multiplier"])
        quantity = ratio * self._executed // self._step * self._step
        return {
            "suggested_qty": to_decimal128(quantity),
            "ratio": to_decimal128(ratio),
            "notional": to_decimal128(quantity * self._price),
            "follower_portfolio": follower["portfolio_value"],
            "multiplier": follow["multiplier"],
            **self._same,
        }


COPIED = (
    "trader_id", "executed_at", "instrument", "symbol", "side", "action", "price", "currency", "exit_fraction",
    "priority", "correlation_id", "expires_at",
)  # fmt: skip
QUEUED: Document = {
    "channel": "fcm", "endpoint": None, "state": "queued", "attempts": 0, "batch": None, "last_attempt_at": None,
    "next_attempt_at": None, "provider_message_id": "", "error_code": "", "error_message": "", "sent_at": None,
    "delivered_at": None, "attempt_log": [],
}  # fmt: skip


def alerts(
    event: Document, members: Sequence[tuple[Document, Document, Document]], batch: ObjectId | None, now: datetime
) -> tuple[list[Document], list[Document]]:
    """The notifications and inbox entries of some followers, each with one delivery that is queued in `batch`."""
    common = {name: event[name] for name in COPIED} | {
        "kind": "trade_alert", "event_id": event["_id"], "event_key": event["external_id"], "superseded_by": "",
        "created_at": now, "state": "pending", "wake_at": event["expires_at"], "review": None, "schema_version": 1,
    }  # fmt: skip
    sizes, wording = Sizes(event), Words(common)
    in_app = {**QUEUED, "channel": "in_app", "state": "sent", "sent_at": now}
    rows, entries = [], []
    for follow, follower, endpoint in members:
        push = {**QUEUED, "endpoint": endpoint["_id"], "batch": batch, "next_attempt_at": event["expires_at"]}
        row = {
            "_id": ObjectId(), **common, "follower_id": follower["_id"], "sizing": sizes.of(follow, follower),
            "deliveries": [in_app, push],
        }  # fmt: skip
        rows.append(row)
        entries.append(entry(row, event, wording, now))
    return rows, entries


def entry(row: Document, event: Document, wording: Words, now: datetime) -> Document:
    title, text, data = wording.of(row)
    return {
        "_id": row["_id"], "notification_id": row["_id"], "follower_id": row["follower_id"],
        "trader_id": row["trader_id"], "instrument": row["instrument"], "order_id": event["order_id"],
        "executed_at": row["executed_at"], "event_key": row["event_key"],
        "payload": {"title": title, "body": text, **data},
        "created_at": now, "expires_at": row["expires_at"], "read_at": None, "archived_at": None,
    }  # fmt: skip


class Words:
    """Title, body and data of one trade's alerts; what is the same for everybody is put into words once.

    `shown` has the trade's fields, as each of its alerts has them.
    """

    def __init__(self, shown: Document) -> None:
        price, expires = _plain(shown["price"]), shown["expires_at"]
        self._offer = f"{shown['symbol']} @ {price} {shown['currency']}"
        self._until = f"Valid until {expires:%d %b %H:%M} UTC."
        self._same = {
            "event_id": shown["event_key"], "symbol": shown["symbol"], "side": shown["side"], "action": shown["action"],
            "price": price, "currency": shown["currency"], "priority": shown["priority"],
            "expires_at": expires.isoformat(), "correlation_id": shown["correlation_id"],
        }  # fmt: skip

    def of(self, row: Document) -> tuple[str, str, dict[str, str]]:
        quantity, ratio = _plain(row["sizing"]["suggested_qty"]), _plain(row["sizing"]["ratio"])
        data = {"notification_id": str(row["_id"]), **self._same, "suggested_qty": quantity, "ratio": ratio}
        return f"Buy {quantity} {self._offer}", f"Your quantity: {quantity}. {self._until}", data


def _plain(value: Decimal128 | Decimal) -> str:
    text = format(decimal_of(value) if isinstance(value, Decimal128) else value, "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def message(row: Document, address: str, wording: Words) -> Document:
    """FCM's message for an alert."""
    title, text, data = wording.of(row)
    key = str(row["_id"])
    return {
        "message": {
            "token": address,
            "notification": {"title": title, "body": text},
            "data": data,
            "android": {
                "priority": "HIGH", "ttl": "3600s",
                "notification": {"tag": key, "notification_priority": "PRIORITY_HIGH"},
            },
            "apns": {"headers": {"apns-priority": "10", "apns-expiration": "0", "apns-collapse-id": key}},
            "webpush": {"headers": {"TTL": "3600", "Urgency": "high"}, "notification": {"tag": key}},
        }
    }  # fmt: skip


MESSAGE_FIELDS = {
    "event_key": 1, "symbol": 1, "side": 1, "action": 1, "price": 1, "currency": 1, "priority": 1, "expires_at": 1,
    "correlation_id": 1, "sizing.suggested_qty": 1, "sizing.ratio": 1,
}  # fmt: skip
"""What must be loaded of an alert for its message."""


def addresses(rows: Sequence[Document]) -> list[str]:
    """The encrypted address of each alert."""
    endpoints = [row["deliveries"][1]["endpoint"] for row in rows]
    found = table("followers_endpoint").find({"_id": {"$in": endpoints}}, {"address": 1})
    by_id = {endpoint["_id"]: endpoint["address"] for endpoint in found}
    return [by_id[endpoint] for endpoint in endpoints]


def bodies(rows: Sequence[Document], addresses: Sequence[str]) -> list[bytes]:
    """The requests' bodies for alerts of one trade; the addresses are still encrypted."""
    from followers.encryption import decrypt  # noqa: PLC0415

    wording = Words(rows[0])
    return [orjson.dumps(message(row, decrypt(address), wording)) for row, address in zip(rows, addresses, strict=True)]


def sent(provider_id: Any, now: datetime, latency_ms: float) -> Document:
    """The fields of a delivery that a vendor has taken over, but for the count of its attempts."""
    attempt = {"at": now, "outcome": "sent", "code": "", "message": "", "latency_ms": latency_ms, "breaker": ""}
    return {
        "state": "sent", "attempts": 1, "batch": None, "next_attempt_at": None, "last_attempt_at": now, "sent_at": now,
        "provider_message_id": provider_id, "attempt_log": [attempt],
    }  # fmt: skip


def record_one_by_one(rows: Sequence[Document], provider_ids: Sequence[str], now: datetime) -> None:
    """Outcomes by a bulk write of single updates."""
    statements = [
        UpdateOne(
            {"_id": row["_id"]},
            {"$set": {"deliveries.1": {**row["deliveries"][1], **sent(provider, now, 0.0)}, "state": "delivered",
                      "wake_at": None}},
        )
        for row, provider in zip(rows, provider_ids, strict=True)
    ]  # fmt: skip
    table("notifications_notification").bulk_write(statements, ordered=False)


def insert(rows: list[Document], entries: list[Document]) -> None:
    table("notifications_notification").insert_many(rows, ordered=False)
    table("notifications_inappentry").insert_many(entries, ordered=False)
