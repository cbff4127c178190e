"""One batch of deliveries: admitted, claimed, loaded, sent (delivery/sending.py), recorded in one statement."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from bson import ObjectId
from django.conf import settings

from delivery import send_time, telemetry
from delivery import statements as batches
from delivery.batch_spans import Traces, open_spans, traces_of
from delivery.channels.base import Channel, Message, Outcome, Result
from delivery.channels.credentials import is_on
from delivery.channels.receipts import Reference
from delivery.guards.gate import Permit, Refusal
from delivery.lease import Lease, claim
from delivery.outcomes import end_unsent, let_go, patch_for, repeat_is_undecided, repeatable
from delivery.right_of_way import RECORDING, claim_way, give_way_async, in_turn, is_claimed
from delivery.sending import Planned, send_batch
from delivery.statements import Patch
from delivery.stopping import is_stopping
from delivery.vendors import Vendor, open_vendor
from followers import clock
from followers import statements as followers
from followers.choices import Channel as Name
from followers.encryption import UnknownKeyError, decrypt
from followers.mongo import is_passing
from followers.spans import Step, tracer
from notifications import statements as notifications
from notifications.choices import EXITS, DeliveryState, Kind, Priority, Reason
from notifications.rendering import content_of, delivery_key

logger = structlog.get_logger(__name__)
Document = dict[str, Any]

POSTPONE_SECONDS = (1.0, 5.0)
EMPTY_LOOK_SECONDS, EMPTY_LOOK_MAX_SECONDS = 2, 60
"""A batch whose rows are not all stored yet is looked at again after so long, doubling."""


async def deliver_batch(batch_id: ObjectId) -> None:
    """Sends one batch. Whatever happens, its rows end in a true state or wake up again."""
    head, must_wait = await asyncio.to_thread(_look, batch_id)
    if head is None or head["token"] is not None:
        return
    vendor = open_vendor(head["channel"])
    if vendor is None and not is_on(Name(head["channel"]), settings):
        await asyncio.to_thread(_skip, batch_id)
        return
    if vendor is None or is_stopping():
        # A worker that stops leaves its batches to the others at once.
        wait = 0.0 if is_stopping() else random.uniform(*POSTPONE_SECONDS)
        await _postpone(batch_id, clock.now() + timedelta(seconds=wait))
        return
    async with vendor.gate.batch():
        admitted = await vendor.gate.admit(head["priority"], head["size"])
        if isinstance(admitted, Refusal):
            logger.debug("A batch waits.", channel=head["channel"], reason=admitted.reason)
            await _postpone(batch_id, datetime.fromtimestamp(admitted.until, UTC))
            return
        if must_wait:
            await give_way_async(head["priority"])
        began_ns = time.time_ns()
        taken = await asyncio.to_thread(_take, batch_id, vendor.channel)
        if taken is None:
            await vendor.gate.probes_unused(admitted.probes or 0)
            return
        structlog.contextvars.bind_contextvars(correlation_id=taken.lease.batch["correlation_id"])
        await _deliver(taken, vendor, admitted, began_ns)


def _look(batch_id: ObjectId) -> tuple[Document | None, bool]:
    """What must be known before the claim, and whether a critical alert goes first; all in one visit to a thread."""
    head = batches.batch_head(batch_id)
    if head is None:
        return None, False
    claim_way(head["priority"])
    return head, is_claimed(head["priority"])


async def _postpone(batch_id: ObjectId, until: datetime) -> None:
    """Refused before the claim: no row is touched, and no attempt spent."""
    await asyncio.to_thread(batches.postpone, batch_id, until)


def _skip(batch_id: ObjectId) -> None:
    """The channel lost its credentials since the fan-out: what it was to send is skipped."""
    lease = claim(batch_id, settings.LEASE_SECONDS)
    if lease is not None:
        rows, is_whole = load_rows(lease.batch)
        held = [(row, batches.delivery_in(row, batch_id)) for row in rows]
        patches = [end_unsent(row, delivery, DeliveryState.SKIPPED, Reason.CHANNEL_OFF) for row, delivery in held]
        _record(lease, rows, patches, is_whole)


@dataclass(frozen=True, slots=True)
class Taken:
    """A claimed batch, ready to be sent."""

    lease: Lease
    rows: list[Document]
    planned: list[Planned]
    patches: list[Patch]  # Of what came to its end without being sent.
    is_whole: bool  # There will be no more rows of it.
    traces: Traces


def _take(batch_id: ObjectId, channel: Channel) -> Taken | None:
    """Claims a batch and makes it ready, all in one thread. None = there is nothing to send for this worker."""
    lease = claim(batch_id, settings.LEASE_SECONDS)
    if lease is None:
        return None
    structlog.contextvars.bind_contextvars(correlation_id=lease.batch["correlation_id"])
    return make_ready(lease, channel)


def make_ready(lease: Lease, channel: Channel) -> Taken | None:
    """Loads and plans a claimed batch. If that fails nothing was sent: it goes back as it was, and somebody tries
    again."""
    batch = lease.batch
    try:
        rows, is_whole = load_rows(batch)
        planned, patches = plan(batch, rows, channel)
        traces = traces_of(rows)
    except Exception as error:
        if not is_passing(error):
            logger.exception("A batch could not be loaded.", batch=str(batch["_id"]))
        again = clock.now() + timedelta(seconds=random.uniform(*POSTPONE_SECONDS))
        batches.give_back(batch, again, f"{type(error).__name__}: {error}", failed=True)
        return None
    return Taken(lease, rows, planned, patches, is_whole, traces)


async def _deliver(taken: Taken, vendor: Vendor, permit: Permit, began_ns: int | None = None) -> None:
    """Sends and records; `began_ns` is when the claim began, for the trace."""
    with open_spans(Step.DELIVER, taken.lease.batch, taken.rows, taken.traces, began_ns) as spans:
        sent = await send_batch(taken.lease, vendor, taken.planned, permit)
        spans.sent(sent)
        await asyncio.to_thread(_record, taken.lease, taken.rows, [*taken.patches, *sent], taken.is_whole)


def load_rows(batch: Document) -> tuple[list[Document], bool]:
    """The batch's rows, and whether there will be no more of them.

    A batch is stored before the rows that name it. One that finds fewer rows than ids may only be finished once its
    fan-out shard is done, and that must be known *before* the rows are read: otherwise rows that were stored between
    the reading and the knowing would carry a finished batch.
    """
    rows = batches.load(batch)
    if len(rows) == len(batch["ids"]) or batch["shard"] is None:
        return rows, True
    event = notifications.event(batch["event"])
    # Past its validity nothing that is still to be stored would be sent: a shard that failed for good holds up nothing.
    done = event is None or batch["shard"] in event["shards_done"] or clock.as_utc(event["expires_at"]) <= clock.now()
    return batches.load(batch), done


def plan(batch: Document, rows: list[Document], channel: Channel) -> tuple[list[Planned], list[Patch]]:
    """Sorts a batch into what is to be sent and what has come to an end without it."""
    deliveries = {row["_id"]: batches.delivery_in(row, batch["_id"]) for row in rows}
    endpoints = followers.addresses({d["endpoint"] for d in deliveries.values()})
    closed = _closed_events(rows)
    now = clock.now()
    barred = send_time.barred(batch["channel"], _sendable(rows, deliveries, closed, now), now)
    planned, patches = [], []
    for row in rows:
        delivery = deliveries[row["_id"]]
        endpoint = endpoints.get(delivery["endpoint"])
        if delivery["state"] != DeliveryState.QUEUED:
            patches.append(let_go(row))
        elif row["superseded_by"] or row["event_key"] in closed:
            patches.append(end_unsent(row, delivery, DeliveryState.CANCELLED, Reason.SUPERSEDED_BY_EXIT))
        elif clock.as_utc(row["expires_at"]) <= now:
            patches.append(end_unsent(row, delivery, DeliveryState.EXPIRED, Reason.VALIDITY_OVER))
        elif row["_id"] in barred:
            patches.append(barred[row["_id"]])
        elif endpoint is None or not endpoint["active"] or not _belongs_to(endpoint, row):
            patches.append(end_unsent(row, delivery, DeliveryState.SKIPPED, Reason.ENDPOINT_INACTIVE))
        else:
            try:
                message = message_for(row, delivery, endpoint)
            except UnknownKeyError as error:
                logger.exception("An address cannot be decrypted.", endpoint=str(endpoint["_id"]))
                patches.append(_failed(row, delivery, channel, "address_unreadable", str(error)))
            except Exception as error:
                # One alert that cannot be put into words must not hold up the others of its batch.
                logger.exception("An alert could not be rendered.", notification=str(row["_id"]))
                patches.append(_failed(row, delivery, channel, "rendering_failed", f"{type(error).__name__}: {error}"))
            else:
                if repeat_is_undecided(delivery) and not repeatable(channel, message, row, now):
                    patches.append(end_unsent(row, delivery, DeliveryState.UNKNOWN, Reason.NO_ANSWER))
                else:
                    planned.append(Planned(row, delivery, message, endpoint["registered_at"]))
    return planned, patches


def _sendable(
    rows: list[Document], deliveries: dict[ObjectId, Document], closed: set[str], now: datetime
) -> list[tuple[Document, Document]]:
    """What is neither at an end nor about to come to one: only that is counted against a cap."""
    return [
        (row, deliveries[row["_id"]])
        for row in rows
        if deliveries[row["_id"]]["state"] == DeliveryState.QUEUED
        and not row["superseded_by"]
        and row["event_key"] not in closed
        and clock.as_utc(row["expires_at"]) > now
    ]


def _belongs_to(endpoint: Document, row: Document) -> bool:
    """Whether the address is still its recipient's: a device that another person registered leaves the first one."""
    if row["follower_id"] is None:
        return endpoint["trader_id"] == row["trader_id"]
    return endpoint["follower_id"] == row["follower_id"]


def _closed_events(rows: list[Document]) -> set[str]:
    """The ids of those entry events whose position the trader has left since: no entry is sent once its exit is stored.

    The marks on the rows say it too, but a mark can be missing where a fan-out died between its insert and its look.
    """
    entries = {row["event_key"]: row for row in rows if row["action"] not in EXITS and row["kind"] != Kind.UPDATE}
    return {
        key
        for key, row in entries.items()
        if notifications.closing_event_after({**row, "external_id": key}) is not None
    }


def _failed(row: Document, delivery: Document, channel: Channel, code: str, message: str) -> Patch:
    result = Result(Outcome.REFUSED, code=code, message=message[:500])
    return patch_for(row, delivery, result, channel.policy, is_repeatable=False, at=clock.now())


def message_for(row: Document, delivery: Document, endpoint: Document) -> Message:
    """One stored delivery as the channel wants it. Raises UnknownKeyError where the address cannot be decrypted."""
    content = content_of(row)
    return Message(
        key=delivery_key(row["_id"], delivery["endpoint"]),
        address=decrypt(endpoint["address"]),
        title=content.title,
        body=content.body,
        # By it an app says which of its follower's devices an alert has come to (notifications/acks.py).
        data={**content.data, "device_id": str(delivery["endpoint"])},
        critical=row["priority"] == Priority.CRITICAL,
        expires_at=clock.as_utc(row["expires_at"]),
        platform=endpoint["platform"],
        environment=endpoint["environment"],
        app=endpoint["app"],
        endpoint_updated_at=clock.as_utc(endpoint["registered_at"]),
        reference=str(Reference(row["_id"], delivery["endpoint"], delivery["batch"])),
    )


def _record(lease: Lease, rows: list[Document], patches: list[Patch], is_whole: bool) -> None:
    """Writes the outcomes and lets go of the batch."""
    now = clock.now()
    turn = in_turn(RECORDING, lease.batch["priority"], len(patches))
    with tracer().step(Step.RECORD, outcomes=len(patches)), turn:
        written = batches.record(lease.batch["_id"], patches)
    telemetry.recorded(lease.batch, rows, patches, written)
    if is_whole:
        batches.finish(lease.batch, now)
    else:
        wait = min(EMPTY_LOOK_SECONDS * 2 ** lease.batch["failures"], EMPTY_LOOK_MAX_SECONDS)
        batches.give_back(lease.batch, now + timedelta(seconds=wait), failed=True)
