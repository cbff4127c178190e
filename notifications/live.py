"""Pushes to the followers who are connected, from the fan-out's worker threads.

A push is a convenience on top of the stored inbox: what is lost here, the app is given when it resumes. So nothing here
raises for Redis or the database being away.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol, cast

from bson import ObjectId
from channels.layers import get_channel_layer
from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from followers import clock
from followers.outage import MONGODB, REDIS
from notifications import frames, inbox, presence

Document = dict[str, Any]
Frame = tuple[ObjectId, Document]
"""(follower's id, frame): a JSON-able dict as in `frames`."""
Told = tuple[bytes, str, str | None]
"""(follower's id, frame's text, id of the entry that it brings or None), as it travels."""

GROUP = "inboxes"
"""The Channels group that every web process listens to."""
FRAMES = "inbox.frames"
"""The type of a message that carries a list of `Told` in `frames`."""
CHUNK = 200
"""Frames per message, some 80 KB: so many are received and decoded at once; a process sends them before the next."""


class PushLayer(Protocol):
    """What this app needs of the channel layer beside Channels' own interface."""

    def publish_many(self, messages: Sequence[tuple[str, Document]]) -> None: ...


def push(pushed: Sequence[Frame]) -> int:
    """Sends each frame to all sockets of its follower, in one pipeline. Returns how many frames were not sent.

    Whether somebody is connected is not looked at: each web process picks out its own sockets' frames.
    """
    if not pushed:
        return 0
    # Encoded here, once, whatever the number of sockets.
    told = [(follower.binary, frames.encode(frame), _created(frame)) for follower, frame in pushed]
    messages = [
        (GROUP, {"type": FRAMES, "frames": told[start : start + CHUNK]}) for start in range(0, len(told), CHUNK)
    ]
    try:
        cast(PushLayer, get_channel_layer()).publish_many(messages)
    except RedisError as error:  # Apps see these frames when they resume.
        REDIS.away(error)
        return len(pushed)
    REDIS.back()
    return 0


def _created(frame: Document) -> str | None:
    """The entry that a frame brings; sockets remember it, so that they are told of it once."""
    return frame["id"] if frame["type"] == frames.ServerFrame.CREATED else None


def push_alerts(entries: list[Document], removed: list[tuple[ObjectId, ObjectId]]) -> int:
    """Tells the connected followers what the fan-out has just stored and pruned. Returns the number of frames sent.

    Call it after the writes: presence is read here, and a socket registers before it reads its inbox. So whoever is not
    seen here reads later than the insert.

    Parameters:
      entries: In-app entries that were inserted.
      removed: (follower, entry) of each entry that was pruned.
    """
    concerned = {entry["follower_id"] for entry in entries} | {follower for follower, _ in removed}
    if not concerned:
        return 0
    try:
        listening = presence.connected(concerned)
        if not listening:
            return 0
        # The news first, before anything is counted.
        news = [
            *((e["follower_id"], frames.created(e)) for e in entries if e["follower_id"] in listening),
            *((f, frames.removed(entry, frames.RemovalReason.OUTDATED)) for f, entry in removed if f in listening),
        ]
        unsent = push(news)
        counts = [(f, frames.unread_count(n)) for f, n in inbox.unread_counts(listening, clock.now()).items()]
    except RedisError as error:  # Apps see these alerts when they resume.
        REDIS.away(error)
        return 0
    except PyMongoError as error:
        MONGODB.away(error)
        return 0
    REDIS.back()
    return len(news) - unsent + len(counts) - push(counts)


def push_unread_count(follower_id: ObjectId) -> None:
    """Tells all sockets of a follower the present count. Raises PyMongoError."""
    push([(follower_id, frames.unread_count(inbox.unread_count(follower_id, clock.now())))])


def push_read(follower_id: ObjectId, entry_ids: Sequence[ObjectId], read_at: datetime | None) -> None:
    """Tells all sockets of a follower that entries were read, or are unread again (None). Raises PyMongoError.

    Call it after the write, wherever that was made: on a socket or over REST.
    """
    push([(follower_id, frames.updated(entry, read_at)) for entry in entry_ids])
    push_unread_count(follower_id)


def push_archived(follower_id: ObjectId, entry_ids: Sequence[ObjectId]) -> None:
    """Tells all sockets of a follower that entries left the inbox. Call it after the write. Raises PyMongoError."""
    push([(follower_id, frames.removed(entry, frames.RemovalReason.ARCHIVED)) for entry in entry_ids])
    push_unread_count(follower_id)
