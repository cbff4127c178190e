"""A vendor that costs next to nothing: FCM v1 over HTTP/1.1 which accepts everything after 30 ms.

The sandbox vendors check every field, and on two cores their share would be a good part of what is measured. This one
looks at the token, the key and the trade of each message, remembers when it was accepted, and says so afterwards.
Started as a process of its own: `python -m bench.vendor PORT LATENCY_MS`.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from http.client import HTTPConnection
from typing import Any, cast

import uvloop

MESSAGE = re.compile(rb'"token": ?"([^"]+)".*?"event_id": ?"([^"]+)".*?"tag": ?"([0-9a-f]{24})"', re.DOTALL)
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
TOKEN_ANSWER = b'{"access_token": "bench", "expires_in": 3600, "token_type": "Bearer"}'
SEND, TOKEN, CONTROL = b"POST /v1/projects/", b"POST /token", b"GET /accepted"


class Book:
    """What was accepted since it was last read."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.accepted: list[tuple[str, str, float]] = []  # Trade, key, epoch seconds.
        self.keys: set[bytes] = set()
        self.duplicates = 0
        self.refused = 0
        self.connections = 0

    def accept(self, event: bytes, key: bytes) -> None:
        self.duplicates += key in self.keys
        self.keys.add(key)
        self.accepted.append((event.decode(), key.decode(), time.time()))

    def as_json(self, whole: bool) -> bytes:
        told: dict[str, Any] = {"count": len(self.accepted), "duplicates": self.duplicates, "refused": self.refused}
        told["connections"] = self.connections
        if whole:
            told["accepted"] = self.accepted
            self.clear()
        return json.dumps(told).encode()


class Connection(asyncio.Protocol):
    """One client's connection; requests come one after another, as HTTP/1.1 clients send them."""

    def __init__(self, book: Book, latency_seconds: float) -> None:
        self._book = book
        self._latency_seconds = latency_seconds
        self._later: Callable[..., Any] = asyncio.get_running_loop().call_later
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._has_sent = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._received += data
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        length = LENGTH.search(self._received, 0, head_end)
        end = head_end + 4 + (int(length[1]) if length else 0)
        if len(self._received) >= end:
            request, self._received = self._received[:end], self._received[end:]
            self._take(request, head_end)

    def _take(self, request: bytes, head_end: int) -> None:
        if request.startswith(SEND):
            self._book.connections += not self._has_sent
            self._has_sent = True
            message = MESSAGE.search(request, head_end)
            if message is None:
                self._book.refused += 1
                self._answer(b'{"error": {"status": "INVALID_ARGUMENT"}}', b"400 Bad Request")
            else:
                self._later(self._latency_seconds, partial(self._accept, message[2], message[3]))
        elif request.startswith(TOKEN):
            self._answer(TOKEN_ANSWER)
        elif request.startswith(CONTROL):
            self._answer(self._book.as_json(whole=request.startswith(CONTROL + b"?whole")))
        else:
            self._book.refused += 1
            self._answer(b"{}", b"404 Not Found")

    def _accept(self, event: bytes, key: bytes) -> None:
        if self._transport is not None:
            self._book.accept(event, key)
            self._answer(b'{"name": "projects/bench/messages/%b"}' % key)

    def _answer(self, body: bytes, status: bytes = b"200 OK") -> None:
        if self._transport is not None:
            head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
            self._transport.write(head + body)


class VendorClient:
    """Asks a running vendor what it has accepted."""

    def __init__(self, port: int) -> None:
        self._port = port

    def count(self) -> int:
        """How many messages were accepted since the last `take`."""
        told = self._ask("/accepted")
        return int(told["count"])

    def take(self) -> dict[str, Any]:
        """count, duplicates, refused, connections, and `accepted`: (trade, key, epoch seconds) each. Begins anew."""
        return self._ask("/accepted?whole")

    def _ask(self, path: str) -> dict[str, Any]:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.request("GET", path)
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer
        finally:
            connection.close()


async def serve(port: int, latency_seconds: float) -> None:
    book = Book()

    def connect() -> Connection:
        return Connection(book, latency_seconds)

    server = await asyncio.get_running_loop().create_server(connect, "127.0.0.1", port, backlog=2_000)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2]) / 1000))
