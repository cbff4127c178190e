"""A WebSocket client that only listens: thousands of them must not cost what they are to measure.

It speaks as much of RFC 6455 as the server does here: unmasked, unfragmented frames without extensions, and pings,
which it answers. Everything else raises.
"""

from __future__ import annotations

import asyncio
import base64
import os
import struct
from collections.abc import Callable
from typing import cast

TEXT, CLOSE, PING = 0x81, 0x88, 0x89  # The first byte of a frame: final, and its opcode.
PONG = 0x8A
HEADER_BYTES, LONG_HEADER_BYTES = 2, 4
TWO_MORE_BYTES = 126  # Instead of a length: it is in the two bytes that follow.


class ListeningSocket(asyncio.Protocol):
    """`opened` makes one."""

    def __init__(self, hear: Callable[[bytes], None]) -> None:
        self._hear = hear
        self._data = b""
        self._is_open = asyncio.Event()
        self.has_heard = asyncio.Event()
        """Set by the first frame."""

    @classmethod
    async def opened(cls, port: int, token: str, hear: Callable[[bytes], None]) -> ListeningSocket:
        """Connects to the inbox of a token's follower; `hear` gets each frame's text, undecoded."""
        from notifications.frames import SUBPROTOCOL  # noqa: PLC0415  # Only once Django is set up.

        loop = asyncio.get_running_loop()
        _, socket = await loop.create_connection(lambda: cls(hear), "127.0.0.1", port)
        lines = (
            "GET /ws/inbox/ HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket", "Connection: Upgrade",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}", "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Protocol: {SUBPROTOCOL}, {token}", "", "",
        )  # fmt: skip
        socket._transport.write("\r\n".join(lines).encode())
        await socket._is_open.wait()
        return socket

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._is_open.is_set():
            self._take_the_answer()
        while self._is_open.is_set() and self._take_a_frame():
            pass

    def _take_the_answer(self) -> None:
        answer, end, rest = self._data.partition(b"\r\n\r\n")
        if end:
            if not answer.startswith(b"HTTP/1.1 101"):
                raise ConnectionError(answer.decode())
            self._data = rest
            self._is_open.set()

    def _take_a_frame(self) -> bool:
        """Returns whether there was a whole one."""
        if len(self._data) < LONG_HEADER_BYTES:
            return False  # No frame of the inbox is as short.
        kind, length, start = self._data[0], self._data[1], HEADER_BYTES
        if length == TWO_MORE_BYTES:
            length, start = struct.unpack_from("!H", self._data, HEADER_BYTES)[0], LONG_HEADER_BYTES
        elif length > TWO_MORE_BYTES:
            raise ConnectionError("A frame of 64 KiB or more.")
        if len(self._data) < start + length:
            return False
        content, self._data = self._data[start : start + length], self._data[start + length :]
        if kind == TEXT:
            self._hear(content)
            self.has_heard.set()
        elif kind == PING:
            # A client's frames are masked; by zeros they stay as they are.
            self._transport.write(bytes((PONG, 0x80 | length, 0, 0, 0, 0)) + content)
        elif kind != CLOSE:
            raise ConnectionError(f"An unexpected frame: {kind:#x}.")
        return True
