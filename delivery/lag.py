"""How far consume_trades is behind, as Kafka knows it: right also while no consumer is running."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from threading import Lock

from django.conf import settings
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec

from delivery.kafka import connection_options, quiet_kafka

Lag = dict[int, int]
"""Messages that the group has not committed yet, by partition."""

LOOK_SECONDS = 2.0
"""What one request of a look may take."""

KEPT_SECONDS = 5.0
"""A look costs a new connection and four requests: whoever asks within this time shares one."""


def consumer_lag(timeout_seconds: float) -> Lag:
    """The lag of every partition; empty while the topic does not exist.

    Where nothing was committed it is all that the partition holds: the consumer begins with the oldest message.
    Raises KafkaError, within a few times `timeout_seconds`.
    """
    milliseconds = int(timeout_seconds * 1_000)
    options = {**connection_options(), "bootstrap_timeout_ms": milliseconds, "request_timeout_ms": milliseconds}
    with quiet_kafka(), closing(KafkaAdminClient(**options)) as admin:
        (topic,) = admin.describe_topics([settings.KAFKA_TRADE_TOPIC])
        partitions = [TopicPartition(topic["name"], found["partition_index"]) for found in topic["partitions"]]
        if not partitions:
            return {}
        ends = admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST))
        group = settings.KAFKA_GROUP_ID
        committed = {
            partition: found.offset
            for partition, found in admin.list_group_offsets({group: partitions})[group].items()
            if found.offset >= 0  # -1 = nothing was committed.
        }
        begun = [partition for partition in partitions if partition not in committed]
        if begun:
            first = admin.list_partition_offsets(dict.fromkeys(begun, OffsetSpec.EARLIEST))
            committed |= {partition: found.offset for partition, found in first.items()}
        return {p.partition: max(0, ends[p].offset - committed[p]) for p in partitions}


class LagWatch:
    """One look at Kafka at a time, on a thread of its own, shared by all who ask: nobody waits longer than they want.

    Parameters
    ----------
    look
        Reads the lag, or raises; it may take longer than anybody waits.
    """

    def __init__(self, look: Callable[[], Lag] = lambda: consumer_lag(LOOK_SECONDS)) -> None:
        self._look = look
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lag")
        self._lock = Lock()
        self._looked_until = 0.0
        self._last: Future[Lag] | None = None

    def begin(self) -> Future[Lag]:
        """The look under way, or the last one if it is fresh enough; else a new one."""
        with self._lock:
            last = self._last
            if last is None or (last.done() and time.monotonic() - self._looked_until > KEPT_SECONDS):
                last = self._last = self._thread.submit(self._timed)
        return last

    def latest(self, wait_seconds: float) -> Lag:
        """Raises TimeoutError if it is not known by then, or whatever the look has raised."""
        return self.begin().result(wait_seconds)

    def _timed(self) -> Lag:
        try:
            return self._look()
        finally:
            self._looked_until = time.monotonic()


WATCH = LagWatch()
"""This process's."""
