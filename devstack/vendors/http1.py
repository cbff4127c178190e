"""A lean HTTP/1.1 server: one parser per connection, no task per request.

A sandbox vendor has to keep up with several thousand requests a second beside the workers it serves, on the same
cores; general-purpose frameworks spend most of that on features which nobody asks of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from http import HTTPStatus
from typing import cast
from urllib.parse import unquote

import httptools

from devstack.vendors.messages import Ending, Reply, Request, Service, Session

MAX_BODY_BYTES = 1024 * 1024
STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
BODILESS = frozenset({204, 304})


class Http1Connection(asyncio.Protocol):
    """One client connection. Pipelined requests are answered one after another, in order."""

    def __init__(self, service: Service, connections: set[Http1Connection]) -> None:
        self._service = service
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._session = Session()
        self._waiting: deque[tuple[Request, bool]] = deque()
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._reset_message()

    def _reset_message(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body = b""

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        self._service.connection_opened()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._connections.discard(self)
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._busy:
            self._busy = False
            self._service.finished()
        self._service.connection_closed()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(400)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # The parser's side.

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > MAX_BODY_BYTES:
            self._refuse(413)

    def on_message_complete(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        path, _, query = self._url.decode("latin-1").partition("?")
        request = Request(
            method=self._parser.get_method().decode("ascii"),
            path=unquote(path) if "%" in path else path,
            query=query,
            headers=self._headers,
            body=self._body,
            session=self._session,
        )
        keep_alive = self._parser.should_keep_alive()
        self._reset_message()
        if self._busy:
            self._waiting.append((request, keep_alive))
        else:
            self._begin(request, keep_alive)

    # Answering.

    def _begin(self, request: Request, keep_alive: bool) -> None:
        self._busy = True
        reply = self._service.handle(request)
        if reply.ending is Ending.HANG:
            return
        if reply.begin is not None:
            reply.begin(partial(self._answer, reply, keep_alive))
        elif reply.delay_seconds > 0:
            self._timer = self._loop.call_later(reply.delay_seconds, self._answer, reply, keep_alive)
        else:
            self._answer(reply, keep_alive)

    def _answer(self, reply: Reply, keep_alive: bool) -> None:
        self._timer = None
        transport = self._transport
        if transport is None:
            return
        self._busy = False
        self._service.finished()
        if reply.ending is not Ending.ANSWER:
            transport.abort()
            return
        transport.write(render(reply, keep_alive))
        if not keep_alive:
            transport.close()
        elif self._waiting:
            self._begin(*self._waiting.popleft())

    def _refuse(self, status: int) -> None:
        """Answer what is not understood as HTTP at all; nothing is known of the vendor's form here."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(render(Reply(status), keep_alive=False))
            self._transport.close()


def render(reply: Reply, keep_alive: bool) -> bytes:
    """The answer's bytes, in one piece so that it leaves in one packet."""
    head = [STATUS_LINES.get(reply.status) or f"HTTP/1.1 {reply.status} Unknown\r\n"]
    head.extend(f"{name}: {value}\r\n" for name, value in reply.headers)
    if reply.status not in BODILESS:
        head.append(f"content-length: {len(reply.body)}\r\n")
    head.append("\r\n" if keep_alive else "connection: close\r\n\r\n")
    encoded = "".join(head).encode("latin-1")
    return encoded if reply.status in BODILESS else encoded + reply.body
