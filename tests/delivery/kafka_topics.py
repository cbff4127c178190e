"""A topic, a group and consumers of a test's own, on the tests' Kafka."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

from delivery.consumer import TradeConsumer, take_in_and_hint
from delivery.intake import Intake
from delivery.intake_documents import IncomingMessage

PATIENCE_SECONDS = 40.0
PARTITIONS = 4


def until(condition: Callable[[], Any]) -> None:
    """Wait for what another process or server brings about; fails the test if it never comes."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "What the test waits for did not come about."
        pause.wait(0.05)


class Topic:
    """A topic with a consumer group of the same name; the settings point at both."""

    def __init__(self, servers: str) -> None:
        self.name = f"trades-{uuid.uuid4().hex[:12]}"
        self.servers = servers
        admin = KafkaAdminClient(bootstrap_servers=servers)
        admin.create_topics([NewTopic(self.name, PARTITIONS, replication_factor=1)])
        admin.close()

    def publish(self, values: Iterable[bytes | None], **options: Any) -> None:
        """Spread over the partitions by turns, so that each has some."""
        producer = KafkaProducer(bootstrap_servers=self.servers, acks="all")
        for number, value in enumerate(values):
            producer.send(self.name, value=value, partition=number % PARTITIONS, **options)
        producer.flush()
        producer.close()

    def committed(self) -> int:
        """Messages behind which the group's offsets stand, over all partitions."""
        consumer = KafkaConsumer(bootstrap_servers=self.servers, group_id=settings.KAFKA_GROUP_ID)
        try:
            return sum(consumer.committed(TopicPartition(self.name, n)) or 0 for n in range(PARTITIONS))
        finally:
            consumer.close()


class Runner:
    """A TradeConsumer on a thread, with the batches that it was given."""

    def __init__(self, work: Callable[[Sequence[IncomingMessage]], Intake] = take_in_and_hint, **options: Any) -> None:
        self.stop = threading.Event()
        self.batches: list[list[IncomingMessage]] = []
        self.error: BaseException | None = None
        self._work = work
        self._consumer = TradeConsumer(self.stop, self._note, **options)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def seen(self) -> list[tuple[int, int]]:
        """The places (partition, offset) of all messages that it was given."""
        return [(message.partition, message.offset) for batch in list(self.batches) for message in batch]

    def join(self) -> None:
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive(), "The consumer does not stop."

    def _note(self, messages: Sequence[IncomingMessage]) -> Intake:
        self.batches.append(list(messages))
        return self._work(messages)

    def _run(self) -> None:
        try:
            self._consumer.run()
        except BaseException as error:
            self.error = error


@contextmanager
def running(work: Callable[[Sequence[IncomingMessage]], Intake] = take_in_and_hint, **options: Any) -> Iterator[Runner]:
    """A consumer that is stopped at the end and must not have failed."""
    runner = Runner(work, **options)
    try:
        yield runner
    finally:
        runner.stop.set()
        runner.join()
    assert runner.error is None, runner.error
