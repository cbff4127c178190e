"""Where the WebSockets live."""

from typing import Any

from django.urls import URLPattern, path, re_path

from notifications.consumers import InboxConsumer


async def refuse(scope: Any, receive: Any, send: Any) -> Any:
    """Any other address: closed before it is accepted, which a client sees as HTTP 403."""
    await send({"type": "websocket.close"})


websocket_urlpatterns: list[URLPattern] = [
    path("ws/inbox/", InboxConsumer.as_asgi()),
    re_path("", refuse),
]
