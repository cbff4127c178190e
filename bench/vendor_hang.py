"""A vendor that never answers, with thousands of alerts for it: what it costs the other channels, and its breaker."""

# ruff: noqa: PLC0415  # Models can be imported only once Django is set up.
from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from bench.contestants import NOTIFYHUB
from bench.measure import percentile
from bench.report import Limit, Report, say
from bench.stage import LATENCY_MS, Stage, check, set_up, table
from devstack.vendors.client import Sandbox
from devstack.vendors.process import VendorProcess

OTHERS = ("fcm", "apns")
OF_EACH = 500
TRADES = 4
SETTINGS = {"VALIDITY_CRYPTO_ENTRY_SECONDS": "30", "BREAKER_PAUSE_SECONDS": "2"}
LIMITS = {"others, hanging / healthy: p99": Limit(most=2), "breaker opened after s": Limit(most=10)}
ALERTS, CHANGES = "notifications_notification", "delivery_breakerchange"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--alerts", type=int, default=5_000, help="for the vendor that hangs")


def run(arguments: argparse.Namespace) -> Report:
    """Each round is a pair, so that the machine's drift counts little: the same trades with every vendor at 30 ms, and
    with OneSignal hanging."""
    alerts, rounds, ends = arguments.alerts, [], []

    def endpoints(number: int) -> list[dict[str, str]]:
        if number <= alerts:
            return [{"channel": "onesignal", "address": f"00000000-0000-4000-8000-{number:012x}"}]
        if number % 2:
            return [{"channel": "fcm", "address": f"fcm-token-{number:0140x}", "platform": "android"}]
        return [{"channel": "apns", "address": f"{number:064x}", "platform": "ios"}]

    audiences = {"T-hung": alerts, "T-others": OF_EACH * len(OTHERS)}
    with _sandbox() as vendors:
        settings = {**vendors.env, **SETTINGS, **dict(arguments.setting)}
        with set_up(audiences, settings, endpoints) as stage, NOTIFYHUB.running(stage):
            _trades(stage, vendors.sandbox, hang=False)  # Warm.
            for _ in range(arguments.rounds):
                healthy, retried, _ = _trades(stage, vendors.sandbox, hang=False)
                began = datetime.now(UTC)
                hanging, retried_too, hung = _trades(stage, vendors.sandbox, hang=True)
                ends.append(_ends(hung, alerts))
                rounds.append({
                    "others, healthy: p99 ms": healthy,
                    "others, hanging: p99 ms": hanging,
                    "others, hanging / healthy: p99": hanging / healthy,
                    "others, healthy: attempts repeated": retried,
                    "others, hanging: attempts repeated": retried_too,
                    "breaker opened after s": _opened_after(began),
                })  # fmt: skip
                say(f"vendor_hang: {rounds[-1]}")
                _recover(stage, vendors.sandbox)
    return Report("vendor_hang", rounds, LIMITS, {"alerts": alerts, "how the hung ones ended": ends})


@contextmanager
def _sandbox() -> Iterator[VendorProcess]:
    """All vendors; the stage's own one knows FCM alone, and always answers."""
    with tempfile.TemporaryDirectory(prefix="notifyhub-bench-") as directory, VendorProcess(directory) as vendors:
        for vendor in OTHERS:
            vendors.sandbox.behave(vendor, latency_ms=LATENCY_MS, keep_bodies=False)
        yield vendors


def _trades(stage: Stage, sandbox: Sandbox, hang: bool) -> tuple[float, int, str]:
    """A trade for OneSignal and at once some for the other channels. Returns the p99 of these from the trade to the
    vendor's acceptance, in milliseconds; how many attempts it took beyond one each, as a retry alone takes ten
    seconds; and the first trade's event id, once all of its alerts have ended."""
    sandbox.behave(
        "onesignal", latency_ms=LATENCY_MS, keep_bodies=False, rules=[{"match": {}, "hang": True}] if hang else []
    )
    hung = stage.publish("T-hung", productType="CRYPTO")
    found: list[tuple[float, int]] = []
    for event in [stage.publish("T-others") for _ in range(TRADES)]:
        _wait_until_ended(stage, event, "T-others")
        stage.verify(event, "T-others")
        found += _latencies(event)
    _wait_until_ended(stage, hung, "T-hung")
    return percentile(sorted(late for late, _ in found), 0.99), sum(repeats for _, repeats in found), hung


def _wait_until_ended(stage: Stage, event: str, trader: str) -> None:
    ended = {**_of(event), "state": {"$ne": "pending"}}
    due = stage.audiences[trader]
    stage.wait(lambda: table(ALERTS).count_documents(ended) == due, f"{due} alerts at an end", 0.2)


def _of(event: str) -> dict[str, Any]:
    from notifications.statements import event_id

    return {"event_id": event_id(event)}


def _latencies(event: str) -> Iterator[tuple[float, int]]:
    """Milliseconds to the acceptance, and the attempts before it, of each alert on the other channels."""
    for row in table(ALERTS).find(_of(event), {"executed_at": 1, "deliveries": 1}):
        for delivery in row["deliveries"]:
            if delivery["channel"] in OTHERS:
                seconds = (delivery["sent_at"] - row["executed_at"]).total_seconds()
                yield seconds * 1_000, len(delivery["attempt_log"]) - 1


def _ends(event: str, alerts: int) -> dict[str, int]:
    """How the hung deliveries ended: never sent and expired, or perhaps accepted and in review."""
    ends: Counter[str] = Counter()
    for row in table(ALERTS).find(_of(event), {"deliveries": 1, "review": 1}):
        (delivery,) = (one for one in row["deliveries"] if one["channel"] == "onesignal")
        is_open = bool(row["review"] and row["review"]["open"])
        ends[delivery["state"] + (", in review" if is_open else "")] += 1
    check(set(ends) <= {"expired", "unknown, in review"} and ends.total() == alerts, f"the hung alerts ended as {ends}")
    return dict(ends)


def _opened_after(began: datetime) -> float:
    query = {"channel": "onesignal", "status_after": "open", "at": {"$gte": began}}
    opened: dict[str, Any] | None = table(CHANGES).find_one(query, sort=[("at", 1)])
    check(opened is not None, "the breaker has opened")
    return (opened or {})["at"].replace(tzinfo=UTC).timestamp() - began.timestamp()


def _recover(stage: Stage, sandbox: Sandbox) -> None:
    """The vendor is well again; the next round begins with a closed breaker."""
    sandbox.behave("onesignal", latency_ms=LATENCY_MS, keep_bodies=False)
    _wait_until_ended(stage, stage.publish("T-hung"), "T-hung")
