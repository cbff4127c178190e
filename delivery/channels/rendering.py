"""Putting a message into a vendor's request: what more than one vendor needs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from hashlib import blake2b
from uuid import UUID

from delivery.channels.base import Message

ELLIPSIS = "…"


def remaining_seconds(message: Message, now: datetime) -> int:
    """Whole seconds of validity that remain, rounded down: never longer than promised."""
    return max(0, int((message.expires_at - now).total_seconds()))


def key_uuid(key: str) -> str:
    """A UUID that is always the same for a key, in the form of version 4, which every vendor takes."""
    return str(UUID(bytes=blake2b(key.encode(), digest_size=16).digest(), version=4))


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters; a cut is shown."""
    return text if len(text) <= limit else text[: limit - 1] + ELLIPSIS


def fitted(render: Callable[[str], bytes], text: str, limit: int) -> bytes:
    """`render(text)` in at most `limit` bytes, the text cut as far as that takes.

    A shortened alert is worth more than one that the vendor refuses for its size. If even an empty text does not fit,
    the vendor decides.
    """
    payload = render(text)
    if len(payload) <= limit:
        return payload
    room = limit - len(render(""))
    while len(payload) > limit and text:
        # Escaping makes some characters longer, so that one cut may not be enough; each takes three bytes or more.
        used = len(payload) - (limit - room)
        encoded = text.encode()
        keep = len(encoded) * max(0, room) // used - len(ELLIPSIS.encode())
        text = encoded[: max(0, keep)].decode(errors="ignore")
        payload = render(text + ELLIPSIS)
    return payload
