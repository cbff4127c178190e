"""One batch of deliveries: claimed, loaded, sent concurrently, recorded in one statement."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from bson import ObjectId
from django.conf import settings

from delivery import statements as batches
from delivery.channels.base import Channel, Message, Outcome, Result
from delivery.lease import Lease, LeaseLostError, claim
from delivery.outcomes import end_without_attempt, never_started, patch_for
from delivery.statements import Patch
from delivery.vendors import Vendor, open_vendor
from followers import clock
from followers import statements as followers
from followers.encryption import UnknownKeyError, decrypt
from notifications import statements as notifications
from notifications.choices import EXITS, DeliveryState, Priority, Reason
from notifications.rendering import delivery_key, trade_content

logger = structlog.get_logger(__name__)
Document = dict[str, Any]

POSTPONE_SECONDS = (1.0, 5.0)
EMPTY_LOOK_SECONDS = 2
"""A batch whose rows are not all stored yet is looked at again after so long."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A delivery that is to be sent."""

    row: Document
    delivery: Document
    message: Message
    registered_at: Any  # The endpoint's, naive UTC as stored: a later registration outlives a dead answer.


async def deliver_batch(batch_id: ObjectId) -> None:
    """Sends one batch. Whatever happens, its rows end in a true state or wake up again."""
    head = await asyncio.to_thread(batches.batch_head, batch_id)
    if head is None or head["token"] is not None:
        return
    vendor = open_vendor(head["channel"])
    if vendor is None:
        await asyncio.to_thread(_skip, batch_id)
        return
    if not vendor.bulkhead.admits:
        wait = timedelta(seconds=random.uniform(*POSTPONE_SECONDS))
        await asyncio.to_thread(batches.postpone, batch_id, clock.now() + wait)
        return
    async with vendor.bulkhead.batch():
        lease = await asyncio.to_thread(claim, batch_id, settings.LEASE_SECONDS)
        if lease is not None:
            structlog.contextvars.bind_contextvars(correlation_id=lease.batch["correlation_id"])
            await _deliver(lease, vendor)


def _skip(batch_id: ObjectId) -> None:
    """The channel lost its credentials since the fan-out: what it was to send is skipped."""
    lease = claim(batch_id, settings.LEASE_SECONDS)
    if lease is not None:
        rows, is_whole = load_rows(lease.batch)
        patches = [end_without_attempt(row["_id"], DeliveryState.SKIPPED, Reason.CHANNEL_OFF) for row in rows]
        _record(lease, patches, is_whole)


async def _deliver(lease: Lease, vendor: Vendor) -> None:
    batch = lease.batch
    try:
        rows, is_whole = await asyncio.to_thread(load_rows, batch)
        planned, patches = await asyncio.to_thread(plan, batch, rows, vendor.channel)
    except Exception as error:
        # Nothing was sent: the batch goes back as it was, and somebody tries again.
        logger.exception("A batch could not be loaded.", batch=str(batch["_id"]))
        again = clock.now() + timedelta(seconds=random.uniform(*POSTPONE_SECONDS))
        await asyncio.to_thread(batches.give_back, batch, again, f"{type(error).__name__}: {error}", True)
        return
    patches += await _send_all(lease, vendor, planned)
    await asyncio.to_thread(_record, lease, patches, is_whole)


def load_rows(batch: Document) -> tuple[list[Document], bool]:
    """The batch's rows, and whether there will be no more of them.

    A batch is stored before the rows that name it. One that finds fewer rows than ids may only be finished once its
    fan-out shard is done, and that must be known *before* the rows are read: otherwise rows that were stored between
    the reading and the knowing would carry a finished batch.
    """
    rows = batches.load(batch)
    if len(rows) == len(batch["ids"]) or batch["shard"] is None:
        return rows, True
    done = notifications.is_shard_done(batch["event"], batch["shard"])
    return batches.load(batch), done


def plan(batch: Document, rows: list[Document], channel: Channel) -> tuple[list[Planned], list[Patch]]:
    """Sorts a batch into what is to be sent and what has come to an end without it."""
    deliveries = {row["_id"]: batches.delivery_in(row, batch["_id"]) for row in rows}
    endpoints = followers.addresses({d["endpoint"] for d in deliveries.values()})
    closed = _closed_since_fan_out(batch, rows)
    now = clock.now()
    planned, patches = [], []
    for row in rows:
        delivery = deliveries[row["_id"]]
        endpoint = endpoints.get(delivery["endpoint"])
        if row["superseded_by"] or closed:
            patches.append(end_without_attempt(row["_id"], DeliveryState.CANCELLED, Reason.SUPERSEDED_BY_EXIT))
        elif clock.as_utc(row["expires_at"]) <= now:
            patches.append(end_without_attempt(row["_id"], DeliveryState.EXPIRED, Reason.VALIDITY_OVER))
        elif endpoint is None or not endpoint["active"]:
            patches.append(end_without_attempt(row["_id"], DeliveryState.SKIPPED, Reason.ENDPOINT_INACTIVE))
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
                planned.append(Planned(row, delivery, message, endpoint["registered_at"]))
    return planned, patches


def _closed_since_fan_out(batch: Document, rows: list[Document]) -> bool:
    """Whether the trader has left the position: no entry is sent once its exit is stored.

    The rows of a fan-out batch share their event. Rows that were batched anew carry their mark themselves.
    """
    if batch["event"] is None or not rows or rows[0]["action"] in EXITS:
        return False
    return notifications.closing_event_after({**rows[0], "external_id": rows[0]["event_key"]}) is not None


def _failed(row: Document, delivery: Document, channel: Channel, code: str, message: str) -> Patch:
    result = Result(Outcome.REFUSED, code=code, message=message[:500])
    return patch_for(row, delivery, result, channel.policy, repeatable=False, at=clock.now())


def message_for(row: Document, delivery: Document, endpoint: Document) -> Message:
    """One stored delivery as the channel wants it. Raises UnknownKeyError where the address cannot be decrypted."""
    content = trade_content(row)
    return Message(
        key=delivery_key(row["_id"], delivery["endpoint"]),
        address=decrypt(endpoint["address"]),
        title=content.title,
        body=content.body,
        data=content.data,
        critical=row["priority"] == Priority.CRITICAL,
        expires_at=clock.as_utc(row["expires_at"]),
        platform=endpoint["platform"],
        environment=endpoint["environment"],
        app=endpoint["app"],
        endpoint_updated_at=clock.as_utc(endpoint["registered_at"]),
    )


async def _send_all(lease: Lease, vendor: Vendor, planned: list[Planned]) -> list[Patch]:
    """Sends concurrently while the lease is kept alive. One patch per delivery."""
    keeper = asyncio.create_task(_keep(lease))
    try:
        return list(await asyncio.gather(*(_send(lease, vendor, item) for item in planned)))
    finally:
        keeper.cancel()


async def _keep(lease: Lease) -> None:
    """Renews the lease every third of it until it is cancelled or lost."""
    while True:
        await asyncio.sleep(lease.seconds / 3)
        try:
            await asyncio.to_thread(lease.renew)
        except LeaseLostError as error:
            logger.warning("A batch was taken over by another worker.", batch=str(lease.batch["_id"]), error=str(error))
            return
        except Exception:
            # Not renewed: `lease.covers` lets nothing start that could outlive it.
            logger.exception("A lease could not be renewed.", batch=str(lease.batch["_id"]))


async def _send(lease: Lease, vendor: Vendor, item: Planned) -> Patch:
    channel = vendor.channel
    async with vendor.bulkhead.slot():
        at = clock.now()
        # No send starts that could outlive its lease: after a pause of this process somebody else may hold the row.
        if not lease.covers(channel.policy.timeout_seconds):
            return never_started(item.row, at)
        try:
            result = await channel.send(item.message, at)
        except Exception as error:
            logger.exception("A channel failed in itself.", channel=channel.name, notification=str(item.row["_id"]))
            result = Result(Outcome.UNKNOWN, code="internal_error", message=type(error).__name__)
    if result.outcome is Outcome.DEAD:
        endpoint = item.delivery["endpoint"]
        await asyncio.to_thread(followers.deactivate_endpoint, endpoint, item.registered_at, result.code, clock.now())
    return patch_for(item.row, item.delivery, result, channel.policy, _repeatable(channel, item, at), at)


def _repeatable(channel: Channel, item: Planned, at: Any) -> bool:
    """Whether a repeat would still fall into the time for which the vendor remembers the key."""
    if not channel.keyed(item.message):
        return False
    window = channel.key_window_seconds
    return window is None or (at - clock.as_utc(item.row["created_at"])).total_seconds() < window / 2


def _record(lease: Lease, patches: list[Patch], is_whole: bool) -> None:
    """Writes the outcomes and lets go of the batch."""
    now = clock.now()
    batches.record(lease.batch["_id"], patches)
    if is_whole:
        batches.finish(lease.batch, now)
    else:
        batches.give_back(lease.batch, now + timedelta(seconds=EMPTY_LOOK_SECONDS))
