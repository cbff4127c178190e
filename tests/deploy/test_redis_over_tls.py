"""rediss:// reaches every place that speaks to Redis. The bundled server has no TLS: a relay in front of it does."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme

from delivery.broker import WakingRedisBroker, make_broker
from delivery.guards import shared
from devstack.stack import Stack
from followers.redis_client import client
from notifyhub import admin_login, health
from notifyhub.channel_layer import ChannelLayer


@pytest.fixture(scope="module")
def rediss_url(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The tests' Redis behind TLS, by a certificate of an authority that only this URL names."""
    authority, folder = trustme.CA(), tmp_path_factory.mktemp("tls")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    port = asyncio.run_coroutine_threadsafe(relay(stack.valkey.port, context), loop).result(10)
    yield f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={folder / 'ca.pem'}"
    asyncio.run_coroutine_threadsafe(end_connections(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


async def relay(server_port: int, context: ssl.SSLContext) -> int:
    """Starts the relay; returns its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", server_port)
        await asyncio.gather(pump(reader, back), pump(there, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    return int(server.sockets[0].getsockname()[1])


async def end_connections() -> None:
    """Ends what clients that keep their connections have left open."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
    except ConnectionError:  # One side went without a word: the other one learns it by the closing.
        return
    finally:
        sink.close()


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
