"""One trade's alerts stored by two worker processes, beside a bare loop that inserts the same documents."""

# ruff: noqa: PLC0415  # Models can be imported only once Django is set up.
from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from bench.contestants import WORKERS, Contestant
from bench.measure import cpu_seconds, peak_rss_mib
from bench.report import Limit, Report, say
from bench.stage import Stage, set_up, table
from devstack import commands

CHUNK = 2_000
LIMITS = {"ratio to the bare loop": Limit(least=0.7), "seconds against a tenth of the followers": Limit(most=10.5)}
FAN_OUT = Contestant(
    "fan_out", {"workers": [*commands.workers(WORKERS), "--queues", "fan_out_high", "--threads", "2"]}, {}, topic=""
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--followers", type=int, default=100_000)


def run(arguments: argparse.Namespace) -> Report:
    sizes = (max(1, arguments.followers // 10), arguments.followers)
    audiences = {"T-warm": 400, **{f"T-{size}": size for size in sizes}}
    rounds, memory = [], []
    with set_up(audiences, dict(arguments.setting)) as stage, FAN_OUT.running(stage) as leaders:
        store_alerts(stage, "T-warm")
        for _ in range(arguments.rounds):
            tenth, _ = _timed(stage, leaders, sizes[0])
            seconds, cpu = _timed(stage, leaders, sizes[1])
            bare = _bare_seconds(sizes[1])
            rounds.append({
                "alerts/s": sizes[1] / seconds,
                "CPU-s per 1,000": cpu / sizes[1] * 1000,
                "bare loop: alerts/s": sizes[1] / bare,
                "ratio to the bare loop": bare / seconds,
                "seconds against a tenth of the followers": seconds / tenth,
            })  # fmt: skip
            memory.append(peak_rss_mib(leaders)["workers"])
            say(f"fan_out: {rounds[-1]}")
    return Report("fan_out", rounds, LIMITS, {"followers": sizes[1], "peak RSS MiB of the workers": memory})


def store_alerts(stage: Stage, trader: str) -> tuple[str, float]:
    """Has a trade fanned out; nothing is sent, as nobody serves the deliver queues. Returns its id, and the seconds."""
    from delivery.broker import send_hints
    from delivery.intake import take_in
    from delivery.intake_documents import IncomingMessage

    event, message = stage.trade(trader)
    began = time.perf_counter()
    taken = take_in([IncomingMessage("bench", 0, 0, trader.encode(), json.dumps(message).encode())], datetime.now(UTC))
    send_hints(taken.batches)
    events = table("notifications_tradeevent")
    stage.wait(lambda: events.count_documents({"external_id": event, "state": "done"}) == 1, "fanned out", 0.01)
    return event, time.perf_counter() - began


def _timed(stage: Stage, leaders: dict[str, int], size: int) -> tuple[float, float]:
    stage.clear()
    before = cpu_seconds(list(leaders.values()))
    event, seconds = store_alerts(stage, f"T-{size}")
    cpu = cpu_seconds(list(leaders.values())) - before
    stage.verify(event, f"T-{size}", state="pending", sent=False)
    return seconds, cpu


def _bare_seconds(size: int) -> float:
    """How long the inserts of the same documents take, in the same batches and order and with the same durability."""
    names = ("delivery_batch", "notifications_notification", "notifications_inappentry")
    stored = {name: list(table(name).find({"kind": {"$ne": "fan_out"}})) for name in names}
    for name in names:
        table(name).delete_many({})
    began = time.perf_counter()
    for name in names:
        for chunk in _chunks(stored[name]):
            table(name).insert_many(chunk, ordered=False)
    return time.perf_counter() - began


def _chunks(documents: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(documents), CHUNK):
        yield documents[start : start + CHUNK]
