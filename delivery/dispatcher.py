"""Wakes whatever is due: the one scheduler of the project.

Two sweeps, over batches by `next_look_at` and over rows by `wake_at`, critical first. Any number of dispatchers may run
side by side: every change is a compare-and-set or a transaction.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from bson import ObjectId
from django.conf import settings
from pymongo.errors import PyMongoError

from delivery import endings
from delivery import statements as batches
from delivery.batch_spans import open_spans, traces_of
from delivery.broker import BROKER_ERRORS, queue_depths, queue_of, send_hints
from delivery.choices import KEYED_CHANNELS, PRIORITY_SHARES, BatchKind
from delivery.fan_out import fail_shard
from delivery.lease import Lease, claim, take_over
from delivery.shares import shared
from delivery.statements import Naming
from delivery.sweeps import NOTED_EVERY_SECONDS, note_sweep
from followers import clock
from followers import statements as followers
from followers.choices import Channel
from followers.encryption import UnknownKeyError, decrypt
from followers.mongo import is_passing
from followers.outage import MONGODB, QUEUE
from followers.spans import Step
from notifications.choices import DeliveryState, Reason
from notifications.telemetry import LAST_SWEEP

logger = structlog.get_logger(__name__)
Document = dict[str, Any]

HINT_DELAYS_SECONDS = (5, 10, 20, 40, 60)
"""How long a batch waits for its next hint, by the hints it had."""

QUEUE_AWAY_SECONDS = 5
QUEUE_LONG_SECONDS = 20
"""A batch whose queue holds HINTS_MAX is looked at again after so long; that many take the workers longer."""


@dataclass(slots=True)
class Sweep:
    """What one pass over the due work did."""

    hinted: int = 0
    taken_over: int = 0
    rebatched: int = 0
    expired: int = 0
    waiting: int = 0

    def __bool__(self) -> bool:
        return any(asdict(self).values())

    @property
    def is_full(self) -> bool:
        """Whether there is likely more to do at once."""
        return self.hinted + self.taken_over + self.rebatched + self.expired >= max(1, settings.DISPATCH_SWEEP // 10)


def run(stop: threading.Event) -> None:
    """Sweeps every DISPATCH_INTERVAL_SECONDS, at once again where there was much to do, until `stop` is set.

    A failure is reported once, not at every sweep, and the sweeps go on.
    """
    failing = False
    noted_at = float("-inf")
    while not stop.is_set():
        try:
            sweep = sweep_once(clock.now())
            LAST_SWEEP.set_to_current_time()
            if time.monotonic() - noted_at >= NOTED_EVERY_SECONDS:
                note_sweep(clock.now())
                noted_at = time.monotonic()
        except Exception as error:
            if is_passing(error):
                MONGODB.away(error)
            elif not failing:
                logger.exception("A sweep failed; it is repeated until it succeeds.", error=f"{type(error).__name__}")
                failing = True
            stop.wait(settings.DISPATCH_INTERVAL_SECONDS)
            continue
        if failing:
            logger.info("Sweeps succeed again.")
            failing = False
        if sweep:
            logger.info("Swept.", **asdict(sweep))
        if not sweep.is_full:
            stop.wait(settings.DISPATCH_INTERVAL_SECONDS)


def sweep_once(now: datetime) -> Sweep:
    """One pass: batches first, as they hold most of the work, then rows. It is as long however much is waiting."""
    sweep = Sweep()
    most = settings.DISPATCH_SWEEP
    due = {priority: batches.count_due_batches(priority, now, most) for priority in PRIORITY_SHARES}
    for priority, limit in shared(most, due, PRIORITY_SHARES).items():
        _look_at(batches.due_batches(priority, now, limit) if limit else [], now, sweep)
    due = {priority: batches.count_due_rows(priority, now, most) for priority in PRIORITY_SHARES}
    for priority, limit in shared(most, due, PRIORITY_SHARES).items():
        with _alone("Due rows could not be woken.", priority=priority):
            _wake_rows(batches.due_rows(priority, now, limit) if limit else [], priority, now, sweep)
    return sweep


@contextmanager
def _alone(line: str, **context: str) -> Iterator[None]:
    """One thing that cannot be dealt with must not hold up all that comes after it; an absent database does."""
    try:
        yield
    except PyMongoError:
        raise
    except Exception:
        logger.exception(line, **context)


# --- Batches ----------------------------------------------------------------------------------------------------------
def _look_at(found: list[Document], now: datetime, sweep: Sweep) -> None:
    with _alone("Batches could not be hinted."):
        _hint_again([batch for batch in found if batch["token"] is None], now, sweep)
    for batch in found:
        if batch["token"] is not None:
            with _alone("A batch could not be taken over.", batch=str(batch["_id"])):
                _take_over(batch, now, sweep)


def _take_over(batch: Document, now: datetime, sweep: Sweep) -> None:
    lease = take_over(batch, settings.LEASE_SECONDS)
    if lease is None:
        return
    sweep.taken_over += 1
    if batch["kind"] == BatchKind.FAN_OUT:
        logger.warning(
            "A worker died in a fan-out shard; it is run again.", batch=str(batch["_id"]), shard=batch["shard"]
        )
        fail_shard(lease.batch, f"The lease of {batch['worker']} ran out.")
        return
    settle_orphans(lease, batch["worker"], now)


def _hint_again(waiting: list[Document], now: datetime, sweep: Sweep) -> None:
    """Batches that nobody claimed get the same hint again, later and later; none while their queue is long.

    It is always the same id: a backlog longer than any grace then only makes hints superfluous, never void. What waits
    behind a long queue costs one statement a sweep, whatever its number.
    """
    by_queue: dict[str, list[Document]] = defaultdict(list)
    for batch in waiting:
        by_queue[queue_of(batch)].append(batch)
    depths = _depths(list(by_queue))
    for queue, unclaimed in by_queue.items():
        if depths is None:
            batches.put_off_hints(_ids(unclaimed), now + timedelta(seconds=QUEUE_AWAY_SECONDS))
            continue
        room = max(0, settings.HINTS_MAX + 1 - depths[queue])
        batches.put_off_hints(_ids(unclaimed[room:]), now + timedelta(seconds=QUEUE_LONG_SECONDS))
        reserved = batches.note_hints(_ids(unclaimed[:room]), now, HINT_DELAYS_SECONDS)
        missed = send_hints([batch for batch in unclaimed if batch["_id"] in reserved])
        batches.take_back_hints(missed, now + timedelta(seconds=QUEUE_AWAY_SECONDS))
        sweep.hinted += len(reserved) - len(missed)


def _ids(found: list[Document]) -> list[ObjectId]:
    return [batch["_id"] for batch in found]


def _depths(queues: list[str]) -> dict[str, int] | None:
    """Hints waiting in the queues that are about to get some; None while the queue is away, and then none are sent."""
    if not queues:
        return {}
    try:
        depths = queue_depths(queues)
    except BROKER_ERRORS as error:
        QUEUE.away(error)
        return None
    QUEUE.back()
    return depths


def settle_orphans(lease: Lease, dead_worker: str, now: datetime) -> None:
    """What a dead worker held: sent again under the same key where there is one, unknown where there is none.

    Past its validity nothing is sent again, so it is unknown on every channel.
    """
    batch = lease.batch
    endings.end_rows(batch, DeliveryState.UNKNOWN, Reason.CRASHED_IN_SEND, only_expired_by=now)
    rows = [
        row
        for row in batches.load(batch)
        if batches.delivery_in(row, batch["_id"])["state"] == DeliveryState.QUEUED  # The rest a receipt has ended.
    ]
    repeatable = _repeatable_rows(batch, rows)
    with open_spans(Step.TAKE_OVER, batch, rows, traces_of(rows)):
        endings.requeue_rows(batch, repeatable, now, settings.CHANNEL_POLICIES[batch["channel"]].max_attempts)
        endings.end_rows(batch, DeliveryState.UNKNOWN, Reason.CRASHED_IN_SEND)
    logger.warning(
        "A worker died with a batch in hand.",
        batch=str(batch["_id"]),
        channel=batch["channel"],
        worker=dead_worker,
        sent_again=len(repeatable),
        unknown=len(rows) - len(repeatable),
    )
    batches.finish(batch, now)


def _repeatable_rows(batch: Document, rows: list[Document]) -> list[Document]:
    if not settings.CHANNEL_POLICIES[batch["channel"]].resend_in_doubt:
        return []
    if batch["channel"] in KEYED_CHANNELS:
        return rows
    if batch["channel"] != Channel.DISCORD:
        return []
    # Discord's direct messages carry a nonce, its webhooks nothing. Whether the nonce is still remembered when the
    # repeat is due, is asked before it is sent.
    endpoints = [batches.delivery_in(row, batch["_id"])["endpoint"] for row in rows]
    addresses = followers.addresses(set(endpoints))
    found = zip(rows, endpoints, strict=True)
    return [row for row, endpoint in found if _is_direct_message(addresses.get(endpoint))]


def _is_direct_message(endpoint: Document | None) -> bool:
    """Whether a Discord address is a user's id, not a webhook's URL. One that cannot be read is taken for a webhook."""
    try:
        return endpoint is not None and decrypt(endpoint["address"]).isdigit()
    except UnknownKeyError:
        return False


# --- Rows -------------------------------------------------------------------------------------------------------------
def _wake_rows(rows: list[Document], priority: str, now: datetime, sweep: Sweep) -> None:
    expired = [row for row in rows if clock.as_utc(row["expires_at"]) <= now]
    if expired:
        sweep.expired += endings.expire_free_rows(expired, now)
        _expire_in_batches(expired, now, sweep)
    due = [row for row in rows if clock.as_utc(row["expires_at"]) > now]
    if due:
        _rebatch(due, priority, now, sweep)


def _expire_in_batches(rows: list[Document], now: datetime, sweep: Sweep) -> None:
    """Rows past their validity that are in a batch: what nobody can be sending expires, the rest waits."""
    held: dict[ObjectId, list[ObjectId]] = defaultdict(list)
    for row in rows:
        for delivery in row["deliveries"]:
            if delivery["state"] == DeliveryState.QUEUED and delivery["batch"] is not None:
                held[delivery["batch"]].append(row["_id"])
    found = batches.batches_by_id(list(held))
    for batch_id, ids in held.items():
        batch = found.get(batch_id)
        if batch is None or batch["finished_at"] is not None:
            # Never loaded, or the batch would not have been finished while they carried it: certainly not sent.
            sweep.expired += endings.end_rows(
                {"_id": batch_id, "ids": ids}, DeliveryState.EXPIRED, Reason.VALIDITY_OVER, only_expired_by=now
            )
        elif batch["token"] is None:
            sweep.expired += _expire_unclaimed(batch, now)
        else:
            # Being sent, or its worker is dead: the sweep over batches takes it over when its lease runs out.
            until = max(clock.as_utc(batch["lease_until"]), now) + timedelta(seconds=1)
            batches.wait_for_batch(batch_id, ids, until)
            sweep.waiting += len(ids)


def _expire_unclaimed(batch: Document, now: datetime) -> int:
    """Claims a batch so that nobody sends it meanwhile, and lets its expired rows expire."""
    lease = claim(batch["_id"], settings.LEASE_SECONDS)
    if lease is None:
        return 0
    expired = endings.end_rows(lease.batch, DeliveryState.EXPIRED, Reason.VALIDITY_OVER, only_expired_by=now)
    # What is still valid in it, or is yet to be stored, goes on as before.
    batches.give_back(lease.batch, now)
    return expired


def _rebatch(rows: list[Document], priority: str, now: datetime, sweep: Sweep) -> None:
    """Puts due deliveries without a batch into new ones."""
    made: list[Document] = []
    namings: list[Naming] = []
    open_batches: dict[tuple[str, int, int], Document] = {}
    for row in rows:
        used: dict[str, int] = defaultdict(int)
        for delivery in row["deliveries"]:
            if not _is_due(delivery, now):
                continue
            channel, limit = delivery["channel"], _batch_limit(delivery)
            lane = (channel, used[channel], limit)  # Suspects never travel with the others.
            used[channel] += 1
            batch = open_batches.get(lane)
            if batch is None or len(batch["ids"]) >= limit:
                batch = open_batches[lane] = batches.delivery_batch(channel, priority, [], now)
                made.append(batch)
            batch["ids"].append(row["_id"])
            namings.append(Naming(row["_id"], delivery["endpoint"], batch["_id"]))
    if not made:
        return
    batches.name_batches(made, namings, now)
    send_hints(made)
    sweep.rebatched += len(namings)


def _batch_limit(delivery: Document) -> int:
    """How many may share the delivery's next batch.

    One of those that a worker died with may have been the cause: they travel in small batches, and alone after the
    second time, so that the culprit is found and the others get through.
    """
    if delivery["error_code"] != Reason.LEASE_LOST:
        return batches.batch_size(delivery["channel"])
    return 1 if delivery["attempts"] > 1 else min(settings.UNKEYED_BATCH, settings.DELIVERY_BATCH)


def _is_due(delivery: Document, now: datetime) -> bool:
    return (
        delivery["state"] == DeliveryState.QUEUED
        and delivery["batch"] is None
        and clock.as_utc(delivery["next_attempt_at"]) <= now
    )
