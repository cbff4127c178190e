"""What is under way just now: the figures by which a fault shows that it hit work. Needs Django set up."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from typing import Any, cast

import dramatiq
from django.conf import settings
from dramatiq.brokers.redis import RedisBroker
from kafka import KafkaAdminClient

from delivery.kafka import connection_options
from delivery.models import Batch
from devstack.chaos.load import Accepted
from devstack.chaos.system import VENDORS
from devstack.vendors.client import Sandbox
from followers import clock
from followers.mongo import collection
from notifications.models import Notification, TradeEvent
from notifications.statements import event_id

CLAIMED: dict[str, Any] = {"token": {"$ne": None}, "finished_at": None}


def sends(sandbox: Sandbox) -> int:
    """Requests that a vendor has taken and not answered yet."""
    return sum(sandbox.stats(vendor)["in_flight"] for vendor in VENDORS)


def worker_name(pid: int) -> str:
    """How a worker process signs what it claims."""
    return f"{socket.gethostname()}:{pid}"


def busiest_worker(pids: Iterable[int]) -> int | None:
    """Of these processes the one that holds most; None while none holds anything."""
    pid_of = {worker_name(pid): pid for pid in pids}
    groups = collection(Batch).aggregate(
        [
            {"$match": {**CLAIMED, "worker": {"$in": list(pid_of)}}},
            {"$group": {"_id": "$worker", "held": {"$sum": {"$size": "$ids"}}}},
            {"$sort": {"held": -1}},
            {"$limit": 1},
        ]
    )
    return next((pid_of[group["_id"]] for group in groups), None)


def held_by(pid: int) -> int:
    """Deliveries in the hands of a worker process, and shards that it was fanning out."""
    batches = list(collection(Batch).find({**CLAIMED, "worker": worker_name(pid)}, {"ids": 1, "kind": 1}))
    rows = sum(
        collection(Notification).count_documents({"_id": {"$in": b["ids"]}, "deliveries.batch": b["_id"]})
        for b in batches
    )
    return rows + sum(1 for batch in batches if batch["kind"] == "fan_out")


def due() -> int:
    """Batches and alerts that `dispatch_due` should look at by now."""
    past = {"$lte": clock.now(), "$type": "date"}
    return collection(Batch).count_documents({"next_look_at": past}) + collection(Notification).count_documents(
        {"wake_at": past}
    )


def hints() -> int:
    """Hints in the queues, and those that a worker has fetched and not yet finished."""
    broker = cast(RedisBroker, dramatiq.get_broker())
    client = broker.client
    count = 0
    for key in client.scan_iter(f"{broker.namespace}:*"):
        if b":wake:" in key:
            continue
        match client.type(key):
            case b"list":
                count += client.llen(key)
            case b"set":
                count += client.scard(key)
    return count


def stored_and_uncommitted(accepted: Iterable[Accepted]) -> int:
    """Of these trades those that are taken in and would be handed out again by Kafka."""
    admin = KafkaAdminClient(**connection_options())
    try:
        offsets = admin.list_group_offsets({settings.KAFKA_GROUP_ID: None})[settings.KAFKA_GROUP_ID]
    finally:
        admin.close()
    committed = {place.partition: offset.offset for place, offset in offsets.items()}
    again = [event_id(trade.event_id) for trade in accepted if trade.offset >= committed.get(trade.partition, 0)]
    return collection(TradeEvent).count_documents({"_id": {"$in": again}})


def forked_by(pid: int) -> list[int]:
    """The children of a process, by /proc."""
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        try:
            with open(f"/proc/{entry.name}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
                parent = int(file.read().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # It ended since the folder was listed.
        if parent == pid:
            found.append(int(entry.name))
    return found
