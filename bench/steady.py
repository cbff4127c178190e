"""A market day's even load: so many trades a second, spread over many traders with few followers each."""

from __future__ import annotations

import argparse
import time

from bench.contestants import NOTIFYHUB
from bench.measure import cpu_seconds, percentile
from bench.report import Report, say
from bench.stage import Stage, check, set_up

TRADERS, FOLLOWERS = 1_000, 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--per-second", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=60)


def run(arguments: argparse.Namespace) -> Report:
    audiences = {f"T-{n}": FOLLOWERS for n in range(TRADERS)}
    rounds = []
    with set_up(audiences, dict(arguments.setting)) as stage, NOTIFYHUB.running(stage) as leaders:
        warm = _trades(stage, arguments.per_second, 1)
        stage.wait_until_all_sent(len(warm) * FOLLOWERS)
        for _ in range(arguments.rounds):
            stage.clear()
            before = cpu_seconds(list(leaders.values()))
            published = _trades(stage, arguments.per_second, arguments.seconds)
            alerts = len(published) * FOLLOWERS
            backlog = alerts - stage.vendor.count()
            stage.wait_until_all_sent(alerts)
            cpu = cpu_seconds(list(leaders.values())) - before
            told = stage.vendor.take()
            check(told["count"] == alerts and told["duplicates"] == 0, f"{told['count']} of {alerts} accepted")
            late = sorted((at - published[event]) * 1000 for event, _, at in told["accepted"])
            rounds.append({
                "p50 ms": percentile(late, 0.5),
                "p99 ms": percentile(late, 0.99),
                "max ms": late[-1],
                "alerts not accepted at the end": backlog,
                "CPU-s per 1,000": cpu / alerts * 1000,
            })  # fmt: skip
            say(f"steady: {rounds[-1]}")
    return Report("steady", rounds, {}, {"per second": arguments.per_second, "seconds": arguments.seconds})


def _trades(stage: Stage, per_second: int, seconds: int) -> dict[str, float]:
    """Publishes at an even pace. Returns when each trade was published (epoch seconds)."""
    published, began = {}, time.time()
    for number in range(per_second * seconds):
        time.sleep(max(0.0, began + number / per_second - time.time()))
        at = time.time()
        published[stage.publish(f"T-{number % TRADERS}")] = at
    return published
