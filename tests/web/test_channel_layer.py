"""Bulk publishing must speak exactly as channels_redis does: an upgrade that changes its format fails here."""

from __future__ import annotations

import asyncio

import pytest
from channels.consumer import AsyncConsumer
from channels.layers import get_channel_layer
from django.core.exceptions import ImproperlyConfigured

from devstack.proxy import Faults, Proxy
from devstack.stack import Stack
from notifyhub import channel_layer
from notifyhub.channel_layer import ChannelLayer
from tests.web.server import ANSWER_SECONDS

pytestmark = pytest.mark.django_db(transaction=True)  # A consumer closes old database connections between messages.


class Listener(AsyncConsumer):
    """A plain Channels consumer that keeps what its group is told."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = asyncio.Event()
        self.heard: asyncio.Queue[dict] = asyncio.Queue()

    async def test_join(self, event: dict) -> None:
        assert self.channel_layer is not None
        await self.channel_layer.group_add("prices.X", self.channel_name)
        await self.channel_layer.group_send("prices.X", {"type": "test.ready"})

    async def test_ready(self, event: dict) -> None:
        self.ready.set()

    async def test_told(self, event: dict) -> None:
        self.heard.put_nowait(event)


async def test_what_is_published_in_bulk_reaches_a_plain_consumer():
    layer = get_channel_layer()
    assert isinstance(layer, ChannelLayer)
    consumer, incoming = Listener(), asyncio.Queue[dict]()
    running = asyncio.create_task(consumer({"type": "test"}, incoming.get, lambda _: asyncio.sleep(0)))
    incoming.put_nowait({"type": "test.join"})
    async with asyncio.timeout(ANSWER_SECONDS):
        await consumer.ready.wait()
        messages = [("prices.X", {"type": "test.told", "n": n, "text": "é", "none": None}) for n in range(3)]

        # From a thread without an event loop, as the fan-out does.
        await asyncio.to_thread(layer.publish_many, [("prices.Y", {"type": "test.told", "n": -1}), *messages])

        assert [await consumer.heard.get() for _ in messages] == [message for _, message in messages]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await layer.flush()


async def test_a_subscription_that_went_silent_is_renewed_and_reported(stack: Stack, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(channel_layer, "PING_AFTER_SECONDS", 0.2)
    monkeypatch.setattr(channel_layer, "PING_ANSWER_SECONDS", 0.2)
    direct = ChannelLayer(hosts=[{"address": stack.env["REDIS_URL"]}])
    told = ("prices.X", {"type": "test.told"})
    with Proxy(stack.valkey.port) as proxy:
        layer = ChannelLayer(hosts=[{"address": f"redis://{proxy.address}/0"}])
        channel, reported = await layer.new_channel(), asyncio.Event()
        layer.resubscribed.append(reported.set)
        await layer.group_add("prices.X", channel)
        async with asyncio.timeout(ANSWER_SECONDS):
            # Given a subscription that has lost a message, and with it its line, without a word.
            await asyncio.to_thread(proxy.set, Faults(silent=True))
            while not proxy.silenced:
                await asyncio.to_thread(direct.publish_many, [told])
            await asyncio.to_thread(proxy.set, Faults())

            # Then it comes back by itself, says so, and hears what is published.
            await reported.wait()
            receiving = asyncio.create_task(layer.receive(channel))
            while not receiving.done():
                await asyncio.to_thread(direct.publish_many, [told])
        assert receiving.result() == told[1]
        await layer.flush()


def test_more_than_one_redis_host_is_refused():
    with pytest.raises(ImproperlyConfigured):
        ChannelLayer(hosts=[{"address": "redis://a:1"}, {"address": "redis://b:1"}])
