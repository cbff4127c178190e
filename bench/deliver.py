"""Queued notifications sent to a vendor that takes 30 ms, beside a bare aiohttp loop in as many processes."""

# ruff: noqa: PLC0415  # Models can be imported only once Django is set up.
from __future__ import annotations

import argparse
import os
import time

from bench.contestants import BARE_DELIVER, WORKERS, Contestant
from bench.fan_out import FAN_OUT, store_alerts
from bench.measure import cpu_seconds
from bench.report import Limit, Report, say
from bench.rivals.bare_deliver import GO
from bench.stage import Stage, check, set_up, table
from devstack import commands

LIMITS = {"ratio to the bare loop": Limit(least=0.8)}
DELIVER = Contestant("deliver", {"workers": [*commands.workers(WORKERS), "--queues", "deliver_fcm_high"]}, {}, topic="")
WARM_UP = 400


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--notifications", type=int, default=10_000)


def run(arguments: argparse.Namespace) -> Report:
    size = arguments.notifications
    rounds = []
    with set_up({"T-warm": WARM_UP, "T": size}, dict(arguments.setting)) as stage:
        for _ in range(arguments.rounds):
            ours, bare = _deliver(stage, size), _bare(stage, size)
            rounds.append({**ours, **{f"bare loop: {name}": value for name, value in bare.items()},
                           "ratio to the bare loop": ours["deliveries/s"] / bare["deliveries/s"]})  # fmt: skip
            say(f"deliver: {rounds[-1]}")
    return Report("deliver", rounds, LIMITS, {"notifications": size})


def _queue(stage: Stage, trader: str) -> tuple[str, list[dict[str, object]]]:
    """Stored notifications whose hints nobody has seen, and their batches."""
    import redis

    stage.clear()
    with FAN_OUT.running(stage):
        event, _ = store_alerts(stage, trader)
    redis.Redis.from_url(os.environ["DRAMATIQ_BROKER_URL"]).flushdb()
    return event, list(table("delivery_batch").find({"kind": "deliver"}))


def _deliver(stage: Stage, size: int) -> dict[str, float]:
    from delivery.broker import send_hints

    warm, warm_batches = _queue(stage, "T-warm")
    with DELIVER.running(stage) as leaders:
        send_hints(warm_batches)
        stage.wait_until_sent(warm, WARM_UP)
    event, batches = _queue(stage, "T")
    with DELIVER.running(stage) as leaders:
        time.sleep(WARM_UP_SECONDS)
        before, began = cpu_seconds(list(leaders.values())), time.perf_counter()
        send_hints(batches)
        return _figures(stage, event, size, leaders, before, began)


WARM_UP_SECONDS = 5
"""Until workers that say nothing of it are ready."""


def _bare(stage: Stage, size: int) -> dict[str, float]:
    import redis

    event, _ = _queue(stage, "T")
    with BARE_DELIVER.running(stage) as leaders:
        before, began = cpu_seconds(list(leaders.values())), time.perf_counter()
        redis.Redis.from_url(os.environ["DRAMATIQ_BROKER_URL"]).rpush(GO, *(str(n) for n in range(WORKERS)))
        return _figures(stage, event, size, leaders, before, began)


def _figures(
    stage: Stage, event: str, size: int, leaders: dict[str, int], before: float, began: float
) -> dict[str, float]:
    stage.wait_until_sent(event, size)
    seconds = time.perf_counter() - began
    cpu = cpu_seconds(list(leaders.values())) - before
    told = stage.vendor.take()
    check(told["count"] == size and told["duplicates"] == 0, f"{told['count']} sent, {told['duplicates']} twice")
    stage.verify(event, "T")
    return {"deliveries/s": size / seconds, "CPU-s per 1,000": cpu / size * 1000, "connections": told["connections"]}
