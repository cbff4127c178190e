"""One trade, one follower, nothing else to do: from Kafka to the follower's socket, and to the vendor's acceptance."""

# ruff: noqa: PLC0415  # Models can be imported only once Django is set up.
from __future__ import annotations

import argparse
import json
import random
import time
from typing import Any

from websockets.sync.client import connect

from bench.contestants import NOTIFYHUB, Contestant
from bench.measure import cpu_by_session, percentile
from bench.report import Limit, Report, say
from bench.stage import LATENCY_MS, check, free_port, set_up
from devstack import commands

LIMITS = {
    "event to frame: p50 ms": Limit(most=20),
    "event to frame: p99 ms": Limit(most=50),
    "event to accepted: p50 ms": Limit(most=LATENCY_MS + 20),
    "idle CPU, % of a core": Limit(most=10),
}
IDLE_SECONDS = 20
PAUSE_SECONDS = (0.1, 0.2)
FRAME_SECONDS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trades", type=int, default=200)


def run(arguments: argparse.Namespace) -> Report:
    port = free_port()
    system = Contestant("notifyhub", {**NOTIFYHUB.processes, "web": commands.web(port)}, NOTIFYHUB.ready, topic="")
    rounds, notes = [], []
    with set_up({"T-one": 1}, {"FOLLOWER_TOKEN_SECONDS": "3600", **dict(arguments.setting)}) as stage:
        from followers.models import Follower
        from notifications.frames import SUBPROTOCOL
        from notifications.tokens import mint

        token = mint(Follower.objects.get(external_id="F-1"))
        with system.running(stage) as leaders:
            stage.wait(lambda: commands.is_healthy(port), "the web process answers")
            spoken: Any = [SUBPROTOCOL, token]
            with connect(f"ws://127.0.0.1:{port}/ws/inbox/", subprotocols=spoken) as socket:
                for _ in range(10):
                    _one_trade(stage, socket)  # Warm.
                stage.vendor.take()
                for _ in range(arguments.rounds):
                    before = cpu_by_session(leaders)
                    time.sleep(IDLE_SECONDS)
                    idle = {n: 100 * (c - before[n]) / IDLE_SECONDS for n, c in cpu_by_session(leaders).items()}
                    seen = [_one_trade(stage, socket) for _ in range(arguments.trades)]
                    rounds.append(_figures(seen, stage.vendor.take(), sum(idle.values())))
                    notes.append({"idle CPU, % of a core": {name: round(share, 2) for name, share in idle.items()}})
                    say(f"idle_latency: {rounds[-1]} {notes[-1]}")
    return Report("idle_latency", rounds, LIMITS, {"trades": arguments.trades, "rounds": notes})


def _one_trade(stage: Any, socket: Any) -> tuple[str, float, float]:
    """Returns the event, when it was published and when its frame came (epoch seconds)."""
    time.sleep(random.uniform(*PAUSE_SECONDS))
    began = time.time()
    event = stage.publish("T-one")
    while True:
        frame = json.loads(socket.recv(timeout=FRAME_SECONDS))
        if frame["type"] == "notification.created" and frame["payload"]["event_id"] == event:
            return event, began, time.time()


def _figures(seen: list[tuple[str, float, float]], told: dict[str, Any], idle: float) -> dict[str, float]:
    accepted = {event: at for event, _, at in told["accepted"]}
    check(told["duplicates"] == 0 and told["count"] >= len(seen) - 1, f"{told['count']} accepted")
    frames = sorted((framed - began) * 1000 for _, began, framed in seen)
    sends = sorted((accepted[event] - began) * 1000 for event, began, _ in seen if event in accepted)
    return {
        "event to frame: p50 ms": percentile(frames, 0.5),
        "event to frame: p99 ms": percentile(frames, 0.99),
        "event to accepted: p50 ms": percentile(sends, 0.5),
        "event to accepted: p99 ms": percentile(sends, 0.99),
        "idle CPU, % of a core": idle,
    }
