"""The channel layer of channels_redis, with bulk publishing from synchronous code and news of lost subscriptions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import redis
from channels_redis.pubsub import RedisPubSubChannelLayer, RedisPubSubLoopLayer, RedisSingleShardConnection
from django.core.exceptions import ImproperlyConfigured
from redis.asyncio.client import PubSub
from redis.backoff import NoBackoff
from redis.retry import Retry

PUBLISH_TIMEOUT_SECONDS = 2.0
PING_AFTER_SECONDS, PING_ANSWER_SECONDS = 5.0, 5.0
"""A subscription on which nothing came for so long is asked whether it lives, and has so long to answer."""


class ChannelLayer(RedisPubSubChannelLayer):
    """Consumers use it like any channel layer; fan-out workers, which have no event loop, use `publish_many`.

    Raises ImproperlyConfigured for more than one host: a pipeline goes to one server.
    """

    def __init__(self, *args: Any, hosts: list[dict[str, Any]], **kwargs: Any) -> None:
        if len(hosts) != 1:
            raise ImproperlyConfigured(f"The channel layer publishes to exactly one Redis server, not {len(hosts)}.")
        super().__init__(*args, hosts=hosts, **kwargs)
        self._address: str = hosts[0]["address"]
        # Never connects: it only knows how the library names a group's channel.
        self._names = RedisPubSubLoopLayer(hosts=hosts, channel_layer=self, **kwargs)
        self.resubscribed: list[Callable[[], None]] = []
        """Called in the event loop after a lost subscription is back: what was published in between never came."""

    def publish_many(self, messages: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Sends each message to its group in one pipeline; may be called from any thread.

        Parameters:
          messages: (group, message), a message being what a consumer's handler gets: `type` and msgpack-able values.

        Raises redis.RedisError while Redis is away; some of the messages may have been sent then.
        """
        with self._publisher.pipeline(transaction=False) as pipeline:
            for group, message in messages:
                pipeline.publish(self._names._get_group_channel_name(group), self.serialize(message))
            pipeline.execute()

    @cached_property
    def _publisher(self) -> redis.Redis:
        return redis.Redis.from_url(
            self._address,
            socket_timeout=PUBLISH_TIMEOUT_SECONDS,
            socket_connect_timeout=PUBLISH_TIMEOUT_SECONDS,
            # Once more at once, on a new connection: a pooled one does not survive a restart of Redis.
            retry=Retry(NoBackoff(), 1),
        )

    def _get_layer(self) -> RedisPubSubLoopLayer:
        is_new_loop = len(self._layers)
        layer = super()._get_layer()
        if len(self._layers) != is_new_loop:
            layer._shards = [_ReportingConnection(shard.host, layer) for shard in layer._shards]
        return layer


class _ReportingConnection(RedisSingleShardConnection):
    """Says when its subscriptions were lost and are back; the library renews them silently."""

    def _ensure_redis(self) -> None:
        is_new = self._redis is None
        super()._ensure_redis()
        if is_new:
            self._pubsub = _ReportingPubSub(self._redis.connection_pool, self._report)

    def _report(self) -> None:
        for callback in self.channel_layer.channel_layer.resubscribed:
            callback()


class _ReportingPubSub(PubSub):
    """Also gives up a connection that has gone silent: on a subscription nobody else would ever notice.

    What was published meanwhile is made up for by the catching up that a report brings about.
    """

    def __init__(self, pool: Any, report: Callable[[], None]) -> None:
        super().__init__(pool)
        self._report = report
        self._heard_at = time.monotonic()
        self._asked_at: float | None = None

    async def on_connect(self, connection: Any) -> None:
        """Runs on every connect but the first; the parent subscribes again."""
        await super().on_connect(connection)
        self._report()

    async def parse_response(self, block: bool = True, timeout: float = 0) -> Any:  # noqa: ASYNC109 - The parent's.
        response = await super().parse_response(block, timeout)
        now = time.monotonic()
        if response is not None:
            self._heard_at, self._asked_at = now, None
        elif self._asked_at is None:
            if now - self._heard_at > PING_AFTER_SECONDS:
                self._asked_at = now
                await self.ping()
        elif now - self._asked_at > PING_ANSWER_SECONDS and self.connection is not None:
            self._heard_at, self._asked_at = now, None
            await self.connection.disconnect(nowait=True)  # The next look connects again.
        return response
