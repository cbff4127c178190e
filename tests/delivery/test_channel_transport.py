"""The one question the transport answers: when no answer came, can the request have arrived?

Against servers of a few lines, because what matters is what happens on the wire at an exact moment.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from delivery.channels.policy import ChannelPolicy
from delivery.channels.transport import HttpClient, InvalidRequestError, NeverSentError, NoAnswerError, Request

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
SECRET_PATH = "/webhooks/1/very-secret-token"


class Server:
    """Reads whole requests, counts them, and answers each as `behaviour` says."""

    def __init__(self, behaviour: Callable[[Server, asyncio.StreamWriter], object]) -> None:
        self.behaviour = behaviour
        self.requests = 0
        self.connections = 0
        self.received = asyncio.Event()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.split(b":")[1]))
                self.requests += 1
                self.received.set()
                self.behaviour(self, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@asynccontextmanager
async def serving(behaviour: Callable[[Server, asyncio.StreamWriter], object]) -> AsyncIterator[Server]:
    server = Server(behaviour)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()


@asynccontextmanager
async def client(url: str, *, seconds: float = 5.0, connections: int = 10) -> AsyncIterator[HttpClient]:
    http = HttpClient(url, policy=ChannelPolicy(timeout_seconds=seconds, concurrency=connections))
    try:
        yield http
    finally:
        await http.close()


def request(url: str) -> Request:
    return Request(url + SECRET_PATH, {"content-type": "application/json"}, b"{}")


def answer(server: Server, writer: asyncio.StreamWriter) -> None:
    writer.write(OK)


def reset(server: Server, writer: asyncio.StreamWriter) -> None:
    linger_zero = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_zero)
    writer.transport.abort()


def close(server: Server, writer: asyncio.StreamWriter) -> None:
    writer.close()


def stay_silent(server: Server, writer: asyncio.StreamWriter) -> None:
    """The request is read, and nothing is written."""


def answer_half(server: Server, writer: asyncio.StreamWriter) -> None:
    writer.write(OK[:-1])
    writer.close()


def answer_half_and_wait(server: Server, writer: asyncio.StreamWriter) -> None:
    writer.write(OK[:-1])


def answer_garbage(server: Server, writer: asyncio.StreamWriter) -> None:
    writer.write(b"not http at all\r\n\r\n")


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (reset, "connection_lost"),
        (close, "connection_lost"),
        (stay_silent, "timeout"),
        (answer_half, "connection_lost"),
        (answer_half_and_wait, "timeout"),
        (answer_garbage, "connection_lost"),
    ],
)
async def test_a_request_that_went_out_is_in_doubt_and_is_not_repeated(
    behaviour: Callable[[Server, asyncio.StreamWriter], object], code: str
) -> None:
    async with serving(behaviour) as server, client(server.url) as http:
        with pytest.raises(NoAnswerError) as error:
            await http.post(request(server.url), 0.3)
    assert error.value.code == code
    assert server.requests == 1


def reset_the_second(server: Server, writer: asyncio.StreamWriter) -> None:
    (answer if server.requests == 1 else reset)(server, writer)


async def test_a_reset_of_a_reused_connection_is_in_doubt_as_well() -> None:
    async with serving(reset_the_second) as server, client(server.url) as http:
        assert (await http.post(request(server.url), 5)).status == 200
        with pytest.raises(NoAnswerError):
            await http.post(request(server.url), 5)
    assert (server.requests, server.connections) == (2, 1)


async def test_a_refused_connection_sent_nothing() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # Bound, but nobody listens.
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        async with client(url) as http:
            with pytest.raises(NeverSentError, match="connect_error"):
                await http.post(request(url), 5)


async def test_a_tls_handshake_that_never_ends_sent_nothing() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        async with client(url, seconds=0.4) as http:
            with pytest.raises(NeverSentError, match="connect_timeout"):
                await http.post(request(url), 0.4)


async def test_without_a_free_connection_in_time_nothing_was_sent() -> None:
    async with serving(stay_silent) as server, client(server.url, connections=1) as http:
        first = asyncio.create_task(http.post(request(server.url), 5))
        await server.received.wait()
        with pytest.raises(NeverSentError, match="no_free_connection"):
            await http.post(request(server.url), 0.2)
        await http.close()
        with pytest.raises(NoAnswerError, match="client_closed"):
            await first
    assert server.requests == 1


async def test_a_header_that_cannot_be_sent_is_reported_as_such() -> None:
    async with serving(answer) as server, client(server.url) as http:
        with pytest.raises(InvalidRequestError):
            await http.post(Request(server.url, {"apns-topic": "a\nb"}, b""), 5)
    assert server.requests == 0


async def test_connections_are_reused() -> None:
    async with serving(answer) as server, client(server.url) as http:
        for _ in range(20):
            await http.post(request(server.url), 5)
    assert (server.requests, server.connections) == (20, 1)


async def test_a_redirect_is_not_followed() -> None:
    def redirect(server: Server, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 307 x\r\nlocation: {server.url}/other\r\ncontent-length: 0\r\n\r\n".encode())

    async with serving(redirect) as server, client(server.url) as http:
        assert (await http.post(request(server.url), 5)).status == 307
    assert server.requests == 1


@pytest.mark.parametrize("behaviour", [reset, stay_silent])
async def test_an_error_never_names_the_url(behaviour: Callable[[Server, asyncio.StreamWriter], object]) -> None:
    async with serving(behaviour) as server, client(server.url) as http:
        with pytest.raises(NoAnswerError) as error:
            await http.post(request(server.url), 0.2)
    assert "secret" not in repr(error.value)
    assert error.value.__cause__ is None  # A traceback would show the library's text, URL and all.
    assert error.value.__suppress_context__
