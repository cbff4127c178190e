"""From a trade on Kafka to the last of its alerts accepted and recorded: NotifyHub beside its rivals, in turns."""

from __future__ import annotations

import argparse
import time
from typing import Any

from bench.contestants import CONTESTANTS, Contestant
from bench.measure import cpu_by_session, peak_rss_mib, percentile, reset_peaks
from bench.report import Limit, Report, say
from bench.stage import Stage, check, set_up

WARM_UP = 400
PAUSE_SECONDS = 3
"""What a process still loads after its start is none of the trade's cost."""
RATIOS = {"notifyhub / plain": ("notifyhub", "plain"), "notifyhub / tuned": ("notifyhub", "tuned"),
          "notifyhub / lean": ("notifyhub", "lean"), "tuned / bare": ("tuned", "bare"),
          "plain / bare": ("plain", "bare")}  # fmt: skip
LIMITS = {
    "notifyhub / plain: alerts/s": Limit(least=20),
    "notifyhub / plain: CPU": Limit(most=1 / 20),
    "notifyhub / tuned: alerts/s": Limit(least=1.2),
    "notifyhub / tuned: CPU": Limit(most=1),
    "notifyhub / lean: alerts/s": Limit(least=0.7),
    # No weak yardsticks: otherwise the run is void.
    "tuned / bare: alerts/s": Limit(least=0.7),
    "plain / bare: alerts/s": Limit(least=0.04),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--followers", type=int, default=10_000)
    parser.add_argument(
        "--plain-followers", type=int, help="a smaller audience for the slowest one; its rate is the same"
    )
    parser.add_argument("--systems", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))


def run(arguments: argparse.Namespace) -> Report:
    sizes = dict.fromkeys(arguments.systems, arguments.followers)
    if "plain" in sizes and arguments.plain_followers:
        sizes["plain"] = arguments.plain_followers
    audiences = {"T-warm": WARM_UP, **{f"T-{size}": size for size in sizes.values()}}
    rounds, notes = [], []
    with set_up(audiences, dict(arguments.setting)) as stage:
        for number in range(arguments.rounds):
            found, noted = {}, {}
            for name, size in _in_turn(sizes, number):
                found[name], noted[name] = one_run(stage, CONTESTANTS[name], f"T-{size}", size)
                say(f"{name}: {found[name]['alerts/s']:,.0f} alerts/s, {noted[name]}")
            rounds.append(_figures({name: found[name] for name in sizes}))
            notes.append(noted)
    return Report("end_to_end", rounds, LIMITS, {"followers": sizes, "rounds": notes})


def _in_turn(sizes: dict[str, int], number: int) -> list[tuple[str, int]]:
    """Another one begins each round: none always has the machine as its predecessor left it."""
    systems = list(sizes.items())
    first = number % len(systems)
    return systems[first:] + systems[:first]


def one_run(stage: Stage, contestant: Contestant, trader: str, alerts: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures of one trade through a contestant, and what its processes and the servers used meanwhile."""
    stage.clear()
    with contestant.running(stage) as leaders:
        warm = stage.publish("T-warm", topic=contestant.topic)
        stage.wait_until_sent(warm, WARM_UP)
        time.sleep(PAUSE_SECONDS)
        stage.clear()
        everybody = {**leaders, **stage.servers}
        reset_peaks(list(leaders.values()))
        before, began = cpu_by_session(everybody), time.time()
        event = stage.publish(trader, topic=contestant.topic)
        stage.wait_until_sent(event, alerts)
        seconds = time.time() - began
        used = {name: cpu - before[name] for name, cpu in cpu_by_session(everybody).items()}
        memory = peak_rss_mib(leaders)
    told = stage.vendor.take()
    check(told["duplicates"] == told["refused"] == 0, f"duplicates {told['duplicates']}, refused {told['refused']}")
    check(told["count"] == alerts, f"{told['count']} of {alerts} alerts accepted")
    stage.verify(event, trader)
    accepted = sorted(at for key, _, at in told["accepted"] if key == event)
    figures = {
        "alerts/s": alerts / seconds,
        "s": seconds,
        "CPU-s per 1,000": sum(used[name] for name in leaders) / alerts * 1000,
        "CPU-s per 1,000, servers": sum(used[name] for name in stage.servers) / alerts * 1000,
        "p50 s": percentile(accepted, 0.5) - began,
        "p99 s": percentile(accepted, 0.99) - began,
        "max s": accepted[-1] - began,
        "first to last s": accepted[-1] - accepted[0],
    }
    per_thousand = {name: round(cpu / alerts * 1000, 4) for name, cpu in used.items()}
    return figures, {"CPU-s per 1,000": per_thousand, "peak RSS MiB": memory, "connections": told["connections"]}


def _figures(found: dict[str, dict[str, float]]) -> dict[str, float]:
    figures = {f"{name}: {figure}": value for name, one in found.items() for figure, value in one.items()}
    for title, (one, other) in RATIOS.items():
        if one in found and other in found:
            figures[f"{title}: alerts/s"] = found[one]["alerts/s"] / found[other]["alerts/s"]
            figures[f"{title}: CPU"] = found[one]["CPU-s per 1,000"] / found[other]["CPU-s per 1,000"]
    return figures
