"""/metrics: what Prometheus scrapes. What all processes of this machine have counted, and the present state besides:
what stands in MongoDB, Redis, Kafka and the queue is read when it is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import pymongo
import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from delivery import lag as kafka_lag
from delivery import statements
from delivery.backlog import measure
from delivery.breakers import statuses_now
from delivery.broker import queue_depths
from delivery.choices import BreakerStatus
from delivery.proof import last_whole_run
from followers import clock
from notifications.choices import Priority
from notifications.reviews import open_reviews
from notifications.telemetry import FILES

logger = structlog.get_logger(__name__)

BREAKER_VALUES = {BreakerStatus.CLOSED: 0, BreakerStatus.HALF_OPEN: 1, BreakerStatus.OPEN: 2}

READ_SECONDS = 2.0
"""What one reader may take; Prometheus itself waits ten seconds for all of them, which run side by side."""

# Threads of their own: a server that hangs must not take the threads of the sockets and views.
_threads = ThreadPoolExecutor(max_workers=16, thread_name_prefix="metrics")


@never_cache
async def metrics(request: HttpRequest) -> HttpResponse:
    """Everything in Prometheus's text format. What cannot be read now is left out, and logged."""
    read = await asyncio.gather(*(_read(reader) for reader in READERS))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collected([metric for found in read for metric in found]))
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


async def _read(reader: Callable[[], Iterable[Metric]]) -> Iterable[Metric]:
    running = asyncio.get_running_loop().run_in_executor(_threads, _in_time, reader)
    try:
        return await asyncio.wait_for(running, READ_SECONDS + 0.5)
    except Exception as error:  # Whatever a driver raises, this figure is not to be had now.
        logger.warning(
            "A metric could not be read.", metric=reader.__name__, error=f"{type(error).__name__}: {error}"[:200]
        )
        return []


def _in_time(reader: Callable[[], Iterable[Metric]]) -> Iterable[Metric]:
    with pymongo.timeout(READ_SECONDS):
        return reader()


class Collected(Collector):
    """Metrics that were collected already."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def counted() -> Iterable[Metric]:
    """What the processes of this machine have counted."""
    return FILES.collect()


def breaker_state() -> Iterable[Metric]:
    family = GaugeMetricFamily(
        "notifyhub_breaker_state", "Circuit breaker: 0 closed, 1 half open, 2 open", labels=["channel"]
    )
    for channel, status in statuses_now().items():
        family.add_metric([channel], BREAKER_VALUES[status])
    return [family]


def queue_depth() -> Iterable[Metric]:
    family = GaugeMetricFamily("notifyhub_queue_depth", "Hints waiting in a queue", labels=["queue"])
    for queue, depth in queue_depths().items():
        family.add_metric([queue], depth)
    return [family]


def review_open() -> Iterable[Metric]:
    return [_gauge("notifyhub_review_open", "Alerts that wait for a person in the review bucket", open_reviews())]


def proof() -> Iterable[Metric]:
    run = last_whole_run()
    if run is None:
        return []
    return [
        _gauge("notifyhub_proof_gaps", "Gaps that the last whole proof found", run.missing),
        _gauge("notifyhub_proof_timestamp_seconds", "When the last whole proof began", run.started_at.timestamp()),
    ]


def unfinished_batches() -> Iterable[Metric]:
    family = GaugeMetricFamily(
        "notifyhub_unfinished_batches",
        "Fan-out shards and delivery batches that are not finished, counted up to BACKLOG_MAX_BATCHES",
        labels=["priority"],
    )
    for priority, count in measure(settings.BACKLOG_MAX_BATCHES + 1).batches.items():
        family.add_metric([priority], count)
    return [family]


def overdue() -> Iterable[Metric]:
    family = GaugeMetricFamily(
        "notifyhub_overdue_seconds", "How long the longest waiting wake-up has been due", labels=["priority"]
    )
    now = clock.now()
    for priority in Priority.values:
        due = statements.longest_due(priority, now)
        family.add_metric([priority], (now - clock.as_utc(due)).total_seconds() if due else 0.0)
    return [family]


def lag() -> Iterable[Metric]:
    by_partition = kafka_lag.WATCH.latest(READ_SECONDS)
    family = GaugeMetricFamily(
        "notifyhub_consumer_lag", "Messages that consume_trades has not committed yet", labels=["partition"]
    )
    for partition, count in by_partition.items():
        family.add_metric([str(partition)], count)
    return [family]


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=value)


READERS: tuple[Callable[[], Iterable[Metric]], ...] = (
    counted,
    breaker_state,
    queue_depth,
    review_open,
    proof,
    unfinished_batches,
    overdue,
    lag,
)
