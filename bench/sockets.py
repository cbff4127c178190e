"""Open sockets on two web processes, each of another follower, and trades to all of them: from trade to frame."""

# ruff: noqa: PLC0415  # Models can be imported only once Django is set up.
from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC
from pathlib import Path
from typing import Any

import uvloop

from bench.contestants import NOTIFYHUB, Contestant
from bench.measure import percentile
from bench.report import Limit, Report, say
from bench.socket_client import ListeningSocket
from bench.stage import Stage, check, free_port, set_up, table
from devstack import commands

TRADER = "T-all"
CONNECTING_AT_ONCE = 100
ARRIVAL_SECONDS = 60
MOST_MS = 2_000
"""At 10,000 sockets, with the client of all of them on the same machine."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sockets", type=int, default=10_000)


def run(arguments: argparse.Namespace) -> Report:
    """Each round is a trade; the sockets stay open."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # The web processes inherit it.
    ports = {"web-0": free_port(), "web-1": free_port()}
    webs = {name: commands.web(port) for name, port in ports.items()}
    system = Contestant("notifyhub", {**NOTIFYHUB.processes, **webs}, NOTIFYHUB.ready, topic="")
    settings = {"FOLLOWER_TOKEN_SECONDS": "3600", **dict(arguments.setting)}
    with set_up({TRADER: arguments.sockets}, settings, _no_device) as stage, system.running(stage) as leaders:
        stage.wait(lambda: all(map(commands.is_healthy, ports.values())), "the web processes answer")
        listeners = Listeners(list(ports.values()))
        rounds = uvloop.run(listeners.measure(stage, [leaders[name] for name in ports], arguments.rounds))
    limits = {"event to frame: p99 ms": Limit(most=MOST_MS)}
    return Report("sockets", rounds, limits, {"sockets": arguments.sockets, **listeners.notes})


def _no_device(number: int) -> list[dict[str, str]]:
    """Their alerts are in their inboxes alone."""
    return []


class Listeners:
    """A client for each follower, half of them on each web process."""

    def __init__(self, ports: list[int]) -> None:
        from followers.models import Follower
        from notifications.tokens import mint

        self.notes: dict[str, Any] = {}
        self._offers = [
            (ports[number % len(ports)], str(follower.pk), mint(follower))
            for number, follower in enumerate(Follower.objects.all())
        ]
        self._heard: dict[str, list[tuple[bytes, float]]] = {}
        self._arrived = asyncio.Event()
        self._left = 0  # Frames of the present trade that are still to come.

    async def measure(self, stage: Stage, webs: list[int], trades: int) -> list[Mapping[str, float]]:
        """One round of figures for each trade. Raises AssertionError if a frame is missing, doubled or somebody else's,
        and TimeoutError if one does not come."""
        rounds = []
        before = sum(map(_rss_bytes, webs))
        gate = asyncio.Semaphore(CONNECTING_AT_ONCE)
        async with AsyncExitStack() as stack:
            began = time.monotonic()
            await asyncio.gather(*(self._open(stack, gate, *offer) for offer in self._offers))
            count = len(self._offers)
            self.notes["connects per second"] = round(count / (time.monotonic() - began))
            self.notes["KiB per socket"] = round((sum(map(_rss_bytes, webs)) - before) / count / 1024, 1)
            gc.freeze()  # The client's own garbage collection would be measured as latency.
            for number in range(trades + 1):
                self._heard = {follower: [] for _, follower, _ in self._offers}
                self._left = count
                self._arrived.clear()
                event = await asyncio.to_thread(stage.publish, TRADER)
                async with asyncio.timeout(ARRIVAL_SECONDS):
                    await self._arrived.wait()
                figures = await asyncio.to_thread(self._judge, event)
                say(f"sockets: {figures}")
                if number:  # The first one finds everything cold.
                    rounds.append(figures)
        return rounds

    async def _open(self, stack: AsyncExitStack, gate: asyncio.Semaphore, port: int, follower: str, token: str) -> None:
        def hear(frame: bytes) -> None:
            at = time.time()
            if b'"notification.created"' in frame:
                self._heard[follower].append((frame, at))
                self._left -= 1
                if self._left == 0:
                    self._arrived.set()

        async with gate:
            socket = await ListeningSocket.opened(port, token, hear)
            stack.callback(socket.close)
            await socket.has_heard.wait()  # The count: the socket is registered.

    def _judge(self, event: str) -> Mapping[str, float]:
        """Compares what was heard with what is stored for each follower."""
        stored = {
            str(entry["follower_id"]): entry for entry in table("notifications_inappentry").find({"event_key": event})
        }
        wrong, milliseconds = [], []
        for follower, heard in self._heard.items():
            entry = stored[follower]
            if [json.loads(frame)["id"] for frame, _ in heard] != [str(entry["_id"])]:
                wrong.append(follower)
                continue
            executed = entry["executed_at"].replace(tzinfo=UTC).timestamp()
            milliseconds.append((heard[0][1] - executed) * 1_000)
        check(not wrong, f"frames missing, doubled or somebody else's for {len(wrong)} followers, such as {wrong[:3]}")
        milliseconds.sort()
        return {
            "event to frame: p50 ms": percentile(milliseconds, 0.5),
            "event to frame: p99 ms": percentile(milliseconds, 0.99),
            "event to frame: max ms": milliseconds[-1],
        }


def _rss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ValueError("no VmRSS")
