"""rediss:// reaches every place that speaks to Redis. The bundled server has no TLS: a relay in front of it does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from delivery.broker import WakingRedisBroker, make_broker
from delivery.guards import shared
from devstack.stack import Stack
from followers.redis_client import client
from notifyhub import admin_login, health
from notifyhub.channel_layer import ChannelLayer
from tests.deploy.tls_relay import tls_before


@pytest.fixture(scope="module")
def rediss_url(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The tests' Redis behind TLS, by a certificate of an authority that only this URL names."""
    with tls_before(stack.valkey.port, tmp_path_factory.mktemp("tls")) as (port, authority):
        yield f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={authority}"


def test_the_queue(rediss_url: str) -> None:
    broker = make_broker(rediss_url, "tls-test", "", [])
    assert isinstance(broker, WakingRedisBroker)
    assert broker.client.ping()
    broker.client.close()


async def test_live_push(rediss_url: str) -> None:
    layer = ChannelLayer(hosts=[{"address": rediss_url, "socket_timeout": 15}])
    channel = await layer.new_channel()
    await layer.group_add("tls", channel)
    await asyncio.to_thread(layer.publish_many, [("tls", {"type": "test.told"})])
    async with asyncio.timeout(10):
        assert await layer.receive(channel) == {"type": "test.told"}
    await layer.flush()


async def test_guards_and_presence(rediss_url: str, settings: Any) -> None:
    settings.REDIS_URL = rediss_url
    guards = shared.connect()
    assert await guards.ping()
    await guards.aclose()
    assert client().ping()
    health._check_redis()


def test_logins_are_counted_together(rediss_url: str) -> None:
    ((limit, who), _) = admin_login._limits("tls", "192.0.2.1")
    assert admin_login._shared(rediss_url, "tls-test").hit(limit, *who)


def test_an_authority_that_nobody_named_is_refused(rediss_url: str) -> None:
    broker = make_broker(urlsplit(rediss_url)._replace(query="").geturl(), "tls-test", "", [])
    assert isinstance(broker, WakingRedisBroker)
    with pytest.raises(Exception, match="certificate verify failed"):
        broker.client.ping()
