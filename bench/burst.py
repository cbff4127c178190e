"""Twenty traders with 5,000 followers each trade at once, and critical exits come in between: latency by priority."""

from __future__ import annotations

import argparse
import time

from bench.contestants import NOTIFYHUB
from bench.measure import percentile
from bench.report import Limit, Report, say
from bench.stage import Stage, check, set_up

TRADERS = 20
EXIT_FOLLOWERS, EXIT_PAUSE_SECONDS = 100, 0.5
EXIT = {"action": "CLOSE", "side": "SELL", "positionBefore": "50", "positionAfter": "0"}
SHARE = "normal, % of what is accepted while exits keep coming"
LIMITS = {"critical: p99 ms above idle": Limit(most=250), SHARE: Limit(least=5)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--followers", type=int, default=5_000, help="of each of the twenty traders")
    parser.add_argument("--exits", type=int, default=50, help="critical trades to 100 followers each; 50 are 5 %%")


def run(arguments: argparse.Namespace) -> Report:
    audiences = {f"T-{n}": arguments.followers for n in range(TRADERS)} | {"T-exits": EXIT_FOLLOWERS}
    rounds = []
    with set_up(audiences, dict(arguments.setting)) as stage, NOTIFYHUB.running(stage):
        for _ in range(arguments.rounds):
            stage.clear()
            _settled(stage, _exits(stage, 3), EXIT_FOLLOWERS)  # Warm; and the database is done with what was removed.
            idle = _settled(stage, _exits(stage, arguments.exits), EXIT_FOLLOWERS)
            burst = {}
            for number in range(TRADERS):
                at = time.time()
                burst[stage.publish(f"T-{number}", priority="normal")] = at
            exits = _exits(stage, arguments.exits)
            waiting = _expected(arguments) - stage.vendor.count()
            latencies = _settled(stage, burst | exits, 0, expected=_expected(arguments))
            critical = sorted(late for event, late in latencies if event in exits)
            normal = sorted(late for event, late in latencies if event in burst)
            meanwhile = _while_exits_come(latencies, burst, exits)
            calm = sorted(late for _, late in idle)
            rounds.append({
                "critical, idle: p50 ms": percentile(calm, 0.5),
                "critical, idle: p99 ms": percentile(calm, 0.99),
                "critical: p50 ms": percentile(critical, 0.5),
                "critical: p99 ms": percentile(critical, 0.99),
                "critical: p99 ms above idle": percentile(critical, 0.99) - percentile(calm, 0.99),
                "normal: p50 s": percentile(normal, 0.5) / 1000,
                "normal: p99 s": percentile(normal, 0.99) / 1000,
                "normal accepted while exits keep coming": len(meanwhile),
                SHARE: 100 * len(meanwhile) / (len(meanwhile) + len(critical)),
                "alerts that still waited when the last exit came": waiting,
            })  # fmt: skip
            say(f"burst: {rounds[-1]}")
    return Report("burst", rounds, LIMITS, {"followers": TRADERS * arguments.followers, "exits": arguments.exits})


def _expected(arguments: argparse.Namespace) -> int:
    return int(TRADERS * arguments.followers + arguments.exits * EXIT_FOLLOWERS)


def _exits(stage: Stage, count: int) -> dict[str, float]:
    """Publishes exits; when each was (epoch seconds)."""
    published = {}
    for _ in range(count):
        at = time.time()
        published[stage.publish("T-exits", priority="critical", **EXIT)] = at
        time.sleep(EXIT_PAUSE_SECONDS)
    return published


def _while_exits_come(
    latencies: list[tuple[str, float]], burst: dict[str, float], exits: dict[str, float]
) -> list[float]:
    """When the normal alerts were accepted that were so between the first exit's publication and the last one's last
    alert (epoch seconds)."""
    published = burst | exits
    accepted = [(event, published[event] + late / 1000) for event, late in latencies]
    first, last = min(exits.values()), max(at for event, at in accepted if event in exits)
    return [at for event, at in accepted if event in burst and first <= at <= last]


def _settled(
    stage: Stage, published: dict[str, float], alerts_each: int, expected: int | None = None
) -> list[tuple[str, float]]:
    """Waits for all alerts of these trades. Returns (trade, milliseconds) of each, as the vendor accepted it."""
    due = len(published) * alerts_each if expected is None else expected
    stage.wait_until_all_sent(due)
    told = stage.vendor.take()
    check(told["count"] == due and told["duplicates"] == 0, f"{told['count']} of {due} accepted")
    return [(event, (at - published[event]) * 1000) for event, _, at in told["accepted"]]
