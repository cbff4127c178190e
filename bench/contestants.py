"""NotifyHub and its rivals as processes that can be started, measured and stopped one after the other."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from bench.rivals.work import RIVALS_TOPIC
from bench.stage import Stage
from devstack import commands
from devstack.children import Child
from devstack.commands import has_said

READY_SECONDS = 120
WORKERS = 2


@dataclass(frozen=True, slots=True)
class Contestant:
    """Processes by name, and what those of them say that must be waited for."""

    name: str
    processes: Mapping[str, list[str]]
    ready: Mapping[str, str]
    topic: str = RIVALS_TOPIC

    @contextmanager
    def running(self, stage: Stage) -> Iterator[dict[str, int]]:
        """Yields the session leader of each process."""
        children: dict[str, Child] = {}
        try:
            for name, command in self.processes.items():
                children[name] = stage.children.start(f"{self.name}-{name}", command)
            for name, words in self.ready.items():
                stage.children.wait_until(children[name], has_said(words), READY_SECONDS)
            yield {name: child.pid for name, child in children.items()}
        finally:
            for child in children.values():
                child.process.terminate()
            for child in children.values():
                stage.children.reap(child)


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"bench.rivals.{module}", *arguments]


def _celery(module: str, name: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-m", "celery", "-A", f"bench.rivals.{module}", "worker", "-n", f"{name}@bench"]
    return [*command, "-l", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat", *arguments]


NOTIFYHUB = Contestant(
    "notifyhub",
    {
        "consume_trades": commands.consume_trades(),
        "dispatch_due": commands.dispatch_due(),
        "workers": commands.workers(WORKERS),
        "workers-critical": commands.workers(1, "critical"),
    },
    {"consume_trades": "Partitions assigned.", "dispatch_due": "Dispatching what is due."},
    topic="",
)
LEAN = Contestant(
    "lean",
    {"fan_out": _python("lean", "fan_out")} | {f"deliver-{n}": _python("lean", "deliver") for n in range(WORKERS)},
    {"fan_out": "Ready.", **{f"deliver-{n}": "Ready." for n in range(WORKERS)}},
)
TUNED = Contestant(
    "tuned",
    {"consumer": _python("tuned")}
    | {f"workers-{n}": _celery("tuned", f"tuned-{n}", "--pool", "threads", "-c", "8") for n in range(WORKERS)},
    {"consumer": "Ready."},
)
PLAIN = Contestant(
    "plain", {"consumer": _python("plain"), "workers": _celery("plain", "plain", "-c", "8")}, {"consumer": "Ready."}
)
BARE = Contestant("bare", {"process": _python("bare")}, {"process": "Ready."})
BARE_DELIVER = Contestant(
    "bare_deliver",
    {f"process-{n}": _python("bare_deliver", str(WORKERS)) for n in range(WORKERS)},
    {f"process-{n}": "Ready." for n in range(WORKERS)},
)
CONTESTANTS = {one.name: one for one in (NOTIFYHUB, LEAN, TUNED, PLAIN, BARE)}
