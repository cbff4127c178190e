"""The web process: `uvicorn notifyhub.asgi:application`."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any
from urllib.parse import ParseResult

from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from django.core.asgi import get_asgi_application
from django.core.exceptions import ImproperlyConfigured

from notifyhub.correlation import Application, with_correlation_id


class BrowserOriginValidator(OriginValidator):
    """Refuses other sites' pages. Apps send no Origin, and a token that a page cannot read is all they need."""

    def valid_origin(self, parsed_origin: ParseResult | None) -> bool:
        return parsed_origin is None or self.validate_origin(parsed_origin)


def _application() -> Application:
    # WhiteNoise answers with a file, which Django reads in a thread; for small files that is as good as it gets.
    warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "notifyhub.settings")
    http: Any = get_asgi_application()
    # These import models, which are there only once Django is set up.
    from django.conf import settings  # noqa: PLC0415

    from notifications.routing import websocket_urlpatterns  # noqa: PLC0415
    from notifications.telemetry import serve_own  # noqa: PLC0415

    serve_own()
    sockets = BrowserOriginValidator(URLRouter(websocket_urlpatterns), settings.ALLOWED_HOSTS)
    return with_correlation_id(ProtocolTypeRouter({"http": http, "websocket": sockets}))


try:
    application = _application()
except ImproperlyConfigured as error:
    # One line that names the setting is worth more to an operator than a traceback.
    sys.exit(f"notifyhub: {error}")
