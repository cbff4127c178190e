"""What the operations page shows, read from the servers: every statement bounded and served by an index."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from kafka.errors import KafkaError

from delivery import lag
from delivery.backlog import Backlog, measure
from delivery.broker import BROKER_ERRORS, queue_depths
from delivery.models import Batch
from delivery.statements import due_batches
from delivery.sweeps import last_sweep
from followers import clock
from followers.mongo import collection, durably
from notifications.choices import Priority
from notifications.models import Notification, TradeEvent
from notifications.reviews import REQUESTED, codes_of_newest

Document = dict[str, Any]

MINUTES = 30
EVENTS_READ = 5_000
BATCHES_READ = 10_000
ALERTS_READ = 2_000
"""How far each figure looks back at most, in rows: the page costs the same however much there is."""

COUNTED_UP_TO = 10_000
SLOWEST_SHOWN = FAILURES_SHOWN = 8
REPEAT_FOR_SECONDS = 2.0
"""A page that updates by itself does not wait for a database that is away; it says so."""

LAG_WAIT_SECONDS = 0.5
"""Kafka's answer is waited for no longer, and asked for beside everything else; it is known at the next look."""

NOT_A_CALL = frozenset({REQUESTED, "receipt"})


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles of some durations, in milliseconds."""

    count: int
    p50: float
    p95: float
    p99: float


@dataclass(slots=True)
class Pace:
    """Per minute, the oldest first; the last minute is still running. None = further back than was read."""

    minutes: list[datetime] = field(default_factory=list)
    created: list[int | None] = field(default_factory=list)
    finished: list[int | None] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Slow:
    """A trader by how long the fan-out of their trades takes."""

    trader: str
    trades: int
    alerts: int
    mean_seconds: float
    worst_seconds: float


@dataclass(frozen=True, slots=True)
class Figures:
    """One look at the system. What a server that is away would have told is None."""

    at: datetime
    pace: Pace
    answers: dict[str, Spread]  # By channel: from the call to the vendor's answer.
    arrivals: dict[str, Spread]  # By channel: from the trade to the vendor's, or the inbox's, acceptance.
    failures: list[tuple[str, str, int]]  # Channel, code, calls; the most frequent first.
    calls: int  # How many calls the sample holds.
    depths: dict[str, int] | None
    backlog: Backlog
    overdue_seconds: dict[str, float]  # By priority: how long the longest waiting wake-up has been due.
    slowest: list[Slow]
    reviews: int  # At most COUNTED_UP_TO + 1.
    reviews_by_channel: Counter[str]  # Of the newest open ones.
    last_trade_at: datetime | None
    lag: int | None  # Trades that consume_trades has not committed yet.
    swept_seconds_ago: float | None  # Since dispatch_due last looked at all that was due; None = never.
    intake_ms: Spread | None  # From the execution of a trade until it was stored.


def read(now: datetime) -> Figures:
    """Raises PyMongoError while MongoDB is away."""
    looking = lag.WATCH.begin()
    events = newest_events(now)
    sample = newest_alerts()
    answers, arrivals, failures = _deliveries(sample)
    return Figures(
        at=now,
        pace=pace(now, events, *finished_per_minute(now)),
        answers=answers,
        arrivals=arrivals,
        failures=[(channel, code, n) for (channel, code), n in failures.most_common(FAILURES_SHOWN)],
        calls=sum(spread.count for spread in answers.values()),
        depths=_depths(),
        backlog=measure(COUNTED_UP_TO),
        overdue_seconds={p.value: _overdue_seconds(p.value, now) for p in Priority},
        slowest=_slowest(events),
        reviews=_open_reviews(),
        reviews_by_channel=_by_channel(codes_of_newest()),
        last_trade_at=events[0]["received_at"] if events else None,
        swept_seconds_ago=_since_last_sweep(now),
        intake_ms=spread([_ms(e["executed_at"], e["received_at"]) for e in events]),
        lag=_total(looking),
    )


# --- Statements -------------------------------------------------------------------------------------------------------
def newest_events(now: datetime) -> list[Document]:
    """The trades of the last MINUTES, the newest first. Index: notifications_tradeevent (received_at, _id)."""
    fields = {"trader_external_id": 1, "executed_at": 1, "received_at": 1, "fanned_out_at": 1, "alerts_written": 1}
    found = collection(TradeEvent).find({"received_at": {"$gte": _begin(now)}}, fields)
    rows = found.sort([("received_at", -1), ("_id", -1)]).limit(EVENTS_READ)
    return durably(lambda: list(rows.clone()), REPEAT_FOR_SECONDS)


def finished_pipeline(now: datetime) -> list[Document]:
    """Deliveries of finished batches by minute; `rows` are the batches. Index: delivery_batch (finished_at)."""
    return [
        {"$match": {"finished_at": {"$gte": _begin(now)}}},
        {"$sort": {"finished_at": -1}},
        {"$limit": BATCHES_READ},
        {
            "$group": {  # A shard has no ids.
                "_id": {"$dateTrunc": {"date": "$finished_at", "unit": "minute"}},
                "deliveries": {"$sum": {"$size": "$ids"}},
                "rows": {"$sum": 1},
            }
        },
    ]


def finished_per_minute(now: datetime) -> tuple[dict[datetime, int], datetime | None]:
    """Deliveries by minute (naive UTC), and the oldest minute that was read in part only, if the batches were too
    many."""
    found = durably(lambda: list(collection(Batch).aggregate(finished_pipeline(now))), REPEAT_FOR_SECONDS)
    was_cut = sum(row["rows"] for row in found) >= BATCHES_READ
    return {row["_id"]: row["deliveries"] for row in found}, min(r["_id"] for r in found) if was_cut else None


def newest_alerts() -> list[Document]:
    """The newest alerts with their deliveries' times and attempts. Index: notifications_notification (_id)."""
    fields = {
        "executed_at": 1, "deliveries.channel": 1, "deliveries.sent_at": 1, "deliveries.attempt_log.outcome": 1,
        "deliveries.attempt_log.code": 1, "deliveries.attempt_log.latency_ms": 1,
    }  # fmt: skip
    found = collection(Notification).find({}, fields).sort("_id", -1).limit(ALERTS_READ)
    return durably(lambda: list(found.clone()), REPEAT_FOR_SECONDS)


def _open_reviews() -> int:
    """Counted no further than COUNTED_UP_TO + 1. Index: (review.open, review.opened_at, _id), covered."""
    query = {"review.open": True}
    return durably(lambda: collection(Notification).count_documents(query, limit=COUNTED_UP_TO + 1), REPEAT_FOR_SECONDS)


def _overdue_seconds(priority: str, now: datetime) -> float:
    due = due_batches(priority, now, 1)
    return max(0.0, (now - clock.as_utc(due[0]["next_look_at"])).total_seconds()) if due else 0.0


def _depths() -> dict[str, int] | None:
    try:
        return queue_depths()
    except BROKER_ERRORS:
        return None


def _since_last_sweep(now: datetime) -> float | None:
    swept_at = last_sweep(REPEAT_FOR_SECONDS)
    return None if swept_at is None else max(0.0, (now - clock.as_utc(swept_at)).total_seconds())


def _total(looking: Future[lag.Lag]) -> int | None:
    try:
        return sum(looking.result(LAG_WAIT_SECONDS).values())
    except (KafkaError, OSError):  # TimeoutError is one of the latter.
        return None


# --- Arithmetic -------------------------------------------------------------------------------------------------------
def spread(milliseconds: Sequence[float]) -> Spread | None:
    """Percentiles by the nearest rank; None of nothing."""
    if not milliseconds:
        return None
    ordered = sorted(milliseconds)

    def rank(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return Spread(len(ordered), rank(0.50), rank(0.95), rank(0.99))


def pace(
    now: datetime, events: Sequence[Document], finished: dict[datetime, int], cut_at: datetime | None = None
) -> Pace:
    """What was created and finished in each of the last MINUTES."""
    created: Counter[datetime] = Counter()
    for event in events:
        created[_minute(event["fanned_out_at"] or event["received_at"])] += event.get("alerts_written") or 0
    minutes = [_begin(now).replace(tzinfo=None) + timedelta(minutes=n) for n in range(MINUTES)]
    events_cut_at = _minute(events[-1]["received_at"]) if len(events) >= EVENTS_READ else None
    return Pace(
        minutes,
        [None if events_cut_at and m <= events_cut_at else created[m] for m in minutes],
        [None if cut_at and m <= cut_at else finished.get(m, 0) for m in minutes],
    )


def _deliveries(alerts: Sequence[Document]) -> tuple[dict[str, Spread], dict[str, Spread], Counter[tuple[str, str]]]:
    """Answers and arrivals by channel, and failed calls by channel and code."""
    answers: dict[str, list[float]] = defaultdict(list)
    arrivals: dict[str, list[float]] = defaultdict(list)
    failures: Counter[tuple[str, str]] = Counter()
    for alert in alerts:
        for delivery in alert["deliveries"]:
            channel = delivery["channel"]
            if delivery["sent_at"] is not None:
                arrivals[channel].append(_ms(alert["executed_at"], delivery["sent_at"]))
            for attempt in delivery["attempt_log"]:
                if attempt["outcome"] in NOT_A_CALL:
                    continue
                if attempt["latency_ms"] is not None:
                    answers[channel].append(attempt["latency_ms"])
                if attempt["outcome"] != "sent":
                    failures[channel, attempt["code"]] += 1
    return _spreads(answers), _spreads(arrivals), failures


def _spreads(durations: dict[str, list[float]]) -> dict[str, Spread]:
    return {channel: found for channel, values in durations.items() if (found := spread(values)) is not None}


def _slowest(events: Sequence[Document]) -> list[Slow]:
    """The traders whose trades took longest from their receipt to the last alert written."""
    taken: dict[str, list[float]] = defaultdict(list)
    alerts: Counter[str] = Counter()
    for event in events:
        if event["fanned_out_at"] is not None:
            trader = event["trader_external_id"]
            taken[trader].append(_ms(event["received_at"], event["fanned_out_at"]) / 1_000)
            alerts[trader] += event.get("alerts_written") or 0
    rows = [Slow(t, len(s), alerts[t], sum(s) / len(s), max(s)) for t, s in taken.items()]
    return sorted(rows, key=lambda row: -row.mean_seconds)[:SLOWEST_SHOWN]


def _by_channel(codes: Counter[str]) -> Counter[str]:
    channels: Counter[str] = Counter()
    for code, count in codes.items():
        channels[code.partition(":")[0]] += count
    return channels


def _ms(start: datetime, end: datetime) -> float:
    return max(0.0, (end - start).total_seconds() * 1_000)


def _begin(now: datetime) -> datetime:
    return now.replace(second=0, microsecond=0) - timedelta(minutes=MINUTES - 1)


def _minute(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)
