"""The dispatch queue: which broker, which queues, and a Redis consumer that wakes up at once.

A queue carries hints and nothing else: the id of a batch that is worth a look. Losing one costs time, never an alert.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any, cast
from urllib.parse import urlsplit
from uuid import uuid4

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker, _RedisConsumer
from dramatiq.common import current_millis
from dramatiq.errors import BrokerConnectionError

from delivery.choices import BatchKind
from followers.choices import VENDOR_CHANNELS
from followers.outage import QUEUE
from notifications.choices import Priority

BROKER_ERRORS = (BrokerConnectionError, redis.RedisError)
"""What an enqueue raises while the queue is away."""

DEAD_MESSAGE_TTL_MS = 3_600_000  # A failed hint is of no use to anybody; an hour is enough to look at one.


def queue_name(kind: str, priority: str, channel: str = "") -> str:
    """fan_out_critical, deliver_fcm_normal, …: a queue per kind, channel and priority. SQS allows no dots in it."""
    return "_".join(part for part in (str(kind), str(channel), str(priority)) if part)


def queue_of(batch: dict[str, Any]) -> str:
    """The queue of a stored batch."""
    return queue_name(batch["kind"], batch["priority"], batch["channel"])


def queues_of(priority: str) -> tuple[str, ...]:
    """The queues of one priority: its fan-outs, and its deliveries on each channel."""
    fan_out = queue_name(BatchKind.FAN_OUT, priority)
    return fan_out, *(queue_name(BatchKind.DELIVER, priority, channel) for channel in VENDOR_CHANNELS)


QUEUES = tuple(queue for priority in Priority for queue in queues_of(priority))
"""Every queue, critical first."""

FAN_OUTS_IN_HAND, DELIVERIES_IN_HAND = 2, 3
"""Batches of one queue that a worker process has in hand at once.

This is the bulkhead: there are as many threads as that makes over all queues that have work, so that a channel whose
vendor hangs holds its own threads and no others. Three batches keep a channel's slots full while one is loaded and one
recorded.
"""


def in_hand(queue: str) -> int:
    """How many batches of a queue a worker process takes at once."""
    return FAN_OUTS_IN_HAND if queue.startswith(BatchKind.FAN_OUT) else DELIVERIES_IN_HAND


def threads_for(queues: Iterable[str], open_channels: Collection[str] = VENDOR_CHANNELS) -> int:
    """The threads of a worker process that serves these queues: one for each batch that it may have in hand.

    The queues of channels without credentials share one: what is left in them is skipped, which waits for no vendor.
    """
    closed = [c for c in VENDOR_CHANNELS if c not in open_channels]
    idle = {queue_name(BatchKind.DELIVER, priority, channel) for priority in Priority for channel in closed}
    served = set(queues)
    return sum(in_hand(queue) for queue in served - idle) + bool(served & idle)


def prefetch_for(queue: str, wanted: int) -> int:
    """What a consumer may take ahead; Dramatiq wants twice the threads. A process with few of them takes less."""
    return min(in_hand(queue), max(1, wanted // 4))


def make_broker(url: str, namespace: str, sqs_endpoint_url: str, middleware: list[Any]) -> dramatiq.Broker:
    """The broker that DRAMATIQ_BROKER_URL names: redis://…, rediss://… or sqs://."""
    broker: dramatiq.Broker
    if urlsplit(url).scheme == "sqs":
        from delivery.sqs import HintBroker  # noqa: PLC0415  Only where it is used: boto3 takes a while to load.

        broker = HintBroker(namespace=namespace, middleware=middleware, endpoint_url=sqs_endpoint_url)
    else:
        broker = WakingRedisBroker(
            url=url, namespace=namespace, middleware=middleware, dead_message_ttl=DEAD_MESSAGE_TTL_MS
        )
    for queue in QUEUES:
        broker.declare_queue(queue)
    return broker


class WakingRedisBroker(RedisBroker):
    """A RedisBroker whose idle consumers are woken by the enqueue itself.

    Dramatiq's consumer sleeps between polls, longer the longer nothing came: an idle alert waits 124 ms at the median
    before it is even seen. Here `enqueue` also pushes onto a short list beside the queue, and a consumer that found
    nothing blocks on that list instead of sleeping: 2 ms, at the same 0.4 % of a core when idle.
    """

    @property
    def consumer_class(self) -> type[_RedisConsumer]:
        return WakingConsumer

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> dramatiq.Consumer:
        return super().consume(queue_name, prefetch_for(queue_name, prefetch), timeout)

    def declare_queue(self, queue_name: str) -> None:
        """Without its delay queue: no message is ever delayed, and each queue would cost another polling thread."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def wake_key(self, queue: str) -> str:
        return f"{self.namespace}:wake:{queue}"

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        if delay is not None:
            raise ValueError("A hint is never delayed: batches wake by themselves.")
        return self.enqueue_many([message])[0]

    def enqueue_many(self, messages: Sequence[dramatiq.Message[Any]]) -> list[dramatiq.Message[Any]]:
        """Enqueues all of them, and wakes their consumers, in one round trip; each as the parent's `enqueue` does.

        Raises redis.RedisError; some of them may be in their queues then.
        """
        named = [message.copy(options={"redis_message_id": str(uuid4())}) for message in messages]
        for message in named:
            self.emit_before("enqueue", message, None)
        try:
            self._push(named)
        except redis.exceptions.NoScriptError:  # Redis was restarted: it has forgotten the script.
            self.client.script_load(self.scripts["dispatch"].script)
            self._push(named)
        for message in named:
            self.emit_after("enqueue", message, None)
        return named

    def _push(self, messages: Sequence[dramatiq.Message[Any]]) -> None:
        with self.client.pipeline(transaction=False) as pipeline:
            for message in messages:
                pipeline.evalsha(self.scripts["dispatch"].sha, 1, self.namespace, *self._enqueue_arguments(message))
            for queue, count in Counter(message.queue_name for message in messages).items():
                key = self.wake_key(queue)
                pipeline.lpush(key, *[b"1"] * min(count, WAKE_LIST_LENGTH))
                pipeline.ltrim(key, 0, WAKE_LIST_LENGTH - 1)
                pipeline.expire(key, WAKE_LIST_EXPIRES_SECONDS)
            pipeline.execute()

    def _enqueue_arguments(self, message: dramatiq.Message[Any]) -> list[Any]:
        """What Dramatiq's own script (dispatch.lua) takes for the command `enqueue`."""
        return [
            "enqueue",
            current_millis(),
            message.queue_name,
            self.broker_id,
            self.heartbeat_timeout,
            self.dead_message_ttl,
            self._should_do_maintenance("enqueue"),
            self._max_unpack_size(),
            message.options["redis_message_id"],
            message.encode(),
        ]


HINTS_IN_ONE_GO = 100
WAKE_LIST_LENGTH = 32  # More workers than that wake each other soon enough.
WAKE_LIST_EXPIRES_SECONDS = 60
BUSY_WAIT_SECONDS = 0.01


class WakingConsumer(_RedisConsumer):
    """Blocks on the queue's wake list where its parent sleeps."""

    def __next__(self) -> Any:
        try:
            if not self.message_cache:
                if self.outstanding_message_count >= self.prefetch:
                    # The parent would sleep ever longer, and the threads run dry meanwhile.
                    time.sleep(BUSY_WAIT_SECONDS)
                    return None
                self.message_cache = self._fetch()
                if not self.message_cache:
                    # At most the idle timeout, so that the worker can look whether it should stop.
                    self.broker.client.blpop([self.broker.wake_key(self.queue_name)], timeout=self.timeout / 1000)
                    self.message_cache = self._fetch()
                if not self.message_cache:
                    return None
        except (redis.ConnectionError, redis.TimeoutError) as error:
            QUEUE.away(error)
            raise dramatiq.ConnectionClosed(error) from None
        QUEUE.back()
        return super().__next__()

    def requeue(self, messages: Iterable[Any]) -> None:
        """Raises ConnectionClosed, as the worker expects: with another error it would never come to its end."""
        try:
            super().requeue(messages)
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise dramatiq.ConnectionClosed(error) from None

    def close(self) -> None:
        """Gives back what was fetched and not yet handed to a thread. Raises as above."""
        fetched, self.message_cache = self.message_cache, []
        self.requeue([dramatiq.Message.decode(data) for data in fetched if data])

    def _fetch(self) -> list[bytes]:
        return self.broker.do_fetch(self.queue_name, self.prefetch - self.outstanding_message_count)


def hint(batch: dict[str, Any]) -> dramatiq.Message[Any]:
    """The message that makes a worker look at a batch. The kind is the name of the actor (delivery/actors.py)."""
    return dramatiq.Message(
        queue_name=queue_of(batch),
        actor_name=batch["kind"],
        args=(str(batch["_id"]),),
        kwargs={},
        options={},
    )


def send_hints(batches: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Enqueues one hint per batch. Returns the batches whose hint could not be enqueued; those wake by themselves."""
    broker = dramatiq.get_broker()
    in_one_go = HINTS_IN_ONE_GO if isinstance(broker, WakingRedisBroker) else 1
    waiting = list(batches)
    while some := waiting[:in_one_go]:
        try:
            if isinstance(broker, WakingRedisBroker):
                broker.enqueue_many([hint(batch) for batch in some])
            else:
                broker.enqueue(hint(some[0]))
        except BROKER_ERRORS as error:
            QUEUE.away(error)
            return waiting  # The rest would only wait for the same time-outs.
        QUEUE.back()
        waiting = waiting[in_one_go:]
    return []


def queue_depths(queues: Sequence[str] = QUEUES) -> dict[str, int]:
    """Hints waiting in each of these queues; on SQS one request each. Raises BROKER_ERRORS while the queue is away."""
    broker = dramatiq.get_broker()
    if isinstance(broker, RedisBroker):
        with broker.client.pipeline(transaction=False) as pipeline:
            for queue in queues:
                pipeline.llen(f"{broker.namespace}:{queue}")
            return dict(zip(queues, pipeline.execute(), strict=True))
    return {queue: cast(Any, broker).depth(queue) for queue in queues}
