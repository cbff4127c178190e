"""The correlation id of a request or a WebSocket: taken over or made, in every log line, and sent back."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import structlog

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[Any]]

HEADER = b"x-correlation-id"
MAX_CHARACTERS = 128
ANSWERS = frozenset({"http.response.start", "websocket.accept"})


def with_correlation_id(application: Application) -> Application:
    """The application, each of whose HTTP answers and WebSocket handshakes carries `X-Correlation-ID`.

    Around Django, not in its middleware: WebSockets and answers to faulty requests have one, too.
    """

    async def correlated(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await application(scope, receive, send)
            return
        correlation_id = given(scope["headers"]) or uuid.uuid4().hex

        async def answer(message: MutableMapping[str, Any]) -> None:
            if message["type"] in ANSWERS:
                message["headers"] = [*message.get("headers", ()), (HEADER, correlation_id.encode())]
            await send(message)

        with structlog.contextvars.bound_contextvars(correlation_id=correlation_id):
            await application(scope, receive, answer)

    return correlated


def given(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The caller's own id, if it is one: 1 to 128 printable ASCII characters."""
    value = next((value for name, value in headers if name.lower() == HEADER), b"").strip()
    text = value.decode("latin-1")
    return text if 0 < len(text) <= MAX_CHARACTERS and text.isascii() and text.isprintable() else None
