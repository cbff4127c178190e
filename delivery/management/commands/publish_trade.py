"""`manage.py publish_trade`: put trades on Kafka, for trying things out."""

from __future__ import annotations

import json
import sys
import uuid
from argparse import ArgumentParser
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from kafka import KafkaProducer
from kafka.errors import KafkaError

from delivery.kafka import connect_producer, quiet_kafka
from notifications.choices import Action, Priority, ProductType, Right, Side

SEND_TIMEOUT_SECONDS = 10

DETAILS: dict[str, str] = {
    "order_id": "orderId",
    "symbol": "symbol",
    "exchange": "exchange",
    "side": "side",
    "action": "action",
    "product": "productType",
    "quantity": "quantity",
    "price": "price",
    "currency": "currency",
    "portfolio": "traderPortfolio",
    "quantity_step": "quantityStep",
    "min_quantity": "minQuantity",
    "min_notional": "minNotional",
    "multiplier": "contractMultiplier",
    "position_before": "positionBefore",
    "position_after": "positionAfter",
    "expiry": "expiryDate",
    "strike": "strike",
    "right": "right",
}
"""Options of the command, by the field of `tradeDetails` that each fills."""


class Command(BaseCommand):
    help = "Put one or more trades on Kafka, executed now, for trying things out."

    def add_arguments(self, parser: ArgumentParser) -> None:
        source = parser.add_mutually_exclusive_group(required=True)
        source.add_argument("--trader", metavar="ID", help="the trader's external id, such as T-17")
        source.add_argument(
            "--json", metavar="FILE", help="publish these lines as they are, one event each; - reads standard input"
        )
        parser.add_argument("--count", type=int, default=1, metavar="N", help="that many alike, each its own event")
        parser.add_argument("--event-id", metavar="ID", help="default: a new one; with --count, ID-1, ID-2, …")
        parser.add_argument("--correlation-id", metavar="ID", help="header correlation-id; default: none")
        parser.add_argument("--priority", choices=Priority.values)
        trade = parser.add_argument_group("the trade")
        trade.add_argument("--symbol", default="RELIANCE")
        trade.add_argument("--exchange", default="XNSE", metavar="MIC")
        trade.add_argument("--side", choices=Side.values, default=Side.BUY.value)
        trade.add_argument("--action", choices=Action.values, default=Action.OPEN.value)
        trade.add_argument("--product", choices=ProductType.values, default=ProductType.INTRADAY.value)
        trade.add_argument("--quantity", default="50")
        trade.add_argument("--price", default="2945.50")
        trade.add_argument("--portfolio", metavar="AMOUNT", help="default: the one stored with the trader")
        for name in ("currency", "order-id", "quantity-step", "min-quantity", "min-notional", "multiplier"):
            trade.add_argument(f"--{name}")
        for name in ("position-before", "position-after", "expiry", "strike"):
            trade.add_argument(f"--{name}")
        trade.add_argument("--right", choices=Right.values)

    def handle(self, *args: Any, **options: Any) -> None:
        if options["count"] < 1:
            raise CommandError("--count must be at least 1.")
        with quiet_kafka():
            try:
                producer = connect_producer()
                try:
                    self._publish(producer, options)
                finally:
                    producer.close(timeout=SEND_TIMEOUT_SECONDS)
            except KafkaError as error:
                servers = ",".join(settings.KAFKA_BOOTSTRAP_SERVERS)
                raise CommandError(f"Kafka is not reachable at KAFKA_BOOTSTRAP_SERVERS={servers}: {error}") from error

    def _publish(self, producer: KafkaProducer, options: dict[str, Any]) -> None:
        correlation_id = options["correlation_id"]
        headers = [("correlation-id", correlation_id.encode())] if correlation_id else []
        topic = settings.KAFKA_TRADE_TOPIC
        sent = [
            (event_id, producer.send(topic, value=value, key=key or None, headers=headers))
            for event_id, key, value in _messages(options)
        ]
        for event_id, future in sent:
            place = future.get(timeout=SEND_TIMEOUT_SECONDS)
            self.stdout.write(f"{event_id}  partition {place.partition}  offset {place.offset}")


def _messages(options: dict[str, Any]) -> Iterator[tuple[str, bytes, bytes]]:
    """Yields (event id, key, value)."""
    for number in range(1, options["count"] + 1):
        if options["json"] is not None:
            yield from map(_raw, _lines(options["json"]))
            continue
        event = _event(options, number)
        yield event["eventId"], event["traderId"].encode(), json.dumps(event).encode()


def _event(options: dict[str, Any], number: int) -> dict[str, Any]:
    given = options["event_id"]
    if given and options["count"] > 1:
        given = f"{given}-{number}"
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    event: dict[str, Any] = {
        "eventId": given or uuid.uuid4().hex,
        "version": 1,
        "traderId": options["trader"],
        "executedAt": now,
        "tradeDetails": {field: options[name] for name, field in DETAILS.items() if options[name] is not None},
    }
    if options["priority"]:
        event["priority"] = options["priority"]
    return event


def _lines(source: str) -> list[bytes]:
    try:
        content = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise CommandError(f"{source} cannot be read: {error.strerror}.") from error
    return [line for line in content.split(b"\n") if line.strip()]


def _raw(line: bytes) -> tuple[str, bytes, bytes]:
    """Publish the line whatever it holds; the ids are only looked up for the key and the report."""
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    ids = event if isinstance(event, dict) else {}
    return str(ids.get("eventId") or "(no event id)"), str(ids.get("traderId") or "").encode(), line
