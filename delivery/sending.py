"""The sends of one claimed batch: concurrent, within the lease and what the channel's gate allows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import structlog

from delivery.channels.base import Channel, Message, Outcome, Result
from delivery.guards.gate import Permit
from delivery.guards.waves import WAVE_REASON, WAVE_SECONDS
from delivery.lease import Lease, LeaseLostError
from delivery.outcomes import never_started, patch_for, repeatable, waiting
from delivery.statements import Patch
from delivery.stopping import is_stopping
from delivery.vendors import Vendor
from followers import clock
from followers import statements as followers
from followers.mongo import is_passing

logger = structlog.get_logger(__name__)
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Planned:
    """A delivery that is to be sent."""

    row: Document
    delivery: Document
    message: Message
    registered_at: Any  # The endpoint's, naive UTC as stored: a later registration outlives a dead answer.


@dataclass(frozen=True, slots=True)
class Sent:
    """An attempt and its answer."""

    item: Planned
    result: Result
    at: datetime
    breaker: str  # Its state when the send started.


async def send_batch(lease: Lease, vendor: Vendor, planned: list[Planned], permit: Permit) -> list[Patch]:
    """Sends concurrently while the lease is kept alive. One patch per delivery.

    While the breaker is half open the first few go ahead as probes; what they find decides about the rest.
    """
    probes = 0 if permit.probes is None else min(permit.probes, len(planned))
    if permit.probes is not None:
        await vendor.gate.probes_unused(permit.probes - probes)
    keeper = asyncio.create_task(_keep(lease))
    try:
        first = await _send_all(lease, vendor, planned[:probes], permit, is_probe=True)
        ended = first + await _send_all(lease, vendor, planned[probes:], permit, is_probe=False)
        sent = await _judged(vendor, [one for one in ended if isinstance(one, Sent)])
    finally:
        keeper.cancel()
    return [one for one in ended if isinstance(one, Patch)] + [_patch(vendor, one) for one in sent]


async def _send_all(
    lease: Lease, vendor: Vendor, planned: Sequence[Planned], permit: Permit, is_probe: bool
) -> list[Sent | Patch]:
    sends = (_send(lease, vendor, item, permit, index, is_probe) for index, item in enumerate(planned))
    ended = await asyncio.gather(*sends, return_exceptions=True)
    return [
        _broken(item, one) if isinstance(one, BaseException) else one for item, one in zip(planned, ended, strict=True)
    ]


def _broken(item: Planned, error: BaseException) -> Sent:
    """A fault of ours must not take the outcomes of the whole batch with it."""
    logger.error("A delivery failed in itself.", notification=str(item.row["_id"]), exc_info=error)
    result = Result(Outcome.UNKNOWN, code="internal_error", message=type(error).__name__)
    return Sent(item, result, clock.now(), "")


async def _keep(lease: Lease) -> None:
    """Renews the lease every third of it until it is cancelled or lost."""
    while True:
        await asyncio.sleep(lease.seconds / 3)
        try:
            await asyncio.to_thread(lease.renew)
        except LeaseLostError as error:
            logger.warning("A batch was taken over by another worker.", batch=str(lease.batch["_id"]), error=str(error))
            return
        except Exception as error:
            # Not renewed: `lease.covers` lets nothing start that could outlive it.
            if not is_passing(error):
                logger.exception("A lease could not be renewed.", batch=str(lease.batch["_id"]))


async def _send(
    lease: Lease, vendor: Vendor, item: Planned, permit: Permit, index: int, is_probe: bool
) -> Sent | Patch:
    """One send, or the patch of a delivery that goes back unsent and waits."""
    gate, channel, endpoint = vendor.gate, vendor.channel, str(item.delivery["endpoint"])
    await permit.wait_for_turn(index)
    async with gate.slots.slot(item.row["priority"]) as has_slot:
        at = clock.now()
        until = gate.stopped_until(endpoint, is_probe)
        # No send starts that could outlive its lease: after a pause of this process somebody else may hold the row.
        can_start = has_slot and not is_stopping() and lease.covers(channel.policy.timeout_seconds)
        if until is not None or not can_start:
            if is_probe:
                await gate.probes_unused(1)
            return never_started(item.row, at) if until is None else waiting(item.row, until)
        breaker, call, result = gate.status.value, gate.calls.begin(), None
        try:
            result = await channel.send(item.message, at)
        finally:
            went_well = gate.calls.end(call, result)
    await _tell_gate(vendor, item, result, went_well, is_probe)
    return Sent(item, result, at, breaker)


async def _tell_gate(vendor: Vendor, item: Planned, result: Result, went_well: bool, is_probe: bool) -> None:
    """What the answer says about the vendor. A fault in here must not cost the answer itself."""
    try:
        vendor.gate.note(str(item.delivery["endpoint"]), result)
        if is_probe:
            # What has opened the breaker must not close it.
            await vendor.gate.probed(went_well and not (vendor.gate.state.is_wave and _is_suspect(vendor, result)))
    except Exception:
        logger.exception("An answer could not be counted.", channel=vendor.channel.name)


async def _judged(vendor: Vendor, sent: list[Sent]) -> list[Sent]:
    """What the answers of a batch say together: of our set-up, and of its addresses. Returns them as they count.

    Many addresses refused alike without one success are no dead addresses but a mistake in our set-up: they are
    kept, and the breaker opens. One bad payload or a wrong topic would otherwise deactivate everybody.
    """
    suspects = [one for one in sent if _is_suspect(vendor, one.result)]
    successes = sum(1 for one in sent if one.result.outcome is Outcome.SENT)
    is_wave = vendor.gate.wave.is_one(len(suspects), successes, vendor.gate.state.is_wave)
    if is_wave:
        kept = {id(one) for one in suspects}
        sent = [
            replace(one, result=replace(one.result, outcome=Outcome.MISCONFIGURED)) if id(one) in kept else one
            for one in sent
        ]
    try:
        if not is_wave:
            await vendor.gate.trip_if_refused([one.result for one in sent])
        elif await vendor.gate.trip(f"{suspects[0].result.code} {WAVE_REASON}"):
            await asyncio.to_thread(_revive, vendor.channel)
        await _give_up(vendor, [one for one in sent if one.result.outcome is Outcome.DEAD])
    except Exception:
        logger.exception("A batch's answers could not be judged together.", channel=vendor.channel.name)
    return sent


def _is_suspect(vendor: Vendor, result: Result) -> bool:
    return result.outcome is Outcome.DEAD and result.code in vendor.channel.suspect_codes


async def _give_up(vendor: Vendor, dead: list[Sent]) -> None:
    """Dead addresses; what turns out to be part of a wave comes back.

    Whoever recognises a wave opens the breaker first and then brings back what was given up. Here it is given up first
    and the breaker asked then: one of the two sees what the other has done.
    """
    await asyncio.gather(*(asyncio.to_thread(_deactivate, one.item, one.result.code) for one in dead))
    if any(_is_suspect(vendor, one.result) for one in dead) and await vendor.gate.is_in_wave():
        await asyncio.to_thread(_revive, vendor.channel)


def _revive(channel: Channel) -> None:
    """What was given up as part of the wave, before there were enough of them to tell, by whichever worker."""
    since = clock.now() - timedelta(seconds=WAVE_SECONDS)
    try:
        revived = followers.reactivate_endpoints(channel.name, channel.suspect_codes, since)
    except Exception as error:
        if not is_passing(error):
            logger.exception("Addresses that a wave had deactivated stay so.", channel=channel.name)
        return
    if revived:
        logger.warning(
            "Addresses that a wave had deactivated are active again.", channel=channel.name, addresses=revived
        )


def _deactivate(item: Planned, code: str) -> None:
    """A dead address is given up. If that fails, whatever the cause, the next alert finds it dead again."""
    try:
        followers.deactivate_endpoint(item.delivery["endpoint"], item.registered_at, code, clock.now())
    except Exception as error:
        if not is_passing(error):
            logger.exception("A dead endpoint could not be deactivated.", endpoint=str(item.delivery["endpoint"]))


def _patch(vendor: Vendor, one: Sent) -> Patch:
    item, channel = one.item, vendor.channel
    again = repeatable(channel, item.message, item.row, one.at)
    return patch_for(item.row, item.delivery, one.result, channel.policy, again, one.at, one.breaker)
