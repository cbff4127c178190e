"""The proof that nobody was forgotten: what `manage.py prove` and the admin's page run.

It holds when each trade has been fanned out or is being, each follower who was owed an alert has one, each delivery
has an end state, a batch that will be sent, or a wake-up ahead, and nothing has been due for long. It is read in
snapshots (delivery/proof_statements.py), so that it can run at any time beside everything else. What Kafka still
holds is not in it: `consume_trades` commits an offset only once the event is stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from bson import ObjectId
from django.conf import settings

from delivery import proof_statements as statements
from delivery.choices import Gap
from delivery.models import Batch, ProofRun
from delivery.proof_audience import look_for_alerts
from delivery.proof_events import judge_events, lost_shards
from delivery.proof_findings import Finding, Tally
from delivery.proof_rows import look_at_rows
from followers import clock
from followers.index_order import in_index_order
from followers.mongo import durably
from notifications.choices import FanOutState, Priority
from notifications.models import Notification, TradeEvent, Update

Document = dict[str, Any]

EVENTS_READ = 200
ALERTS_PER_LOOK = 100_000
"""Alerts compared in one snapshot, unless a single trade has more."""

SECOND_LOOK_SECONDS = 3.0
"""What may only be passing is looked at again after so long; a sweep of dispatch_due is shorter."""

OVERDUE_SEEN = 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a proof stops early, so that a page answers in time. None = never."""

    alerts: int | None = None
    seconds: float | None = None


@dataclass(slots=True)
class Proof:
    """What a run has looked at, and what it found."""

    since: datetime | None  # Aware UTC, like the other times; None = everything that is stored.
    started_at: datetime
    tally: Tally = field(default_factory=Tally)
    seconds: float = 0.0
    proved_back_to: datetime | None = None  # Set when a limit ended it: what was received before was not looked at.
    cut_short: bool = False
    behind: int = 0  # Overdue wake-ups that dispatch_due is working off.
    rejected: int = 0
    not_replayed: int = 0

    @property
    def holds(self) -> bool:
        return not self.tally.missing

    def as_json(self) -> Document:
        tally = self.tally
        named = tally.named()
        return {
            "proved": self.holds,
            "since": self.since and self.since.isoformat(),
            "started_at": self.started_at.isoformat(),
            "seconds": round(self.seconds, 3),
            "cut_short": self.cut_short,
            "proved_back_to": self.proved_back_to and self.proved_back_to.isoformat(),
            "events": {state.value: tally.events[state] for state in FanOutState},
            "alerts": {"owed": tally.owed, "found": tally.found, "stored": tally.alerts},
            "deliveries": _by_channel(tally),
            "under_way": {
                "events": tally.events[FanOutState.PENDING], "deliveries": tally.under_way, "overdue": self.behind,
            },
            "rejected": {"received": self.rejected, "not_replayed": self.not_replayed},
            "missing": tally.missing,
            "gaps": {gap.value: tally.gaps[gap] for gap in Gap if tally.gaps[gap]},
            "findings": [finding.as_json() for finding in named],
            "not_named": tally.missing - len(named),
        }  # fmt: skip


def _by_channel(tally: Tally) -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = {}
    for (channel, state), count in sorted(tally.deliveries.items()):
        table.setdefault(channel, {})[state] = count
    return table


def prove(
    since: datetime | None = None,
    limits: Limits | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Proof:
    """Looks at what was received since then (aware UTC; None = all), the newest first, and at what is overdue: first
    at the trades, then at the general updates.

    `on_progress` is told how many of how many events were looked at. Raises PyMongoError if MongoDB stays away.
    """
    started = time.monotonic()
    proof = Proof(since, clock.now())
    overdue = list(_overdue(proof.started_at))
    lost = _look_at_events(proof, limits or Limits(), started, on_progress)
    if not proof.cut_short:
        # Alerts that no trade stands behind.
        which = {"event_id": None, **({"created_at": {"$gte": since}} if since else {})}
        proof.tally.add(durably(lambda: _rows(which)))
    if lost or overdue:
        time.sleep(max(0.0, started + SECOND_LOOK_SECONDS - time.monotonic()))
        proof.tally.add(durably(lambda: _lost(lost)))
        for late in overdue:
            late.settle(proof)
    proof.rejected, proof.not_replayed = statements.count_rejected(since)
    proof.seconds = time.monotonic() - started
    return proof


def keep_run(proof: Proof, by: str) -> ProofRun:
    """Stores what a run has found, for the admin's history."""
    return ProofRun.objects.create(
        started_at=proof.started_at,
        seconds=proof.seconds,
        by=by,
        since=proof.since,
        cut_short=proof.cut_short,
        proved_back_to=proof.proved_back_to,
        missing=proof.tally.missing,
        result=proof.as_json(),
    )


def last_whole_run() -> ProofRun | None:
    """The newest run that looked at everything it was asked for. Index: _id."""
    return in_index_order(ProofRun.objects.filter(cut_short=False).order_by("-id")).first()


# --- Trades and their alerts -----------------------------------------------------------------------------------------
def _look_at_events(
    proof: Proof, limits: Limits, started: float, on_progress: Callable[[int, int], None]
) -> list[ObjectId]:
    """Looks at events until none is left or a limit is reached. Returns those with a shard in nobody's hands."""
    total = statements.count_events(proof.since)
    done = 0
    lost: list[ObjectId] = []
    on_progress(done, total)
    for group in _groups(proof.since):
        too_many = limits.alerts is not None and proof.tally.alerts + group.alerts > limits.alerts
        too_long = limits.seconds is not None and time.monotonic() - started > limits.seconds
        if too_many or too_long:
            proof.cut_short = True
            return lost
        tally, unheld = durably(lambda group=group: _look(group.ids))  # type: ignore[misc]
        proof.tally.add(tally)
        proof.proved_back_to = clock.as_utc(group.oldest)
        lost += unheld
        done += len(group.ids)
        on_progress(done, max(done, total))
    proof.proved_back_to = None
    return lost


@dataclass(slots=True)
class Group:
    """Events that are looked at in one snapshot."""

    ids: list[ObjectId] = field(default_factory=list)
    alerts: int = 0
    oldest: datetime = datetime.min  # noqa: DTZ901  Naive UTC, as stored.

    def add(self, event: Document, alerts: int) -> None:
        self.ids.append(event["_id"])
        self.alerts += alerts
        self.oldest = event["received_at"]


def _groups(since: datetime | None) -> Iterator[Group]:
    """The events, the newest first, in groups of a bounded number of alerts; the trades, and then the updates."""
    for model in statements.EVENT_MODELS:
        yield from _groups_of(model, since)


def _groups_of(model: type[TradeEvent | Update], since: datetime | None) -> Iterator[Group]:
    after: Document | None = None
    while page := statements.events_page(model, since, after, EVENTS_READ):
        after = page[-1]
        ids = [event["_id"] for event in page]
        alerts = durably(lambda ids=ids: statements.alerts_per_event(ids))  # type: ignore[misc]
        group = Group()
        for event in page:
            count = alerts.get(event["_id"], 0)
            if group.ids and group.alerts + count > ALERTS_PER_LOOK:
                yield group
                group = Group()
            group.add(event, count)
        yield group


def _look(ids: list[ObjectId]) -> tuple[Tally, list[ObjectId]]:
    """One look at some events and all that hangs on them, in one snapshot."""
    tally = Tally()
    now = clock.now().replace(tzinfo=None)
    with statements.snapshot() as session:
        events = statements.events_by_id(ids, session)
        lost = judge_events(events, tally, session)
        look_for_alerts(events, statements.alerts_per_event(ids, session), now, tally, session)
        look_at_rows({"event_id": {"$in": ids}}, now, tally, session)
    return tally, lost


def _rows(which: Document) -> Tally:
    tally = Tally()
    with statements.snapshot() as session:
        look_at_rows(which, clock.now().replace(tzinfo=None), tally, session)
    return tally


def _lost(event_ids: list[ObjectId]) -> Tally:
    tally = Tally()
    with statements.snapshot() as session:
        lost_shards(event_ids, tally, session)
    return tally


# --- Overdue wake-ups ------------------------------------------------------------------------------------------------
@dataclass(slots=True)
class Overdue:
    """What should have been woken long ago, of one kind and priority."""

    model: type[Batch | Notification]
    field: str
    priority: Priority
    by: datetime
    times: dict[ObjectId, datetime]  # Of those that have been due the longest.

    def settle(self, proof: Proof) -> None:
        """Looks again: where one of the longest due has moved, dispatch_due is at work; else it is a gap."""
        now = statements.times_of(self.model, self.field, self.times)
        count = statements.count_overdue(self.model, self.field, self.priority, self.by)
        if any(now.get(oid) != at for oid, at in self.times.items()):
            proof.behind += count
            return
        oldest, at = next(iter(self.times.items()))
        what = "batches" if self.model is Batch else "alerts"
        text = (
            f"{count:,} {what} of priority {self.priority} should have been looked at by now, the first at "
            f"{at:%Y-%m-%d %H:%M:%S} UTC: dispatch_due is not running, or hopelessly behind."
        )
        proof.tally.note_all(
            Gap.OVERDUE,
            [text],
            lambda words: Finding(
                Gap.OVERDUE,
                words,
                batch=oldest if self.model is Batch else None,
                notification=None if self.model is Batch else oldest,
            ),
            count=count,
        )


def _overdue(now: datetime) -> Iterator[Overdue]:
    by = now - timedelta(seconds=settings.PROVE_OVERDUE_SECONDS)
    for model, name in ((Batch, "next_look_at"), (Notification, "wake_at")):
        for priority in Priority:
            if times := statements.longest_overdue(model, name, priority.value, by, OVERDUE_SEEN):
                yield Overdue(model, name, priority, by, times)
