"""The web process: `uvicorn notifyhub.asgi:application`."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from typing import Any
from urllib.parse import urlparse

from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from django.core.asgi import get_asgi_application
from django.core.exceptions import ImproperlyConfigured
from django.urls import get_resolver

from followers.spans import start
from notifications.frames import SUBPROTOCOL, CloseCode
from notifyhub.correlation import Application, with_correlation_id


class BrowserOriginValidator(OriginValidator):
    """Refuses other sites' pages. Apps send no Origin, and a token that a page cannot read is all they need.

    A refusal comes after the handshake, as close code 4403: a browser shows its page no HTTP status, and what it shows
    as a lost line the page would try again for ever.
    """

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        if self._is_welcome(dict(scope["headers"]).get(b"origin")):
            return await self.application(scope, receive, send)
        await receive()  # The handshake.
        offered = scope.get("subprotocols", ())
        # A browser that has offered subprotocols and is given none ends the line itself, and sees no close code.
        await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL if SUBPROTOCOL in offered else None})
        close = {"code": CloseCode.FORBIDDEN.value, "reason": "origin_not_allowed"}
        return await send({"type": "websocket.close", **close})

    def _is_welcome(self, origin: bytes | None) -> bool:
        if origin is None:
            return True
        try:
            return self.validate_origin(urlparse(origin.decode("ascii")))
        except ValueError:  # No ASCII, no address, or a port that is none: nothing that anybody has allowed.
            return False


def _application() -> Application:
    # WhiteNoise answers with a file, which Django reads in a thread; for small files that is as good as it gets.
    warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "notifyhub.settings")
    # Before Django loads its middleware: one is added to it.
    start("web")
    http: Any = get_asgi_application()
    # These import models, which are there only once Django is set up.
    from django.conf import settings  # noqa: PLC0415

    from notifications.routing import websocket_urlpatterns  # noqa: PLC0415
    from notifications.telemetry import serve_own  # noqa: PLC0415

    serve_own()
    _settle()
    sockets = BrowserOriginValidator(
        URLRouter(websocket_urlpatterns), [*settings.ALLOWED_HOSTS, *settings.INBOX_ORIGINS]
    )
    return with_correlation_id(ProtocolTypeRouter({"http": http, "websocket": sockets}))


def _settle() -> None:
    """Loads every page's code, and takes what is loaded out of the garbage collector's sight.

    A page over ten thousand alerts makes it look through everything again and again: half of that page's CPU.
    """
    get_resolver().url_patterns  # noqa: B018  Reading it is what imports them.
    gc.collect()
    gc.freeze()


try:
    application = _application()
except ImproperlyConfigured as error:
    # One line that names the setting is worth more to an operator than a traceback.
    sys.exit(f"notifyhub: {error}")
