"""What a backlog of normal alerts costs a critical trade: `python -m bench.critical_backlog [BACKLOG] [TRADES]`.

Publishes exits to 100 followers, first on an idle system, then while BACKLOG normal alerts are being worked off, half a
second apart. Prints one JSON object: the exits' p50 and p99 from the trade to the vendor's acceptance in both, their
difference (meant to stay below 250 ms at p99), and how many normal alerts were sent meanwhile: they must not starve.
"""

from __future__ import annotations

import argparse
import json
import time

from bench.system import System, percentile, running

FOLLOWERS = 100
LATENCY_MS = 30
EXIT = {"action": "CLOSE", "side": "SELL", "positionBefore": "50", "positionAfter": "0"}


def main() -> None:
    parser = argparse.ArgumentParser(description="A critical trade's latency under a backlog of normal alerts.")
    parser.add_argument("backlog", type=int, nargs="?", default=100_000)
    parser.add_argument("trades", type=int, nargs="?", default=20)
    arguments = parser.parse_args()
    with running({"T-normal": {"fcm": arguments.backlog}, "T-critical": {"fcm": FOLLOWERS}}, {}) as system:
        system.sandbox.behave("fcm", latency_ms=LATENCY_MS, keep_bodies=False)
        _exits(system, 3)  # Warm.
        idle = _exits(system, arguments.trades)
        backlog = system.publish("T-normal", priority="normal")
        while system.queued(backlog) < min(10_000, arguments.backlog // 2):
            time.sleep(0.2)
        before, began = system.queued(backlog), time.monotonic()
        busy = _exits(system, arguments.trades)
        after, seconds = system.queued(backlog), time.monotonic() - began
    result = {
        "backlog": arguments.backlog,
        "idle_p50_ms": round(percentile(idle, 0.5)),
        "idle_p99_ms": round(percentile(idle, 0.99)),
        "busy_p50_ms": round(percentile(busy, 0.5)),
        "busy_p99_ms": round(percentile(busy, 0.99)),
        "p99_difference_ms": round(percentile(busy, 0.99) - percentile(idle, 0.99)),
        "normal_queued_before": before,
        "normal_queued_after": after,
        "seconds": round(seconds, 1),
    }
    print(json.dumps(result, indent=2))  # noqa: T201


def _exits(system: System, trades: int) -> list[float]:
    """Publishes exits half a second apart; the latencies of all their alerts, sorted."""
    events = []
    for _ in range(trades):
        events.append(system.publish("T-critical", priority="critical", **EXIT))
        time.sleep(0.5)
    found = []
    for event in events:
        system.wait_until_sent(event, FOLLOWERS, "fcm")
        found += system.latencies(event, "fcm")
    return sorted(found)


if __name__ == "__main__":
    main()
