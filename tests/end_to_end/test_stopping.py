"""SIGTERM: what a process has in hand comes to its end or goes back, and a restart picks it up at once."""

from __future__ import annotations

import re
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from delivery.broker import queue_of
from delivery.models import Batch
from devstack.stack import Stack
from devstack.vendors.client import Sandbox
from followers import clock
from followers.mongo import collection
from notifications import tokens
from notifications.frames import SUBPROTOCOL
from notifications.models import Notification
from tests.delivery.kafka_topics import until
from tests.end_to_end.processes import Processes, free_port, wait_until
from tests.end_to_end.test_end_to_end import all_settled, audience
from tests.pipeline import world
from tests.web.private_redis import PrivateRedis

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
Document = dict[str, Any]
GRACE_SECONDS = 30
PATIENT = {"LEASE_SECONDS": "60", "FCM_TIMEOUT_SECONDS": "10", "SMS_TIMEOUT_SECONDS": "10"}
"""A lease that nobody waits for: whoever had to would fail the test."""


def terminate(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(GRACE_SECONDS)


def logged(processes: Processes, name: str) -> str:
    return "".join(log.read_text(errors="replace") for log in sorted(processes.directory.glob(f"{name}-*.log")))


def due_now() -> None:
    """dispatch_due hints what waits at its next look, not after the grace of a first hint that was sent elsewhere."""
    waiting = {"token": None, "finished_at": None, "next_look_at": {"$ne": None}}
    collection(Batch).update_many(waiting, {"$set": {"next_look_at": clock.now()}})


def claimed() -> list[Document]:
    return list(collection(Batch).find({"token": {"$ne": None}, "finished_at": None}))


def deliveries(event: Document, channel: str) -> list[Document]:
    return [d for row in world.alerts(event) for d in row["deliveries"] if d["channel"] == channel]


def outcomes_logged(event: Document) -> set[str]:
    return {entry["code"] for row in world.alerts(event) for d in row["deliveries"] for entry in d["attempt_log"]}


def nobody_died(processes: Processes) -> bool:
    return not re.search("taken over|worker died", logged(processes, "dispatch_due") + logged(processes, "rundramatiq"))


def test_a_worker_with_sends_in_flight_and_batches_waiting_loses_and_repeats_nothing(
    processes: Processes, vendors: Sandbox, stack: Stack
) -> None:
    # Given a slow vendor, a few hundred sends in flight, as many waiting for a slot, and batches that nobody claimed.
    trader = world.make_trader()
    audience(trader, 1_200, channels=("fcm",))
    vendors.behave("fcm", latency_ms=2_500)
    event = world.trade(trader)
    world.fan_out(event)
    due_now()
    processes.env |= PATIENT | {"FCM_CONCURRENCY": "150"}
    dispatcher = processes.manage("dispatch_due")
    worker = processes.workers(threads=2)
    until(lambda: vendors.stats("fcm")["in_flight"] >= 150)
    assert terminate(dispatcher) == 0  # So that what is in the queue stays there to be looked at.

    # When the worker is told to stop.
    assert terminate(worker) == 0

    # Then what was in flight is sent, the rest is free, and the hints that it had taken are back in the queue.
    accepted = vendors.stats("fcm")["accepted"]
    assert accepted >= 150
    states = Counter(d["state"] for d in deliveries(event, "fcm"))
    assert states == {"sent": accepted, "queued": 600 - accepted}
    assert states["queued"] > 0
    assert claimed() == []
    waiting = world.unclaimed()
    assert waiting
    client: Any = redis.Redis.from_url(stack.env["DRAMATIQ_BROKER_URL"])
    namespace = processes.env["QUEUE_NAMESPACE"]
    queue = f"{namespace}:{queue_of(waiting[0])}"
    back = {client.hget(f"{queue}.msgs", hint) for hint in client.lrange(queue, 0, -1)}
    hinted = {str(b["_id"]) for b in waiting if b["hints"]}
    assert hinted
    assert hinted <= {dramatiq.Message.decode(message).args[0] for message in back if message}
    assert list(client.scan_iter(f"{namespace}:__acks__*")) == []

    # And the next worker goes on with it: nobody waits for a lease.
    vendors.behave_well("fcm")
    processes.manage("dispatch_due")
    processes.workers(threads=2)
    wait_until(collection(Notification), all_settled(1_200), "everything sent after the restart")
    assert Counter(d["state"] for d in deliveries(event, "fcm")) == {"sent": 600}
    stats = vendors.stats("fcm")
    assert (stats["accepted"], stats["duplicates"], stats["repeats_under_key"]) == (600, 0, 0)
    assert "lease_lost" not in outcomes_logged(event)
    assert nobody_died(processes)


def test_a_worker_whose_vendor_hangs_still_ends_and_records_what_it_knows(
    processes: Processes, vendors: Sandbox
) -> None:
    trader = world.make_trader()
    audience(trader, 400, channels=("fcm", "sms"))
    for vendor in ("fcm", "twilio"):
        vendors.behave(vendor, rules=[{"hang": True}])
    event = world.trade(trader)
    world.fan_out(event)
    due_now()
    processes.env |= PATIENT | {
        **{f"{channel}_TIMEOUT_SECONDS": "5" for channel in ("FCM", "SMS")},
        **{f"{channel}_SLOW_SECONDS": "5" for channel in ("FCM", "SMS")},
        "FCM_CONCURRENCY": "50",
        "SMS_CONCURRENCY": "10",
    }
    processes.manage("dispatch_due")
    worker = processes.workers(threads=4)
    until(lambda: vendors.stats("fcm")["in_flight"] >= 50 and vendors.stats("twilio")["in_flight"] >= 10)

    assert terminate(worker) == 0

    assert claimed() == []
    fcm, sms = deliveries(event, "fcm"), deliveries(event, "sms")
    assert {d["state"] for d in fcm} == {"queued"}  # Sent again under the same tag, later.
    assert sum(d["attempts"] for d in fcm) >= 50
    states = Counter(d["state"] for d in sms)
    assert states["unknown"] == vendors.stats("twilio")["requests"]  # In flight, without an answer: the truth.
    assert states["queued"] == len(sms) - states["unknown"] > 0
    assert all(d["attempts"] == 0 for d in sms if d["state"] == "queued")
    assert outcomes_logged(event) == {"timeout"}
    assert nobody_died(processes)


def test_a_grace_that_is_too_short_cuts_off_and_says_so_in_the_record(processes: Processes, vendors: Sandbox) -> None:
    trader = world.make_trader()
    audience(trader, 60, channels=("fcm", "sms"))
    for vendor in ("fcm", "twilio"):
        vendors.behave(vendor, rules=[{"hang": True}])
    event = world.trade(trader)
    world.fan_out(event)
    due_now()
    processes.env |= PATIENT
    processes.manage("dispatch_due")
    worker = processes.manage("rundramatiq", "--processes", "1", "--threads", "4", "--worker-shutdown-timeout", "1000")
    until(lambda: vendors.stats("fcm")["in_flight"] == 20 and vendors.stats("twilio")["in_flight"] > 0)

    assert terminate(worker) == 0

    assert claimed() == []
    assert {d["state"] for d in deliveries(event, "fcm")} == {"queued"}
    states = Counter(d["state"] for d in deliveries(event, "sms"))
    assert states["unknown"] == vendors.stats("twilio")["requests"]
    assert not outcomes_logged(event) & {"timeout", "lease_lost"}


def test_a_fan_out_under_way_goes_to_the_next_worker_at_once(processes: Processes, vendors: Sandbox) -> None:
    size = 1_800  # One shard.
    trader = world.make_trader()
    audience(trader, size, channels=("fcm",))
    event = world.trade(trader)
    (shard,) = world.take_in_trades(event)
    due_now()
    processes.env |= PATIENT | {"FAN_OUT_CHUNK": "10"}
    processes.manage("dispatch_due")
    worker = processes.workers(threads=1)
    rows = collection(Notification)
    wait_until(rows, lambda: rows.count_documents({}) > 0, "the fan-out is under way")

    assert terminate(worker) == 0

    left = world.batch(shard["_id"])
    written = rows.count_documents({})
    assert 0 < written < size, "It was to be stopped in mid-fan-out."
    assert written % 10 == 0  # The chunk in hand was finished.
    assert (left["token"], left["finished_at"], left["failures"]) == (None, None, 1)
    processes.env["FAN_OUT_CHUNK"] = "2000"
    processes.workers(threads=1)
    wait_until(rows, all_settled(size), "fanned out after the restart")
    assert world.batch(shard["_id"])["failures"] == 1
    assert nobody_died(processes)


def test_a_worker_whose_queue_is_away_still_ends(processes: Processes, vendors: Sandbox, tmp_path: Path) -> None:
    private = PrivateRedis(tmp_path)
    private.start()
    trader = world.make_trader()
    audience(trader, 12, channels=("fcm",))
    vendors.behave("fcm", latency_ms=1_000)
    event = world.trade(trader)
    world.fan_out(event)
    due_now()
    processes.env |= PATIENT | {"DRAMATIQ_BROKER_URL": private.url, "SHUTDOWN_GRACE_SECONDS": "5"}
    processes.manage("dispatch_due")
    worker = processes.workers(threads=2)
    try:
        until(lambda: vendors.stats("fcm")["in_flight"] > 0)
    finally:
        private.stop()

    assert terminate(worker) == 0
    assert {d["state"] for d in deliveries(event, "fcm")} == {"sent"}


def test_dispatch_due_ends_while_mongodb_is_away(processes: Processes, stack: Stack) -> None:
    dispatcher = processes.manage("dispatch_due")
    until(lambda: "Dispatching what is due." in logged(processes, "dispatch_due"))
    stack.mongodb.kill()
    try:
        until(lambda: "MongoDB is away" in logged(processes, "dispatch_due"))
        assert terminate(dispatcher) == 0
    finally:
        stack.mongodb.start()
    assert "Traceback" not in logged(processes, "dispatch_due")


def test_a_web_process_with_an_open_socket_ends(processes: Processes) -> None:
    port = free_port()
    web = processes.web(port)
    until(lambda: "Uvicorn running" in logged(processes, "web"))
    follower = world.make_follower(world.make_trader())
    token = tokens.mint(follower)
    address = f"ws://127.0.0.1:{port}/ws/inbox/"
    with connect(address, subprotocols=[Subprotocol(SUBPROTOCOL), Subprotocol(token)]) as socket:
        assert "unread_count" in str(socket.recv(timeout=20))

        ended = terminate(web)

    assert ended in {0, -signal.SIGTERM}  # uvicorn ends in order, and then by the signal that it was sent.
    assert "Finished server process" in logged(processes, "web")
    assert "Traceback" not in logged(processes, "web")
