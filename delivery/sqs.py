"""The dispatch queue on Amazon SQS. Imported only where it is used: boto3 takes a while to load."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import dramatiq
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from django.conf import settings
from dramatiq.errors import BrokerConnectionError
from dramatiq_sqs import SQSBroker
from dramatiq_sqs.broker import SQSConsumer

from delivery.broker import prefetch_for
from followers.outage import QUEUE

HINT_RETENTION_SECONDS = 3_600
"""An older hint is of no use: its batch was hinted again long since."""


def ping(timeout_seconds: float) -> None:
    """One request to SQS. Raises what botocore raises while it is away or refuses."""
    once = Config(connect_timeout=timeout_seconds, read_timeout=timeout_seconds, retries={"total_max_attempts": 1})
    client = boto3.session.Session().client("sqs", endpoint_url=settings.SQS_ENDPOINT_URL or None, config=once)
    try:
        client.list_queues(QueueNamePrefix=settings.QUEUE_NAMESPACE, MaxResults=1)
    finally:
        client.close()


class HintBroker(SQSBroker):
    """An SQSBroker whose failures read like any other broker's."""

    def __init__(self, *, namespace: str, middleware: list[Any], endpoint_url: str) -> None:
        super().__init__(
            namespace=namespace,
            middleware=middleware,
            # A hint whose worker died is of use again soon, or never: the batch wakes up by itself.
            visibility_timeout=settings.SQS_VISIBILITY_TIMEOUT_SECONDS,
            retention=HINT_RETENTION_SECONDS,
            endpoint_url=endpoint_url or None,
        )

    @property
    def consumer_class(self) -> type[SQSConsumer]:
        return HintConsumer

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 20_000) -> dramatiq.Consumer:
        return super().consume(queue_name, prefetch_for(queue_name, prefetch), timeout)

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        """Raises BrokerConnectionError while SQS is away or refuses."""
        try:
            return super().enqueue(message, delay=delay)
        except (BotoCoreError, ClientError) as error:
            raise BrokerConnectionError(str(error)) from error

    def depth(self, queue_name: str) -> int:
        """Messages waiting in a queue, as SQS estimates it. Raises BrokerConnectionError as above."""
        try:
            self._ensure_queue(queue_name)
            queue = self.queues[queue_name]
            queue.load()
        except (BotoCoreError, ClientError) as error:
            raise BrokerConnectionError(str(error)) from error
        return int(queue.attributes["ApproximateNumberOfMessages"])


class HintConsumer(SQSConsumer):
    """An SQSConsumer whose failures read like any other broker's, and are told once an outage."""

    def __next__(self) -> dramatiq.Message[Any] | None:
        with _as_connection_error():
            message = super().__next__()
        QUEUE.back()
        return message

    def ack(self, message: Any) -> None:
        with _as_connection_error():
            super().ack(message)

    def nack(self, message: Any) -> None:
        with _as_connection_error():
            super().nack(message)

    def requeue(self, messages: Iterable[Any]) -> None:
        with _as_connection_error():
            super().requeue(messages)


@contextmanager
def _as_connection_error() -> Iterator[None]:
    """Raises BrokerConnectionError while SQS is away or refuses: with another error a worker never comes to its end."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        QUEUE.away(error)
        raise BrokerConnectionError(str(error)) from error
