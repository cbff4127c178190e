"""manage.py export_alerts: the evidence about a follower's, a trader's or an event's alerts."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from bson import ObjectId
from django.core.management.base import BaseCommand, CommandError, CommandParser

from delivery.evidence import SIZING_FIELDS, alerts_of_event, alerts_of_follower, alerts_of_trader, evidence
from delivery.management.commands.prove import parse_since
from followers import clock
from followers.models import Follower, Trader
from followers.mongo import collection
from notifications.models import TradeEvent
from notifications.statements import event_id

Document = dict[str, Any]

ALERT_COLUMNS = [
    "notification", "event", "trader", "follower", "kind", "symbol", "instrument", "side", "action", "price",
    "currency", "priority", "correlation_id", "executed_at", "received_at", "fanned_out_at", "created_at",
    "expires_at", "state", "superseded_by", "explanation",
]  # fmt: skip
DELIVERY_COLUMNS = [
    "channel", "address", "state", "attempts", "sent_at", "delivered_at", "ack_received_at",
    "ack_seen_at", "ack_opened_at", "next_attempt_at", "provider_message_id", "error_code", "error_message",
    "explanation", "attempt_log",
]  # fmt: skip
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


class Command(BaseCommand):
    help = "Writes why somebody got each alert, when and with what quantity. Addresses are masked."

    def add_arguments(self, parser: CommandParser) -> None:
        whose = parser.add_mutually_exclusive_group(required=True)
        whose.add_argument("--follower", metavar="ID", help="a follower's external id")
        whose.add_argument("--trader", metavar="ID", help="a trader's external id")
        whose.add_argument("--event", metavar="ID", help="an event's id")
        times = "a date, a time, or how long ago (24h, 7d); a trader's go by the trade's time, else by the alert's"
        parser.add_argument("--since", metavar="T", help=times)
        parser.add_argument("--until", metavar="T", help="up to then, not included")
        parser.add_argument("--format", choices=["ndjson", "csv"], default="ndjson", help="csv: a row per delivery")
        parser.add_argument("--output", metavar="FILE", help="default: standard output")

    def handle(self, *args: Any, **options: Any) -> None:
        write = write_csv if options["format"] == "csv" else write_ndjson
        ids = _ids(options)
        with _opened(options["output"], self.stdout) as target:
            count = write(evidence(ids), target)
        self.stderr.write(f"{count:,} alerts exported.")


def _ids(options: Document) -> Iterator[ObjectId]:
    now = clock.now()
    since, until = (None if options[name] is None else parse_since(options[name], now) for name in ("since", "until"))
    if options["follower"] is not None:
        return alerts_of_follower(_stored(Follower, {"external_id": options["follower"]}), since, until)
    if options["trader"] is not None:
        return alerts_of_trader(_stored(Trader, {"external_id": options["trader"]}), since, until)
    return alerts_of_event(_stored(TradeEvent, {"_id": event_id(options["event"])}), since, until)


def _stored(model: type[Follower | Trader | TradeEvent], query: Document) -> ObjectId:
    found = collection(model).find_one(query, {"_id": 1})
    if found is None:
        raise CommandError(f"No such {model._meta.verbose_name} is stored.")
    oid: ObjectId = found["_id"]
    return oid


@contextmanager
def _opened(path: str | None, stdout: Any) -> Iterator[TextIO]:
    if path is None:
        # Django's wrapper adds a line's end to every write; the stream under it does not.
        yield getattr(stdout, "_out", sys.stdout)
        return
    try:
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            yield file
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}.") from error


def write_ndjson(alerts: Iterator[Document], target: TextIO) -> int:
    """One JSON object a line. Returns how many."""
    count = 0
    for alert in alerts:
        target.write(json.dumps(alert, ensure_ascii=False) + "\n")
        count += 1
    return count


def write_csv(alerts: Iterator[Document], target: TextIO) -> int:
    """A row per delivery, one alone where an alert has none. Returns how many alerts."""
    sheet = csv.writer(target)
    sheet.writerow(
        [*ALERT_COLUMNS, *(f"sizing_{name}" for name in SIZING_FIELDS), *(f"delivery_{n}" for n in DELIVERY_COLUMNS)]
    )
    count = 0
    for alert in alerts:
        sizing = alert["sizing"] or {}
        shared = [*(alert[name] for name in ALERT_COLUMNS), *(sizing.get(name) for name in SIZING_FIELDS)]
        for delivery in alert["deliveries"] or [{}]:
            sheet.writerow([cell(value) for value in [*shared, *(delivery.get(name) for name in DELIVERY_COLUMNS)]])
        count += 1
    return count


def cell(value: Any) -> Any:
    """A value that no spreadsheet runs as a formula: such text gets an apostrophe in front. A number stays one."""
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and value.startswith(FORMULA_STARTS) and not _is_number(value):
        return f"'{value}"
    return value


def _is_number(text: str) -> bool:
    return text[:1] == "-" and text[1:].replace(".", "", 1).isdecimal()
