"""A real uvicorn in this process, so that a test can look into it, and clients that speak to it over TCP."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from websockets.asyncio.client import ClientConnection, connect

from notifications.frames import SUBPROTOCOL

ANSWER_SECONDS = 10
"""No answer by then is a failure, not slowness."""


class Server:
    """uvicorn in a thread with its own event loop."""

    def __init__(self, port: int = 0) -> None:
        from notifyhub.asgi import application

        self._started = threading.Event()
        config = uvicorn.Config(application, host="127.0.0.1", port=port, lifespan="off", log_config=None)
        self._uvicorn = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(ANSWER_SECONDS)

    def stop(self) -> None:
        self._uvicorn.should_exit = True
        self._thread.join(ANSWER_SECONDS)
        assert not self._thread.is_alive()

    @property
    def address(self) -> str:
        host, port = self._uvicorn.servers[0].sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        serving = asyncio.create_task(self._uvicorn.serve())
        while not self._uvicorn.started and not serving.done():  # noqa: ASYNC110 - uvicorn only sets a flag.
            await asyncio.sleep(0.01)
        self._started.set()
        await serving


@contextmanager
def running_server(port: int = 0) -> Iterator[Server]:
    """On a free port, unless one is named."""
    server = Server(port)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class App:
    """A follower's app: one socket, and what has come over it."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def say(self, **frame: Any) -> None:
        await self.socket.send(json.dumps(frame))

    async def hear(self) -> dict[str, Any]:
        """The next frame."""
        async with asyncio.timeout(ANSWER_SECONDS):
            return json.loads(await self.socket.recv())

    async def hear_until(self, type_: str, **fields: Any) -> list[dict[str, Any]]:
        """Every frame up to and with the first one of this type and with these fields."""
        heard = []
        while True:
            frame = await self.hear()
            heard.append(frame)
            if frame["type"] == type_ and fields.items() <= frame.items():
                return heard

    async def everything_so_far(self) -> list[dict[str, Any]]:
        """All frames that come before the answer to a frame sent now; the server answers in order."""
        await self.say(type="marker")
        return (await self.hear_until("error", code="unknown_type"))[:-1]


@asynccontextmanager
async def app(server: Server, token: str, **options: Any) -> AsyncIterator[App]:
    """An app that has connected, registered and heard its unread count (the first frame, left out here)."""
    async with raw_socket(server, [SUBPROTOCOL, token], **options) as socket:
        client = App(socket)
        first = await client.hear()
        assert first["type"] == "unread_count.changed"
        yield client


def raw_socket(server: Server, subprotocols: list[str], path: str = "/ws/inbox/", **options: Any) -> connect:
    return connect(f"ws://{server.address}{path}", subprotocols=subprotocols or None, **options)  # type: ignore[arg-type]
