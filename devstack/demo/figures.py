"""What the viewer is shown: one snapshot, put together from MongoDB, the queue, the vendors and /proc.

Needs Django set up.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass
from datetime import datetime, timedelta

import redis

from delivery.breakers import statuses_now
from delivery.broker import BROKER_ERRORS, queue_depths
from delivery.choices import BreakerStatus
from delivery.models import Batch
from devstack.demo.behaviour import VENDORS
from devstack.demo.outcomes import Outcomes, Sums, TradeFigures
from devstack.demo.percentiles import percentiles
from devstack.demo.startup import Demo
from devstack.demo.usage import Usage, UsageMeter
from followers import clock
from followers.choices import Channel
from followers.models import Follow, Trader
from followers.mongo import collection
from notifications.choices import DeliveryState, Priority
from notifications.models import Notification

SHARES = (0.5, 0.95, 0.99)
COUNT_LIMIT = 10_000
RETRY_HORIZON = timedelta(seconds=60)
"""A row that wakes within so long waits for a retry; one that is in a batch wakes when its validity ends."""

DATABASE_SHARE = 0.2
"""The figures may keep the database busy for so much of the time; with more followers they come less often."""

LONGEST_PAUSE_SECONDS = 3.0
"""But not so seldom that the screen seems to stand still."""

RATE_SECONDS = 3.0
HISTORY = 40
REACHED = (DeliveryState.SENT.value, DeliveryState.DELIVERED.value)


@dataclass(frozen=True, slots=True)
class ChannelFigures:
    """One channel's alerts since the session began; `latencies` are p50, p95, p99 in milliseconds."""

    channel: Channel
    states: dict[str, int]
    rate: float  # Alerts accepted a second.
    history: tuple[float, ...]  # The rates before, the newest last.
    latencies: tuple[float | None, ...]
    breaker: BreakerStatus | None  # None = it has none, or is not known yet.


@dataclass(frozen=True, slots=True)
class ProcessFigures:
    name: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything on the screen."""

    seconds: float  # Since the session began.
    published: int
    received: int
    trades: tuple[TradeFigures, ...]  # The newest first.
    trader_names: dict[str, str]
    audiences: dict[str, int]  # Followers by trader.
    channels: tuple[ChannelFigures, ...]
    sums: Sums
    queues: dict[str, int] | None  # None = the queue is away.
    waiting_on_kafka: int  # Trades published and not yet stored.
    due_batches: int
    due_retries: int
    processes: tuple[ProcessFigures, ...]
    first_alert_seconds: float | None  # From the demo's start to the first vendor's acceptance.

    @property
    def sent(self) -> int:
        """Alerts that a vendor, or the inbox, has taken over."""
        return sum(count for (_, state), count in self.sums.states.items() if state in REACHED)

    @property
    def rate(self) -> float:
        return sum(c.rate for c in self.channels)

    @property
    def history(self) -> tuple[float, ...]:
        return tuple(map(sum, zip(*(c.history for c in self.channels), strict=True)))


class RateMeter:
    """Alerts a second, from a count that only grows."""

    def __init__(self) -> None:
        self._counts: deque[tuple[float, int]] = deque()
        self.history: deque[float] = deque([0.0] * HISTORY, maxlen=HISTORY)

    def note(self, at: float, count: int, keep: bool) -> float:
        """The rate over the last RATE_SECONDS; `keep` adds it to the history."""
        self._counts.append((at, count))
        while len(self._counts) > 2 and self._counts[1][0] <= at - RATE_SECONDS:
            self._counts.popleft()
        (began, before), (ended, now) = self._counts[0], self._counts[-1]
        rate = (now - before) / (ended - began) if ended > began else 0.0
        if keep:
            self.history.append(rate)
        return rate


class Sampler:
    """Takes snapshots of a running demo.

    Parameters:
      demo: what runs.
      launched_at: when the user started it (aware UTC); the first alert is measured from there.
    """

    def __init__(self, demo: Demo, launched_at: datetime) -> None:
        self._demo = demo
        self._launched_at = launched_at
        self._began = time.monotonic()
        self._outcomes = Outcomes(clock.now())
        self._rates = {channel: RateMeter() for channel in Channel}
        self._history_at = 0.0
        self._refresh_at = 0.0
        self._waiting_on_kafka = 0
        self._due = (0, 0)
        self._meter = UsageMeter()
        self._usage: dict[int, Usage] = {}
        self._usage_at = 0.0
        traders = {t["_id"]: t for t in collection(Trader).find({}, {"external_id": 1, "name": 1})}
        self._names = {t["external_id"]: t["name"] or t["external_id"] for t in traders.values()}
        # Index: followers_follow (trader_id, bucket, _id).
        self._audiences = {
            t["external_id"]: collection(Follow).count_documents({"trader_id": i}) for i, t in traders.items()
        }

    def sample(self) -> Snapshot:
        """The state of things now. Raises PyMongoError, and OSError while the vendors are away."""
        self._read_database()
        outcomes = self._outcomes
        sums = outcomes.totals()
        first = outcomes.first_sent_at
        return Snapshot(
            seconds=time.monotonic() - self._began,
            published=self._demo.publisher.published,
            received=outcomes.received,
            trades=tuple(reversed(outcomes.recent)),
            trader_names=self._names,
            audiences=self._audiences,
            channels=self._channels(sums),
            sums=sums,
            queues=self._queues(),
            waiting_on_kafka=self._waiting_on_kafka,
            due_batches=self._due[0],
            due_retries=self._due[1],
            processes=self._processes(),
            first_alert_seconds=None if first is None else (first - self._launched_at).total_seconds(),
        )

    def _read_database(self) -> None:
        began = time.monotonic()
        if began < self._refresh_at:
            return
        now, published = clock.now(), self._demo.publisher.published
        self._outcomes.refresh(now)
        self._waiting_on_kafka = max(0, published - self._outcomes.received)
        self._due = (_due_batches(now), _due_retries(now))
        ended = time.monotonic()
        self._refresh_at = ended + min(LONGEST_PAUSE_SECONDS, (ended - began) * (1 / DATABASE_SHARE - 1))

    def _channels(self, sums: Sums) -> tuple[ChannelFigures, ...]:
        latencies = self._outcomes.latencies()
        at = time.monotonic()
        keep = at >= self._history_at
        if keep:
            self._history_at = at + 1.0
        figures, breakers = [], self._breakers()
        for channel in Channel:
            states = {state: count for (name, state), count in sums.states.items() if name == channel}
            meter = self._rates[channel]
            rate = meter.note(at, self._accepted(channel, states), keep)
            found = percentiles(latencies.get(channel.value, Counter()), SHARES)
            figures.append(ChannelFigures(channel, states, rate, tuple(meter.history), found, breakers.get(channel)))
        return tuple(figures)

    def _accepted(self, channel: Channel, states: dict[str, int]) -> int:
        """What the vendor itself says that it has accepted; for the inbox, what is stored."""
        if channel is Channel.IN_APP:
            return sum(states.get(state, 0) for state in REACHED)
        accepted: int = self._demo.vendors.sandbox.stats(VENDORS[channel.value])["accepted"]
        return accepted

    def _processes(self) -> tuple[ProcessFigures, ...]:
        names = {child.pid: child.name for child in self._demo.children.running}
        names |= {self._demo.vendors.pid: "vendors"} | {server.pid: server.name for server in self._demo.stack.servers}
        if time.monotonic() >= self._usage_at:
            self._usage = self._meter.read(list(names))
            self._usage_at = time.monotonic() + 1.0
        return tuple(ProcessFigures(names[pid], usage) for pid, usage in self._usage.items() if pid in names)

    @staticmethod
    def _breakers() -> dict[str, BreakerStatus]:
        try:
            return statuses_now()
        except redis.RedisError:
            return {}

    @staticmethod
    def _queues() -> dict[str, int] | None:
        try:
            return queue_depths()
        except BROKER_ERRORS:
            return None


def _due_batches(now: datetime) -> int:
    """Index: delivery_batch (priority, next_look_at), partial: only a query that names the type can use it."""
    query = {"priority": {"$in": Priority.values}, "next_look_at": {"$lte": now, "$type": "date"}}
    return collection(Batch).count_documents(query, limit=COUNT_LIMIT)


def _due_retries(now: datetime) -> int:
    """Index: notifications_notification (priority, wake_at), partial as well."""
    query = {"priority": {"$in": Priority.values}, "wake_at": {"$lte": now + RETRY_HORIZON, "$type": "date"}}
    return collection(Notification).count_documents(query, limit=COUNT_LIMIT)
