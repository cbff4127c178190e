"""What a vendor that never answers costs the other channels: `python -m bench.vendor_hang [ALERTS] [ROUNDS]`.

Each round publishes a trade to ALERTS followers on OneSignal and at once trades to 500 followers on each of FCM and
APNs: once with every vendor at 30 ms, once with OneSignal hanging. Prints one JSON object: the other channels' p99
from the trade to the vendor's acceptance in both, their ratio (meant to stay below 2), and after how many seconds
OneSignal's breaker opened (meant to stay below 10). The runs are paired, so that the machine's drift counts little.
"""

# ruff: noqa: PLC0415  # Models can be imported only once Django is set up.
from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from statistics import median
from typing import Any

from bench.system import System, percentile, running

OTHERS = {"fcm": 500, "apns": 500}
TRADES = 4
LATENCY_MS = 30
SETTINGS = {"VALIDITY_CRYPTO_ENTRY_SECONDS": "30", "BREAKER_PAUSE_SECONDS": "2"}


def main() -> None:
    parser = argparse.ArgumentParser(description="The other channels' latency while one vendor hangs.")
    parser.add_argument("alerts", type=int, nargs="?", default=5_000)
    parser.add_argument("rounds", type=int, nargs="?", default=3)
    arguments = parser.parse_args()
    with running({"T-hung": {"onesignal": arguments.alerts}, "T-others": OTHERS}, SETTINGS) as system:
        for vendor in ("fcm", "apns", "onesignal"):
            system.sandbox.behave(vendor, latency_ms=LATENCY_MS, keep_bodies=False)
        _round(system, arguments.alerts, hang=False)  # Warm.
        rounds = [_pair(system, arguments.alerts) for _ in range(arguments.rounds)]
    print(json.dumps({"alerts": arguments.alerts, "rounds": rounds, **_summary(rounds)}, indent=2))  # noqa: T201


def _pair(system: System, alerts: int) -> dict[str, Any]:
    healthy = _round(system, alerts, hang=False)
    hanging = _round(system, alerts, hang=True)
    return {
        "p99_ms_healthy": healthy["p99_ms"],
        "p99_ms_hanging": hanging["p99_ms"],
        "ratio": round(hanging["p99_ms"] / healthy["p99_ms"], 2),
        "breaker_opened_after_seconds": hanging["opened_after"],
        "hung_ended_as": hanging["hung"],
    }


def _round(system: System, alerts: int, hang: bool) -> dict[str, Any]:
    rules = [{"match": {}, "hang": True}] if hang else []
    system.sandbox.behave("onesignal", latency_ms=LATENCY_MS, keep_bodies=False, rules=rules)
    began = datetime.now(UTC)
    hung = system.publish("T-hung", productType="CRYPTO")
    events = [system.publish("T-others") for _ in range(TRADES)]
    found = []
    for event in events:
        for channel in OTHERS:
            system.wait_until_sent(event, sum(OTHERS.values()), channel)
            found += system.latencies(event, channel)
    system.wait_until_sent(hung, alerts, "onesignal")
    p99 = round(percentile(sorted(found), 0.99))
    result: dict[str, Any] = {"p99_ms": p99, "opened_after": None, "hung": _states(hung)}
    if hang:
        result["opened_after"] = _opened_after(began)
        _recover(system)
    return result


def _states(event: str) -> dict[str, int]:
    from followers.mongo import collection
    from notifications.models import Notification
    from notifications.statements import event_id

    pipeline: list[dict[str, Any]] = [
        {"$match": {"event_id": event_id(event)}},
        {"$unwind": "$deliveries"},
        {"$match": {"deliveries.channel": "onesignal"}},
        {"$group": {"_id": "$deliveries.state", "count": {"$sum": 1}}},
    ]
    return {row["_id"]: row["count"] for row in collection(Notification).aggregate(pipeline)}


def _opened_after(began: datetime) -> float | None:
    from delivery.models import BreakerChange
    from followers.mongo import collection

    query = {"channel": "onesignal", "status_after": "open", "at": {"$gte": began}}
    opened = collection(BreakerChange).find_one(query, sort=[("at", 1)])
    return round((opened["at"].replace(tzinfo=UTC) - began).total_seconds(), 1) if opened else None


def _recover(system: System) -> None:
    """The vendor is well again; the next round begins with a closed breaker."""
    system.sandbox.behave("onesignal", latency_ms=LATENCY_MS, keep_bodies=False)
    event = system.publish("T-hung")
    while system.queued(event, "onesignal"):
        time.sleep(0.2)


def _summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "ratio_median": median(r["ratio"] for r in rounds),
        "breaker_opened_after_seconds_max": max(r["breaker_opened_after_seconds"] for r in rounds),
    }


if __name__ == "__main__":
    main()
