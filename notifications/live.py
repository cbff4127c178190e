"""Pushes to the followers who are connected, from the fan-out's worker threads.

A push is a convenience on top of the stored inbox: what is lost here, the app is given when it resumes. So nothing here
raises for Redis being away.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol, cast

from bson import ObjectId
from channels.layers import get_channel_layer
from redis.exceptions import RedisError

from followers.outage import REDIS
from notifications import frames, presence

Document = dict[str, Any]
Frame = tuple[ObjectId, Document | None]
"""(follower's id, frame): a JSON-able dict as in `frames`. None = only the unread count is news."""
Told = tuple[bytes, str | None, str | None]
"""(follower's id, frame's text, id of the entry that it brings), as it travels."""

GROUP = "inboxes"
"""The Channels group that every web process listens to."""
FRAMES = "inbox.frames"
"""The type of a message that carries a list of `Told` in `frames`."""
END = "inbox.end"
"""The type of a message that ends the sockets of the `follower` (an id's bytes)."""
CHUNK = 200
"""Frames per message, some 80 KB: so many are received and decoded at once; a process sends them before the next."""


class PushLayer(Protocol):
    """What this app needs of the channel layer beside Channels' own interface."""

    def publish_many(self, messages: Sequence[tuple[str, Document]]) -> None: ...


def push(pushed: Sequence[Frame]) -> int:
    """Sends each frame to all sockets of its follower, in one pipeline, and has them told the unread count (`counts`).

    Whether somebody is connected is not looked at: each web process picks out its own sockets' frames. Returns how many
    frames were not sent.
    """
    if not pushed:
        return 0
    told = [_told(follower, frame) for follower, frame in pushed]
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


def _told(follower: ObjectId, frame: Document | None) -> Told:
    if frame is None:
        return follower.binary, None, None
    # Encoded here, once, whatever the number of sockets. The entry's id lets a socket be told of it once.
    entry = frame["id"] if frame["type"] == frames.ServerFrame.CREATED else None
    return follower.binary, frames.encode(frame), entry


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
    except RedisError as error:  # Apps see these alerts when they resume.
        REDIS.away(error)
        return 0
    REDIS.back()
    pushed = [
        *((e["follower_id"], frames.created(e)) for e in entries if e["follower_id"] in listening),
        *((f, frames.removed(entry, frames.RemovalReason.OUTDATED)) for f, entry in removed if f in listening),
    ]
    return len(pushed) - push(pushed)


def push_end(follower_id: ObjectId) -> None:
    """Ends all sockets of a follower who was erased; where that is not heard, the next look does (`sockets`)."""
    try:
        cast(PushLayer, get_channel_layer()).publish_many([(GROUP, {"type": END, "follower": follower_id.binary})])
    except RedisError as error:
        REDIS.away(error)
    else:
        REDIS.back()


def push_read(follower_id: ObjectId, entry_ids: Sequence[ObjectId], read_at: datetime | None) -> None:
    """Tells all sockets of a follower that entries were read, or are unread again (None), and the count then.

    Call it after the write, wherever that was made: on a socket or over REST.
    """
    push([*((follower_id, frames.updated(entry, read_at)) for entry in entry_ids), (follower_id, None)])


def push_archived(follower_id: ObjectId, entry_ids: Sequence[ObjectId]) -> None:
    """Tells all sockets of a follower that entries left the inbox, and the count then. Call it after the write."""
    reason = frames.RemovalReason.ARCHIVED
    push([*((follower_id, frames.removed(entry, reason)) for entry in entry_ids), (follower_id, None)])
