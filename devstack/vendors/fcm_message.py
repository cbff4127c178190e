"""FCM's `Message`: which fields it may have, of which types, and what of it a person sees."""

from __future__ import annotations

import re
from typing import Any

import orjson

from devstack.vendors.messages import words

TARGETS = ("token", "topic", "condition", "fid")
MESSAGE_FIELDS = words("name data notification android webpush apns fcm_options fcmOptions") | set(TARGETS)
NOTIFICATION_FIELDS = frozenset(("title", "body", "image"))
ANDROID_FIELDS = words(
    "collapse_key priority ttl restricted_package_name data notification fcm_options direct_boot_ok "
    "bandwidth_constrained_ok restricted_satellite_ok"
)
ANDROID_NOTIFICATION_FIELDS = words(
    "title body icon color sound tag click_action body_loc_key body_loc_args title_loc_key title_loc_args "
    "channel_id ticker sticky event_time local_only notification_priority default_sound default_vibrate_timings "
    "default_light_settings vibrate_timings visibility notification_count light_settings image "
    "bypass_proxy_notification proxy"
)
APNS_FIELDS = words("headers payload fcm_options live_activity_token")
WEBPUSH_FIELDS = words("headers data notification fcm_options")
TEXT_FIELDS = words("title body image icon color sound tag click_action channel_id ticker collapse_key")
ANDROID_PRIORITIES = frozenset(("NORMAL", "HIGH", "normal", "high"))
DURATION = re.compile(r"(\d+)(?:\.\d{1,9})?s")
MAX_TTL_SECONDS = 2_419_200
RESERVED_DATA_KEYS = frozenset(("from", "message_type"))
RESERVED_DATA_PREFIXES = ("google.", "gcm.notification.")
MAX_COLLAPSE_ID_BYTES = 64


class InvalidFieldError(Exception):
    """A field that FCM refuses; `from_fcm` if FCM itself does and not the JSON parser before it."""

    def __init__(self, field: str, description: str, from_fcm: bool = False) -> None:
        super().__init__(description)
        self.field = field
        self.description = description
        self.from_fcm = from_fcm


def check_message(message: dict[str, Any]) -> None:
    """Raises InvalidFieldError."""
    _known(message, MESSAGE_FIELDS, "message")
    targets = [name for name in TARGETS if name in message]
    if len(targets) != 1:
        raise InvalidFieldError("message", "Exactly one of token, topic, condition or fid is required.", from_fcm=True)
    target = message[targets[0]]
    _text(target, f"message.{targets[0]}")
    if not target or any(character.isspace() for character in target):
        description = "The registration token is not a valid FCM registration token"
        raise InvalidFieldError(f"message.{targets[0]}", description, from_fcm=True)
    _check_data(message.get("data", {}), "message.data")
    _check_texts(message.get("notification", {}), NOTIFICATION_FIELDS, "message.notification")
    _check_android(_object(message.get("android", {}), "message.android"))
    _check_apns(_object(message.get("apns", {}), "message.apns"))
    _check_webpush(_object(message.get("webpush", {}), "message.webpush"))


def _check_android(android: dict[str, Any]) -> None:
    _check_texts(android, ANDROID_FIELDS, "message.android")
    _check_texts(android.get("notification", {}), ANDROID_NOTIFICATION_FIELDS, "message.android.notification")
    _check_data(android.get("data", {}), "message.android.data")
    if "priority" in android and android["priority"] not in ANDROID_PRIORITIES:
        raise _invalid("message.android.priority", "TYPE_ENUM", android["priority"])
    if "ttl" in android:
        ttl = android["ttl"]
        found = DURATION.fullmatch(ttl) if isinstance(ttl, str) else None
        if found is None:
            raise _invalid("message.android.ttl", "type.googleapis.com/google.protobuf.Duration", ttl)
        if int(found[1]) > MAX_TTL_SECONDS:
            raise InvalidFieldError("message.android.ttl", "Invalid time to live: at most 4 weeks.", from_fcm=True)


def _check_apns(apns: dict[str, Any]) -> None:
    _known(apns, APNS_FIELDS, "message.apns")
    headers = _strings(apns.get("headers", {}), "message.apns.headers")
    payload = _object(apns.get("payload", {}), "message.apns.payload")
    if "payload" in apns and not isinstance(payload.get("aps", {}), dict):
        raise InvalidFieldError("message.apns.payload.aps", "The APNs payload's aps is not an object.", from_fcm=True)
    for name in ("apns-expiration", "apns-priority"):
        if name in headers and not headers[name].isdigit():
            raise InvalidFieldError(f"message.apns.headers.{name}", f"Invalid {name}: {headers[name]}", from_fcm=True)
    if len(headers.get("apns-collapse-id", "").encode()) > MAX_COLLAPSE_ID_BYTES:
        raise InvalidFieldError("message.apns.headers.apns-collapse-id", "At most 64 bytes.", from_fcm=True)


def _check_webpush(webpush: dict[str, Any]) -> None:
    _known(webpush, WEBPUSH_FIELDS, "message.webpush")
    _check_data(webpush.get("data", {}), "message.webpush.data")
    _object(webpush.get("notification", {}), "message.webpush.notification")
    headers = _strings(webpush.get("headers", {}), "message.webpush.headers")
    if "TTL" in headers and not headers["TTL"].isdigit():
        raise InvalidFieldError("message.webpush.headers.TTL", f"Invalid TTL: {headers['TTL']}", from_fcm=True)


def _check_data(data: Any, path: str) -> None:
    for key in _strings(data, path):
        if key in RESERVED_DATA_KEYS or key.startswith(RESERVED_DATA_PREFIXES):
            raise InvalidFieldError(path, f"Invalid data payload key: {key}", from_fcm=True)


def _check_texts(value: Any, fields: frozenset[str], path: str) -> None:
    """Only known fields, and strings where FCM wants strings."""
    _known(_object(value, path), fields, path)
    for name in TEXT_FIELDS & value.keys():
        _text(value[name], f"{path}.{name}")


def _known(value: dict[str, Any], fields: frozenset[str], path: str) -> None:
    if unknown := value.keys() - fields:
        name = min(unknown)
        raise InvalidFieldError(path, f"Invalid JSON payload received. Unknown name \"{name}\" at '{path}'.")


def _object(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _invalid(path, "object", value)
    return value


def _strings(value: Any, path: str) -> dict[str, str]:
    """A map from string to string; numbers and booleans are refused, not converted."""
    for index, entry in enumerate(_object(value, path).values()):
        _text(entry, f"{path}[{index}].value")
    found: dict[str, str] = value
    return found


def _text(value: Any, path: str) -> None:
    if not isinstance(value, str):
        raise _invalid(path, "TYPE_STRING", value)


def _invalid(path: str, kind: str, value: Any) -> InvalidFieldError:
    return InvalidFieldError(path, f"Invalid value at '{path}' ({kind}), {value}")


def canonical_content(message: dict[str, Any]) -> bytes:
    """What reaches the app or the screen, without keys, lifetimes and other transport."""
    android_notification = message.get("android", {}).get("notification", {})
    seen = {
        "notification": message.get("notification"),
        "data": message.get("data"),
        "android": {name: value for name, value in android_notification.items() if name != "tag"},
        "apns": message.get("apns", {}).get("payload"),
        "webpush": message.get("webpush", {}).get("notification"),
    }
    return orjson.dumps({name: value for name, value in seen.items() if value}, option=orjson.OPT_SORT_KEYS)


def replacement_key(message: dict[str, Any]) -> str:
    """The key under which a later message takes this one's place on the device; empty if there is none.

    A token does not tell which platform is behind it, so every platform block present must carry its own key:
    `android.notification.tag`, the header `apns-collapse-id`, `webpush.notification.tag`. `android.collapse_key`
    does not count: it replaces only what is still waiting at FCM, not what the person has seen.
    """
    keys = []
    if "android" in message:
        keys.append(message["android"].get("notification", {}).get("tag", ""))
    if "apns" in message:
        keys.append(message["apns"].get("headers", {}).get("apns-collapse-id", ""))
    if "webpush" in message:
        keys.append(message["webpush"].get("notification", {}).get("tag", ""))
    return " ".join(keys) if keys and all(keys) else ""
