"""Loading the followers, and seeing that the workers are there. Needs Django set up."""

from __future__ import annotations

from pathlib import Path

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from devstack.children import Children
from devstack.commands import MANAGE
from devstack.demo import database, people
from devstack.demo.cast import TRADERS
from devstack.demo.followers import write_followers


def load_followers(directory: Path, count: int, children: Children) -> str:
    """Import the demo's followers unless just they are loaded already; returns what there is to say about it."""
    people_there = f"{count:,} followers of {len(TRADERS)} traders"
    if database.has_followers(directory, count):
        return f"{people_there}, loaded before"
    path = directory / "followers.ndjson"
    lines = write_followers(path, count)
    children.run("import_followers", [*MANAGE, "import_followers", str(path)])
    people.name_people(count)
    people.open_communities()
    database.note_followers(directory, count)
    return f"{people_there}, {lines:,} lines imported"


def worker_processes_since(epoch_seconds: float) -> int:
    """How many worker processes have fetched from the queues since then; each does so under an id of its own."""
    broker = dramatiq.get_broker()
    if not isinstance(broker, RedisBroker):
        raise TypeError("The demo's queues are in Valkey.")
    alive = broker.client.zcount(f"{broker.namespace}:__heartbeats__", int(epoch_seconds * 1000), "+inf")
    return int(alive)
