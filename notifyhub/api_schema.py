"""What the OpenAPI schema says of the API as a whole: a setting of drf-spectacular."""

from __future__ import annotations

from typing import Any

_DESCRIPTION = """\
One executed trade becomes a personal alert for each follower, with the quantity that fits *their* portfolio.

- **Services** feed traders, followers and addresses, publish updates and look up alerts, each with a key:
  `Authorization: Api-Key nh_…`. A key has scopes; each call says which one it needs.
- **Apps** show a follower's inbox and preferences, with a token that a service mints: `Authorization: Bearer …`.

Bodies are JSON. Errors are problem details (RFC 9457): act on their `code`, which never changes. Lists come newest
first, in pages; `next` is the address of the page after. Answers say how many calls are left (`RateLimit-*`), and
a 429 when to come back (`Retry-After`). Every address is taken with and without the slash at its end; a
method that it does not take is a 405, with `Allow`.
"""

SETTINGS: dict[str, Any] = {
    "TITLE": "NotifyHub",
    "VERSION": "1",
    "DESCRIPTION": _DESCRIPTION,
    "OAS_VERSION": "3.1.0",
    "TAGS": [
        {"name": "Inbox", "description": "A follower's alerts, for their app."},
        {"name": "Follower", "description": "A follower's preferences and devices, and what did not reach them."},
        {"name": "Services", "description": "For the platform's own services."},
    ],
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": [],
    "SERVE_INCLUDE_SCHEMA": False,
    "ENUM_NAME_OVERRIDES": {
        "DeliveryState": "notifications.choices.DeliveryState",
        "NotificationState": "notifications.choices.NotificationState",
        "Channel": "followers.choices.Channel",
        "PushChannel": [(name, name) for name in ("fcm", "apns", "onesignal")],
        "Level": [(name, name) for name in ("off", "critical_only", "all")],
        "AddressChannel": [(name, name) for name in ("apns", "fcm", "sms", "discord", "onesignal")],
    },
    "POSTPROCESSING_HOOKS": ["drf_spectacular.hooks.postprocess_schema_enums", "followers.api.schema.finish"],
    "SWAGGER_UI_DIST": "SIDECAR",  # Served from here: no other host is asked.
    "SWAGGER_UI_SETTINGS": {
        "deepLinking": True,
        "docExpansion": "list",
        "defaultModelsExpandDepth": -1,  # Each call shows its own.
        "displayRequestDuration": True,
        "filter": True,
    },
}
