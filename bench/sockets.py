"""Open sockets and one trade to all of them: `python -m bench.sockets [SOCKETS] [TRADES]`.

Two web processes hold SOCKETS sockets, each of another follower; then TRADES trades go to all of them, one after the
other. Prints one JSON object: memory per socket on the server, the p50 and p99 from the trade's execution to its frame
at the client, and how many frames were missing, doubled or somebody else's (each meant to be 0). The client runs on the
same machine, in one process, and takes its share of it.
"""

# ruff: noqa: PLC0415  # Models can be imported only once Django is set up.
from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import time
from collections import Counter
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import uvloop

from bench.socket_client import ListeningSocket
from bench.system import System, percentile, running
from devstack import commands
from devstack.children import Child
from devstack.ports import Ports

TRADER = "T-all"
CONNECTING_AT_ONCE = 100
ARRIVAL_SECONDS = 60


def main() -> None:
    parser = argparse.ArgumentParser(description="One trade to many open sockets.")
    parser.add_argument("sockets", type=int, nargs="?", default=2_000)
    parser.add_argument("trades", type=int, nargs="?", default=5)
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # The web processes inherit it.
    with running({TRADER: {"in_app": arguments.sockets}}, {"FOLLOWER_TOKEN_SECONDS": "3600"}) as system:
        claimed = Ports(["web-0", "web-1"], system.directory / "web-ports.json")
        ports = [claimed["web-0"], claimed["web-1"]]
        webs = [system.children.start(f"web-{port}", commands.web(port)) for port in ports]
        for web, port in zip(webs, ports, strict=True):
            system.children.wait_until(web, commands.answers(port), commands.READY_SECONDS)
        print(json.dumps(uvloop.run(Listeners(ports).measure(system, webs, arguments.trades)), indent=2))  # noqa: T201


class Listeners:
    """A client for each follower, half of them on each web process."""

    def __init__(self, ports: list[int]) -> None:
        from followers.models import Follower
        from notifications.tokens import mint

        self._offers = [
            (ports[number % 2], str(follower.pk), mint(follower))
            for number, follower in enumerate(Follower.objects.all())
        ]
        self._heard: dict[str, list[tuple[bytes, float]]] = {follower: [] for _, follower, _ in self._offers}
        self._arrived = asyncio.Event()
        self._left = 0  # Frames of the present trade that are still to come.

    async def measure(self, system: System, webs: list[Child], trades: int) -> dict[str, Any]:
        before = sum(map(_rss_bytes, webs))
        gate = asyncio.Semaphore(CONNECTING_AT_ONCE)
        async with AsyncExitStack() as stack:
            began = time.monotonic()
            await asyncio.gather(*(self._open(stack, gate, *offer) for offer in self._offers))
            connected_seconds = time.monotonic() - began
            gc.freeze()  # The client's own garbage collection would be measured as latency.
            memory = sum(map(_rss_bytes, webs)) - before
            for number in range(trades):
                self._left = len(self._offers)
                self._arrived.clear()
                await asyncio.to_thread(system.publish, TRADER, orderId=f"O-{number}")
                async with asyncio.timeout(ARRIVAL_SECONDS):
                    await self._arrived.wait()
        return {
            "sockets": len(self._offers),
            "connects_per_second": round(len(self._offers) / connected_seconds),
            "kib_per_socket": round(memory / len(self._offers) / 1024, 1),
            **await asyncio.to_thread(self._judge, trades),
        }

    async def _open(self, stack: AsyncExitStack, gate: asyncio.Semaphore, port: int, follower: str, token: str) -> None:
        heard = self._heard[follower]

        def hear(frame: bytes) -> None:
            at = time.time()
            if b'"notification.created"' in frame:
                heard.append((frame, at))
                self._left -= 1
                if self._left == 0:
                    self._arrived.set()

        async with gate:
            socket = await ListeningSocket.opened(port, token, hear)
            stack.callback(socket.close)
            await socket.has_heard.wait()  # The count: the socket is registered.

    def _judge(self, trades: int) -> dict[str, Any]:
        """Compares what was heard with what is stored for each follower."""
        from followers.mongo import collection
        from notifications.models import InAppEntry

        stored = {str(entry["_id"]): entry for entry in collection(InAppEntry).find({})}
        wrong: Counter[str] = Counter(missing=0, doubled=0, foreign=0)
        milliseconds = []
        for follower, heard in self._heard.items():
            ids = [json.loads(frame)["id"] for frame, _ in heard]
            mine = [oid for oid in set(ids) if str(stored[oid]["follower_id"]) == follower]
            wrong["foreign"] += len(set(ids)) - len(mine)
            wrong["doubled"] += len(ids) - len(set(ids))
            wrong["missing"] += trades - len(mine)
            for oid, (_, at) in zip(ids, heard, strict=True):
                executed: datetime = stored[oid]["executed_at"]
                milliseconds.append(at * 1000 - _epoch_ms(executed))
        milliseconds.sort()
        return {
            "p50_ms": round(percentile(milliseconds, 0.5)),
            "p99_ms": round(percentile(milliseconds, 0.99)),
            **wrong,
        }


def _epoch_ms(stored: datetime) -> float:
    from followers.clock import as_utc

    return as_utc(stored).timestamp() * 1000


def _rss_bytes(child: Child) -> int:
    for line in Path(f"/proc/{child.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ValueError("no VmRSS")


if __name__ == "__main__":
    main()
