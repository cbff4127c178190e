"""/metrics: what Prometheus scrapes. What stands in MongoDB, Redis and the queue is read when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import redis
import structlog
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from pymongo.errors import PyMongoError

from delivery.breakers import statuses_now
from delivery.broker import BROKER_ERRORS, queue_depths
from delivery.choices import BreakerStatus
from notifications.reviews import open_reviews

logger = structlog.get_logger(__name__)

BREAKER_VALUES = {BreakerStatus.CLOSED: 0, BreakerStatus.HALF_OPEN: 1, BreakerStatus.OPEN: 2}
AWAY = (PyMongoError, redis.RedisError, *BROKER_ERRORS)


@never_cache
def metrics(request: HttpRequest) -> HttpResponse:
    """Everything in Prometheus's text format. What cannot be read now is left out, and logged."""
    registry = CollectorRegistry()
    registry.register(StateCollector())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


class StateCollector(Collector):
    """Gauges of the present state, the same whichever process is asked."""

    def collect(self) -> Iterator[Metric]:
        for read in READERS:
            try:
                yield read()
            except AWAY as error:
                logger.warning("A metric could not be read.", metric=read.__name__, error=str(error)[:200])


def breaker_state() -> Metric:
    family = GaugeMetricFamily(
        "notifyhub_breaker_state", "Circuit breaker: 0 closed, 1 half open, 2 open", labels=["channel"]
    )
    for channel, status in statuses_now().items():
        family.add_metric([channel], BREAKER_VALUES[status])
    return family


def queue_depth() -> Metric:
    family = GaugeMetricFamily("notifyhub_queue_depth", "Hints waiting in a queue", labels=["queue"])
    for queue, depth in queue_depths().items():
        family.add_metric([queue], depth)
    return family


def review_open() -> Metric:
    family = GaugeMetricFamily("notifyhub_review_open", "Alerts that wait for a person in the review bucket")
    family.add_metric([], open_reviews())
    return family


READERS: tuple[Callable[[], Metric], ...] = (breaker_state, queue_depth, review_open)
