"""One shard of a trade's fan-out: from the event to a stored alert for each follower, and the hints to send them.

Everything here may run twice, on two workers at once, and stop anywhere: ids follow from (event, follower), inserts
take "is there already" for success, and the shard is done only when its whole range has been written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from bson import ObjectId
from django.conf import settings

from delivery import statements as batches
from delivery import telemetry
from delivery.alerts import Alerts, AlertWriter
from delivery.batch_spans import hinted
from delivery.broker import send_hints
from delivery.channels.credentials import is_on
from delivery.lease import Lease, LeaseLostError, claim
from delivery.right_of_way import claim_way, storing
from delivery.stopping import is_stopping
from delivery.update_alerts import listed, writer_for
from followers import clock, erasures
from followers import statements as followers
from followers.choices import VENDOR_CHANNELS
from followers.clock import as_utc
from followers.models import BUCKETS
from followers.mongo import is_passing, one_primary
from followers.spans import Span, Step, tracer
from notifications import statements as notifications
from notifications.choices import EXITS, Priority
from notifications.erasure import forget, traces
from notifications.live import push_alerts
from notifications.telemetry import FAN_OUT_SECONDS
from notifications.update_events import is_update

logger = structlog.get_logger(__name__)
Document = dict[str, Any]

RETRY_SECONDS = 5
"""A shard that failed is tried again after so long, times the failures so far."""


EVENT_COMES_WITHIN = timedelta(minutes=10)
"""A shard whose event is not stored waits so long for it, before that counts as a failure: a new primary can have the
shard without the event, which is taken in again (followers/mongo.py, one_primary)."""


class WorkerStopsError(Exception):
    """This worker is about to stop: the rest of the shard is another one's."""


class EventAwayError(LookupError):
    """The shard's event is not stored."""


@dataclass(slots=True)
class FanOut:
    """A shard under way."""

    lease: Lease
    event: Document
    writer: AlertWriter
    rerun: bool  # An earlier run got somewhere: rows that are stored already need no new batches.
    written: int = 0
    skipped: int = 0

    @property
    def shard(self) -> int:
        return self.lease.batch["shard"]


def fan_out_shard(batch_id: ObjectId) -> FanOut | None:
    """Claims a shard and writes its alerts. None = nothing to do, lost, or failed (and then it is run again)."""
    lease = claim(batch_id, settings.LEASE_SECONDS)
    if lease is None:
        return None
    structlog.contextvars.bind_contextvars(correlation_id=lease.batch["correlation_id"])
    started = time.perf_counter()
    claim_way(lease.batch["priority"])
    began_ns = time.time_ns()
    try:
        run = _begin(lease)
        with _traced(run, began_ns) as span:
            _run(run)
            FAN_OUT_SECONDS.observe(time.perf_counter() - started)
            span.note(alerts=run.written, skipped=run.skipped, **hinted(began_ns))
            logger.info(
                "Fanned out.",
                event_id=run.event["external_id"],
                shard=run.shard,
                alerts=run.written,
                skipped=run.skipped,
            )
    except LeaseLostError as error:
        logger.warning("A fan-out shard was taken over by another worker.", batch=str(batch_id), error=str(error))
        return None
    except WorkerStopsError:
        # Not 0 failures: they tell the next run that alerts of this one are stored already.
        batches.give_back(lease.batch, clock.now(), failed=lease.batch["failures"] == 0)
        logger.info("A fan-out shard goes to another worker: this one is stopping.", batch=str(batch_id))
        return None
    except EventAwayError as error:
        logger.warning("A fan-out shard waits for its event.", batch=str(batch_id))
        wait_for_event(lease.batch, str(error))
        return None
    except Exception as error:
        logger.error("A fan-out shard failed.", batch=str(batch_id), exc_info=not is_passing(error))  # noqa: TRY400
        fail_shard(lease.batch, f"{type(error).__name__}: {error}")
        return None
    return run


def _traced(run: FanOut, began_ns: int) -> AbstractContextManager[Span]:
    event = run.event
    return tracer().trade(
        Step.FAN_OUT,
        event.get("traceparent", ""),
        since_ns=began_ns,
        event_id=event["external_id"],
        batch_id=str(run.lease.batch["_id"]),
        shard=run.shard,
    )


def wait_for_event(batch: Document, error: str) -> None:
    """claimed → to be run again later, and at length as a shard that fails."""
    now = clock.now()
    if as_utc(batch["created_at"]) < now - EVENT_COMES_WITHIN:
        fail_shard(batch, error)
    else:
        batches.give_back(batch, now + timedelta(seconds=RETRY_SECONDS), error)


def fail_shard(batch: Document, error: str) -> None:
    """claimed → to be run again later; after SHARD_MAX_FAILURES the event is failed and a person must look."""
    failures = batch["failures"] + 1
    if failures >= settings.SHARD_MAX_FAILURES:
        notifications.fail_event(batch["event"])  # First: an event must not look pending when nobody works on it.
        batches.give_up(batch, error)
        return
    batches.give_back(batch, clock.now() + timedelta(seconds=RETRY_SECONDS * failures), error, failed=True)


def _begin(lease: Lease) -> FanOut:
    event = notifications.event(lease.batch["event"])
    if event is None:
        raise EventAwayError(f"Shard {lease.batch['_id']} belongs to an event that is not stored.")
    open_channels = frozenset(str(c) for c in VENDOR_CHANNELS if is_on(c, settings))
    return FanOut(lease, event, writer_for(event, lease.batch, open_channels), rerun=lease.batch["failures"] > 0)


def _run(run: FanOut) -> None:
    event = run.event
    if event["closes_position"] and run.shard == 0:
        notifications.supersede_entries(event, clock.now(), after_each=run.lease.keep)
    with one_primary():
        for members in _audience(event, run.shard):
            if is_stopping():
                raise WorkerStopsError
            _write_chunk(run, members)
        if event["trader_id"] is not None and run.shard == 0:
            _post_to_community(run)
        _forget_erased(run)
        run.lease.renew()  # Acknowledged by a majority: so is every inbox entry before it.
    notifications.finish_shard(event["_id"], run.shard, clock.now(), run.written)
    batches.finish(run.lease.batch, clock.now())


def _audience(event: Document, shard: int) -> Iterator[list[followers.AudienceMember]]:
    """The shard's followers in chunks: the trader's, or those whom a general update names."""
    chunk = settings.FAN_OUT_CHUNK
    if event["priority"] == Priority.NORMAL:
        chunk = min(chunk, settings.FAN_OUT_CHUNK_NORMAL)
    if event["trader_id"] is None:
        return followers.read_followers(listed(event, shard), chunk)
    buckets = bucket_range(shard, event["shards"])
    return followers.read_audience(event["trader_id"], buckets, event["received_at"], clock.now(), chunk)


def _forget_erased(run: FanOut) -> None:
    """Removes what was stored for followers who were erased since they were read.

    Here, after all alerts are stored: an erasure that begins later finds them by itself (followers/erasures.py).
    """
    erased = {run.writer.notification_id(f): f for f in erasures.erased_since(as_utc(run.event["received_at"]))}
    if erased:
        for alert in traces(erased.keys()):
            forget(erased[alert], [alert])


def bucket_range(shard: int, shards: int) -> tuple[int, int]:
    """The first and the last of the 256 buckets that shard number `shard` of `shards` covers."""
    return shard * BUCKETS // shards, (shard + 1) * BUCKETS // shards - 1


def _post_to_community(run: FanOut) -> None:
    endpoints = followers.community_endpoints(run.event["trader_id"])
    if not endpoints:
        return
    _look_for_exit(run)
    known = _known(run, [run.writer.notification_id(None)])
    _store(run, run.writer.community_post(endpoints, known, clock.now()), [], known)


def _write_chunk(run: FanOut, members: list[followers.AudienceMember]) -> None:
    _look_for_exit(run)
    ids = [run.writer.notification_id(m.follower["_id"]) for m in members] if run.rerun else []
    known = _known(run, ids)
    withheld = notifications.withheld_notifications(list(known)) if known else set()
    alerts = run.writer.alerts_for(members, known, clock.now(), withheld)
    run.skipped += sum(1 for n in alerts.notifications if not n["deliveries"])
    _store(run, alerts, [m.follower["_id"] for m in members], known)


def _store(run: FanOut, alerts: Alerts, follower_ids: list[ObjectId], known: set[ObjectId]) -> None:
    """Writes one chunk, in the order that leaves no gap: batches, then the rows that name them, then inboxes."""
    priority = run.event["priority"]
    claim_way(priority)
    with storing(priority, len(alerts.notifications)), one_primary():
        run.lease.keep()
        batches.insert_batches_with_rows(alerts.batches)
        present = notifications.insert_notifications(alerts.notifications)
    telemetry.stored(alerts.notifications, present)
    logger.info("Alerts stored.", shard=run.shard, alerts=len(alerts.notifications), batches=len(alerts.batches))
    # From here on a worker may deliver, while the inboxes and the rest of the shard are still being written.
    claim_way(priority)
    send_hints(alerts.batches)
    with storing(priority, len(alerts.entries)):
        run.lease.keep()
        notifications.insert_entries(alerts.entries)
    withdrawn = _withdraw_if_closed(run, alerts)
    _push([] if withdrawn else [e for e in alerts.entries if e["_id"] not in known], withdrawn)
    if follower_ids:
        # After the push, which it would hold up; for a moment an inbox may have an entry too many.
        with storing(priority, len(follower_ids)):
            pruned = notifications.prune_entries(run.event, follower_ids, settings.INAPP_KEEP, clock.now())
        _push([], pruned)
    run.written += len(alerts.notifications)


def _push(entries: list[Document], removed: list[tuple[ObjectId, ObjectId]]) -> None:
    """Tells those who are connected. The inbox has it all: a failed push is no reason to fail the shard."""
    if not entries and not removed:
        return
    try:
        with tracer().step(Step.PUSH, entries=len(entries), removed=len(removed)):
            frames = push_alerts(entries, removed)
        if entries:
            logger.info("Pushed.", entries=len(entries), frames=frames)
    except Exception:
        logger.exception("The live push failed; sockets catch up from the inbox.")


def _known(run: FanOut, ids: list[ObjectId]) -> set[ObjectId]:
    return notifications.existing_notifications(ids) if run.rerun else set()


def _look_for_exit(run: FanOut) -> None:
    """An entry whose exit is stored already is not offered to anybody any more."""
    if is_update(run.event):
        return
    if run.event["action"] not in EXITS and run.event["trader_id"] is not None and not run.writer.superseded_by:
        closing = notifications.closing_event_after(run.event)
        run.writer.superseded_by = closing["external_id"] if closing else ""


def _withdraw_if_closed(run: FanOut, alerts: Alerts) -> list[tuple[ObjectId, ObjectId]]:
    """Withdraws what was inserted after its exit was fanned out. Returns (follower, entry) of what left the inbox.

    Also on a re-run, whose rows may be those of a first run that died before it looked.
    """
    _look_for_exit(run)
    if not run.writer.superseded_by:
        return []
    notifications.mark_superseded({"_id": {"$in": [n["_id"] for n in alerts.notifications]}}, run.writer.superseded_by)
    notifications.delete_entries([e["_id"] for e in alerts.entries])
    return [(e["follower_id"], e["_id"]) for e in alerts.entries]
