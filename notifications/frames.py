"""What the inbox's WebSocket says and understands: JSON objects with a `type`.

Server to client:
  {"type": "notification.created", "id", "created_at", "expires_at", "read_at", "payload": {…}}
  {"type": "notification.updated", "id", "read_at"}  Read (a time) or unread again (null), here or elsewhere.
  {"type": "notification.removed", "id", "reason"}
  {"type": "unread_count.changed", "count"}
  {"type": "pong", "now"}                            The server's time: by it, and no other clock, alerts expire.
  {"type": "error", "code", "message"}
Client to server:
  {"type": "ack", "id", "event", "channel", "device_id"}  What became of the alert in the app: see `Ack`. All but the
                                             id may be left out: then it was received, in the app.
  {"type": "read", "id"}                     A person has seen it.
  {"type": "unread", "id"}                   It is to count as new again.
  {"type": "archive", "id"}                  It leaves the inbox, for good.
  {"type": "read_all"}                       A person has seen all that is in the inbox.
  {"type": "resume", "since", "known": […]}  What came after `since`? `known` (optional, at most 500 ids): each is
                                             answered by `notification.updated`, or `…removed` if it is gone.
  {"type": "ping"}                           Answered by `pong`. Who pings once must go on: see `sockets`.
Ids are 24 hexadecimal characters, times RFC 3339 in UTC.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import Any

import orjson
from bson import ObjectId

from followers.choices import PUSH_CHANNELS, Channel
from followers.clock import as_utc
from notifications.choices import AckEvent

SUBPROTOCOL = "notifyhub.v1"
MAX_FRAME_BYTES = 16_384
MAX_KNOWN_IDS = 500
ACK_CHANNELS = (Channel.IN_APP, *PUSH_CHANNELS)
"""The channels on which an app can say what became of an alert."""


class ErrorCode(StrEnum):
    """Stable words: apps act on them."""

    FRAME_TOO_LARGE = "frame_too_large"
    INVALID_FRAME = "invalid_frame"  # Not a JSON object in a text frame.
    UNKNOWN_TYPE = "unknown_type"
    INVALID_ID = "invalid_id"
    INVALID_ACK = "invalid_ack"  # An event, channel or device that cannot be acknowledged.
    INVALID_SINCE = "invalid_since"
    NOT_FOUND = "not_found"  # Not in this follower's inbox, or no longer.
    UNAVAILABLE = "unavailable"  # The database is away; try again.


class ServerFrame(StrEnum):
    CREATED = "notification.created"
    UPDATED = "notification.updated"
    REMOVED = "notification.removed"
    UNREAD_COUNT = "unread_count.changed"
    PONG = "pong"
    ERROR = "error"


class ClientFrame(StrEnum):
    ACK = "ack"
    READ = "read"
    UNREAD = "unread"
    ARCHIVE = "archive"
    READ_ALL = "read_all"
    RESUME = "resume"
    PING = "ping"


class CloseCode(IntEnum):
    """Why the server ends a socket; `label` says what the app does. docs/api.md and asyncapi.yaml list them."""

    UNAUTHORISED = 4401, "token_expired, token_invalid or ticket_invalid: get a new token, connect, resume"
    FORBIDDEN = 4403, "origin_not_allowed or follower_unknown: not for this site or person; do not try again"
    SILENT = 4408, "silent: you had begun to ping and stopped; connect and resume"
    TRY_AGAIN_LATER = 1013, "a server is away, or you fell behind (`behind`): connect again after a pause, and resume"

    label: str

    def __new__(cls, code: int, label: str) -> CloseCode:
        member = int.__new__(cls, code)
        member._value_ = code
        member.label = label
        return member


class RemovalReason(StrEnum):
    ARCHIVED = "archived"  # By the follower, here or on another device.
    OUTDATED = "outdated"  # Expired, replaced by a newer one, or beyond the number that is kept.


class FrameError(Exception):
    """A client's frame that cannot be carried out."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Ack:
    """What an app says of one alert, by socket or by REST.

    Parameters:
      channel: Which of the alert's deliveries is meant: in_app, or the push channel it came by.
      device: The device that it came to, as the push message's `device_id` says. None = in_app, or the only device.
    """

    id: ObjectId
    event: AckEvent = AckEvent.RECEIVED
    channel: Channel = Channel.IN_APP
    device: ObjectId | None = None


@dataclass(frozen=True, slots=True)
class Read:
    id: ObjectId


@dataclass(frozen=True, slots=True)
class Unread:
    id: ObjectId


@dataclass(frozen=True, slots=True)
class Archive:
    id: ObjectId


@dataclass(frozen=True, slots=True)
class ReadAll:
    pass


@dataclass(frozen=True, slots=True)
class Ping:
    pass


@dataclass(frozen=True, slots=True)
class Resume:
    since: datetime  # Aware UTC.
    known: tuple[ObjectId, ...] = ()


Parsed = Ack | Read | Unread | Archive | ReadAll | Resume | Ping

WITH_AN_ID: dict[str, Callable[[ObjectId], Parsed]] = {
    ClientFrame.READ: Read,
    ClientFrame.UNREAD: Unread,
    ClientFrame.ARCHIVE: Archive,
}


def parse(text: str | None) -> Parsed:
    """Reads a client's text frame (None = it was binary). Raises FrameError."""
    if text is None:
        raise FrameError(ErrorCode.INVALID_FRAME, "Frames are text.")
    # No character takes less than a byte: what is too long in characters need not be encoded to be measured.
    if len(text) > MAX_FRAME_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_FRAME_BYTES:
        raise FrameError(ErrorCode.FRAME_TOO_LARGE, f"A frame holds at most {MAX_FRAME_BYTES} bytes.")
    try:
        frame = orjson.loads(text)
    except ValueError:
        raise FrameError(ErrorCode.INVALID_FRAME, "A frame is a JSON object.") from None
    if not isinstance(frame, dict):
        raise FrameError(ErrorCode.INVALID_FRAME, "A frame is a JSON object.")
    match frame.get("type"):
        case str(type_) if type_ in WITH_AN_ID:
            return WITH_AN_ID[type_](_object_id(frame.get("id")))
        case ClientFrame.ACK:
            return _ack(frame)
        case ClientFrame.READ_ALL:
            return ReadAll()
        case ClientFrame.RESUME:
            return Resume(_time(frame.get("since")), _known(frame.get("known")))
        case ClientFrame.PING:
            return Ping()
        case _:
            raise FrameError(ErrorCode.UNKNOWN_TYPE, f"A frame's type is one of {', '.join(ClientFrame)}.")


def _ack(frame: dict[str, Any]) -> Ack:
    event, channel = frame.get("event", AckEvent.RECEIVED.value), frame.get("channel", Channel.IN_APP.value)
    device = frame.get("device_id")
    if event not in AckEvent.values:
        raise FrameError(ErrorCode.INVALID_ACK, f"`event` is one of {', '.join(AckEvent.values)}.")
    if channel not in ACK_CHANNELS:
        raise FrameError(ErrorCode.INVALID_ACK, f"`channel` is one of {', '.join(ACK_CHANNELS)}.")
    if device is not None and channel == Channel.IN_APP:
        raise FrameError(ErrorCode.INVALID_ACK, "`device_id` goes with a push channel.")
    return Ack(
        _object_id(frame.get("id")),
        AckEvent(event),
        Channel(channel),
        None if device is None else _object_id(device),
    )


def _object_id(value: Any) -> ObjectId:
    if not isinstance(value, str) or not ObjectId.is_valid(value):
        raise FrameError(ErrorCode.INVALID_ID, "An id is 24 hexadecimal characters.")
    return ObjectId(value)


def _time(value: Any) -> datetime:
    try:
        at = datetime.fromisoformat(value)
        if at.tzinfo is None:
            raise ValueError("without an offset")
        return at.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise FrameError(ErrorCode.INVALID_SINCE, "`since` is a time such as 2026-11-21T09:15:00Z.") from None


def _known(value: Any) -> tuple[ObjectId, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_KNOWN_IDS:
        raise FrameError(ErrorCode.INVALID_ID, f"`known` is a list of at most {MAX_KNOWN_IDS} ids.")
    return tuple(_object_id(item) for item in value)


# --- Server to client -------------------------------------------------------------------------------------------------
def created(entry: dict[str, Any]) -> dict[str, Any]:
    """The frame of an in-app entry, from its stored document."""
    return {
        "type": ServerFrame.CREATED.value,
        "id": str(entry["_id"]),
        "created_at": rfc3339(entry["created_at"]),
        "expires_at": rfc3339(entry["expires_at"]),
        "read_at": rfc3339(entry["read_at"]) if entry.get("read_at") else None,
        "payload": entry["payload"],
    }


def updated(entry_id: ObjectId, read_at: datetime | None) -> dict[str, Any]:
    return {
        "type": ServerFrame.UPDATED.value,
        "id": str(entry_id),
        "read_at": None if read_at is None else rfc3339(read_at),
    }


def removed(entry_id: ObjectId, reason: RemovalReason) -> dict[str, Any]:
    return {"type": ServerFrame.REMOVED.value, "id": str(entry_id), "reason": reason.value}


def unread_count(count: int) -> dict[str, Any]:
    return {"type": ServerFrame.UNREAD_COUNT.value, "count": count}


def pong(now: datetime) -> dict[str, Any]:
    return {"type": ServerFrame.PONG.value, "now": rfc3339(now)}


def error(code: ErrorCode, message: str) -> dict[str, Any]:
    return {"type": ServerFrame.ERROR.value, "code": code.value, "message": message}


def rfc3339(at: datetime) -> str:
    """In UTC with milliseconds, as MongoDB keeps them."""
    return as_utc(at).astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def encode(frame: dict[str, Any]) -> str:
    return orjson.dumps(frame).decode()
