"""A TCP proxy whose faults are switched at run time: latency, resets, connections that go silent, refusal.

It stands between the processes and one server. What discovers servers by itself goes past it: a MongoDB client needs
`directConnection=true` beside the proxy's port, and Kafka would have to advertise the proxy's address.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import NoReturn, Self, TypeVar

HOST = "127.0.0.1"
_Result = TypeVar("_Result")
_Pipe = asyncio.Queue[tuple[float, bytes]]
"""When each chunk arrives, by the loop's clock; an empty one is the end."""
CHUNK_BYTES = 64 * 1024
CHUNKS_UNDER_WAY = 256  # Each way; who sends more must wait.
BACKLOG = 1024
CALL_TIMEOUT_SECONDS = 10
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # socket(7), SO_LINGER on with no time: close sends RST, not FIN.


@dataclass(frozen=True, slots=True)
class Faults:
    """What is wrong with the network. The default is nothing."""

    latency_seconds: float = 0.0
    jitter_seconds: float = 0.0  # Added to the latency of each chunk, uniform between 0 and this.
    reset_chance: float = 0.0  # 0..1, for each chunk that passes: both sides get RST instead.
    silent: bool = False  # Half open: what is sent is taken and goes nowhere, and nobody is told.
    silent_after_bytes: int | None = None  # The same for each connection once so many bytes have passed.
    refuses: bool = False  # Nobody listens; connections that are open get RST.


class _Connection:
    """One client's connection and the one behind it, both ways."""

    def __init__(self, proxy: Proxy, client: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        self._proxy = proxy
        self._client_reader, self._client_writer = client
        self._writers = [self._client_writer]
        self._bytes = 0
        self._silent = False
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        try:
            reader, writer = await asyncio.open_connection(HOST, self._proxy.target_port)
        except OSError:
            self.reset()  # What a client sees whose server is gone.
            return
        self._writers.append(writer)
        there: _Pipe = asyncio.Queue(CHUNKS_UNDER_WAY)
        back: _Pipe = asyncio.Queue(CHUNKS_UNDER_WAY)
        ways = (
            self._take(self._client_reader, there), self._give(there, writer),
            self._take(reader, back), self._give(back, self._client_writer),
        )  # fmt: skip
        self._tasks = [asyncio.create_task(way) for way in ways]
        try:
            await asyncio.gather(*self._tasks)
        except (OSError, asyncio.CancelledError):
            self.reset()
        finally:
            for task in self._tasks:
                task.cancel()
            for each in self._writers:
                each.close()

    def reset(self) -> None:
        """End both sides by RST."""
        for writer in self._writers:
            connection = writer.get_extra_info("socket")
            if connection is not None:
                with suppress(OSError):  # Closed already.
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()

    async def _take(self, reader: asyncio.StreamReader, pipe: _Pipe) -> None:
        """Read one way, and decide what becomes of each chunk and when it arrives."""
        loop = asyncio.get_running_loop()
        while data := await reader.read(CHUNK_BYTES):
            faults = self._proxy.faults
            if self._goes_silent(faults):
                await self._swallow(reader)
            if faults.reset_chance and self._proxy.random.random() < faults.reset_chance:
                self._proxy.resets += 1
                self.reset()
                return
            self._bytes += len(data)
            delay = faults.latency_seconds + self._proxy.random.uniform(0, faults.jitter_seconds)
            await pipe.put((loop.time() + delay, data))
        await pipe.put((loop.time(), b""))

    async def _give(self, pipe: _Pipe, writer: asyncio.StreamWriter) -> None:
        """Write one way, in order and not before its time: chunks are under way side by side, as on a long line."""
        loop = asyncio.get_running_loop()
        while True:
            due, data = await pipe.get()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            if not data:
                break
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    def _goes_silent(self, faults: Faults) -> bool:
        """Bytes that are missing cannot come later: a connection that went silent stays so."""
        limit = faults.silent_after_bytes
        if not self._silent and (faults.silent or (limit is not None and self._bytes >= limit)):
            self._silent = True
            self._proxy.silenced += 1
        return self._silent

    async def _swallow(self, reader: asyncio.StreamReader) -> NoReturn:
        """Take what comes until that side gives up; only then does the other one hear of it."""
        while await reader.read(CHUNK_BYTES):
            pass
        raise ConnectionResetError


class Proxy:
    """A proxy in a thread of its own, from :meth:`start` to :meth:`stop`.

    Parameters:
      target_port: where the server listens, on 127.0.0.1.
      port: where the proxy listens; 0 = a free one.
      seed: the same seed and the same traffic meet the same faults.
    """

    def __init__(self, target_port: int, port: int = 0, seed: int = 0) -> None:
        self.target_port = target_port
        self.port = port
        self.faults = Faults()
        self.random = random.Random(seed)
        self.resets = 0
        """Connections that `reset_chance` ended."""
        self.silenced = 0
        """Connections that went silent."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{target_port}", daemon=True)
        self._server: asyncio.Server | None = None
        self._connections: dict[_Connection, asyncio.Task[None]] = {}

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._connections)

    def start(self) -> Self:
        self._thread.start()
        self._call(self._listen)
        return self

    def stop(self) -> None:
        """Stop listening and end every connection."""
        if not self._thread.is_alive():
            return
        self._call(self._close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_TIMEOUT_SECONDS)
        self._loop.close()

    def set(self, faults: Faults) -> None:
        """Switch to other faults; open connections meet them too. A connection that went silent stays so."""

        async def switch() -> None:
            self.faults = faults
            if faults.refuses:
                await self._close()
            elif self._server is None:
                await self._listen()

        self._call(switch)

    def reset_all(self) -> int:
        """End every open connection by RST. Returns how many there were."""

        async def reset() -> int:
            open_now = list(self._connections)
            for connection in open_now:
                connection.reset()
            return len(open_now)

        return self._call(reset)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, HOST, self.port, backlog=BACKLOG)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, (reader, writer))
        task = asyncio.current_task()
        if task is None:  # Never: asyncio runs this as a task.
            return
        self._connections[connection] = task
        try:
            await connection.run()
        finally:
            del self._connections[connection]

    async def _close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for connection, task in list(self._connections.items()):
            connection.reset()
            task.cancel()
        await asyncio.gather(*self._connections.values(), return_exceptions=True)

    def _call(self, work: Callable[[], Awaitable[_Result]]) -> _Result:
        async def run() -> _Result:
            return await work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(CALL_TIMEOUT_SECONDS)
