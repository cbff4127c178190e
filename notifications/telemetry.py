"""Every number that NotifyHub counts for Prometheus, and no place else: docs/operations.md explains each of them.

A label's values are few and known: no id, no name, no address. What stands in MongoDB, Redis, Kafka and the queue is
not counted but read when it is asked for (notifyhub/metrics.py).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Iterable

import structlog
from django.conf import settings
from prometheus_client import Counter, Gauge, Histogram, start_http_server

from followers.metric_files import count_in_files

logger = structlog.get_logger(__name__)

FILES = count_in_files()
"""What all processes of this machine have counted."""


class BatchHistogram(Histogram):
    """A histogram that takes the values of a whole batch: a write per bucket that was hit, not two per value."""

    def observe_all(self, amounts: Iterable[float]) -> None:
        """Counts each of them. Of one series: `labels` come first."""
        self._raise_if_not_observable()
        hits: Tally[int] = Tally()
        total = 0.0
        for amount in amounts:
            hits[bisect_left(self._upper_bounds, amount)] += 1
            total += amount
        if hits:
            self._sum.inc(total)
        for bucket, count in hits.items():
            self._buckets[bucket].inc(count)


SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 30, 60)
"""5 ms to 60 s: an idle alert takes tens of milliseconds, and after a minute it is late whatever the figure."""

EVENTS = Counter("notifyhub_events", "Messages taken in from Kafka", ["outcome"])
FAN_OUT_SECONDS = BatchHistogram(
    "notifyhub_fan_out_seconds", "One shard's fan-out: claimed to its last alert stored", buckets=SECONDS
)
ALERTS = Counter("notifyhub_alerts", "Alerts stored, or the reason why one is for nobody to act on", ["outcome"])
DELIVERIES = Counter(
    "notifyhub_deliveries",
    "Deliveries that came to an end state",
    ["channel", "outcome", "error"],
)
ATTEMPTS = Counter("notifyhub_attempts", "Attempts to send, by what became of each", ["channel", "outcome", "error"])
DELIVERY_SECONDS = BatchHistogram(
    "notifyhub_delivery_seconds", "Attempt start to the vendor's answer", ["channel"], buckets=SECONDS
)
EVENT_TO_DELIVERY_SECONDS = BatchHistogram(
    "notifyhub_event_to_delivery_seconds",
    "Trade executed to alert accepted by the vendor",
    ["channel", "priority"],
    buckets=SECONDS,
)
VALIDITY_LEFT_SECONDS = BatchHistogram(
    "notifyhub_validity_left_seconds",
    "What was left of an alert's validity when the vendor accepted it",
    ["channel"],
    buckets=(1, 5, 15, 30, 60, 120, 300, 900, 3_600, 14_400, 86_400),
)
BREAKER_CHANGES = Counter("notifyhub_breaker_changes", "Changes of a channel's circuit breaker", ["channel", "to"])
LAST_SWEEP = Gauge(
    "notifyhub_dispatcher_last_sweep_timestamp_seconds",
    "When dispatch_due last looked at all that was due",
    multiprocess_mode="mostrecent",
)


def serve_own() -> None:
    """Serves what this process alone has counted, where METRICS_PORT asks for it.

    Processes that share a machine take the ports from that one on, one each; a process without one goes on unserved.
    """
    first = settings.METRICS_PORT
    for port in range(first, first + PORTS_TRIED) if first else ():
        try:
            start_http_server(port)
        except OSError:
            continue
        logger.info("Serving metrics.", port=port)
        return
    if first:
        logger.warning("No port is free to serve metrics at.", first=first, tried=PORTS_TRIED)


PORTS_TRIED = 32
