"""A client that loses its line in a stream of trades ends with the same inbox as one that does not."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from followers import clock
from followers.models import Follower
from followers.mongo import collection
from notifications import frames, inbox, tokens
from notifications.frames import SUBPROTOCOL
from notifications.live import push_alerts
from notifications.models import InAppEntry
from tests.api.conftest import as_follower
from tests.web import builders
from tests.web.server import ANSWER_SECONDS, Server, raw_socket

pytestmark = pytest.mark.django_db(transaction=True)

stored_entry = sync_to_async(builders.stored_entry)

TRADES = 200
KEPT = 50
READ_BEFORE = (None, clock.now(), None, clock.now())
"""Of the entries that are then read, made unread, archived and left alone."""
LOST_AT, BACK_AT = 60, 150  # Away for longer than what is kept: all that it knew is gone when it comes back.


class Client:
    """What any app does: keeps what it is told, and on every connect asks for what it missed."""

    def __init__(self, server: Server, token: str) -> None:
        self.inbox: dict[str, Any] = {}
        self.unread = -1
        self._server, self._token = server, token
        self.since = ""
        self._socket: ClientConnection | None = None
        self._changed = asyncio.Event()

    async def connect(self) -> None:
        self._socket = await raw_socket(self._server, [SUBPROTOCOL, self._token])
        if self.since:
            await self._socket.send(json.dumps({"type": "resume", "since": self.since, "known": list(self.inbox)}))
        self._listening = asyncio.create_task(self._listen(self._socket))

    def lose_line(self) -> None:
        """Without a word to the server, as when a phone enters a tunnel."""
        assert self._socket is not None
        self._socket.transport.abort()

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(ANSWER_SECONDS):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def _listen(self, socket: ClientConnection) -> None:
        try:
            async for text in socket:
                self._take(json.loads(text))
                self._changed.set()
        except ConnectionClosed:
            return

    def _take(self, frame: dict[str, Any]) -> None:
        match frame["type"]:
            case "notification.created":
                self.inbox[frame["id"]] = frame
                self.since = max(self.since, frame["created_at"])
            case "notification.updated" if frame["id"] in self.inbox:
                self.inbox[frame["id"]] |= {"read_at": frame["read_at"]}
            case "notification.removed":
                self.inbox.pop(frame["id"], None)
            case "unread_count.changed":
                self.unread = frame["count"]


async def test_both_end_with_what_is_stored(server: Server, ann: Follower):
    steady, lossy = Client(server, tokens.mint(ann)), Client(server, tokens.mint(ann))
    stored: list[dict[str, Any]] = []
    await steady.connect()
    await lossy.connect()
    for number in range(TRADES):
        await sync_to_async(_trade)(ann, stored)
        if number == LOST_AT:
            await lossy.until(lambda: len(lossy.inbox) > 1)
            lossy.lose_line()
        elif number == BACK_AT:
            await lossy.connect()

    expected = {str(entry["_id"]) for entry in stored[-KEPT:]}
    for client in (steady, lossy):
        await client.until(lambda client=client: client.inbox.keys() == expected and client.unread == KEPT)
        client.lose_line()
    assert lossy.inbox == steady.inbox
    newest = await sync_to_async(inbox.newest)(ann.pk, clock.now(), TRADES)
    assert {frames.encode(frame) for frame in steady.inbox.values()} == {
        frames.encode(frames.created(entry)) for entry in newest
    }


async def test_what_another_device_did_meanwhile_is_seen_on_both(server: Server, ann: Follower):
    at = clock.now()
    over = at + timedelta(minutes=5)
    old, new = [
        [
            await stored_entry(ann, at - timedelta(seconds=age + n), read_at=read, expires_at=over)
            for n, read in enumerate(READ_BEFORE)
        ]
        for age in (600, 10)  # The first are older than what a resume brings again.
    ]
    steady, lossy = Client(server, tokens.mint(ann)), Client(server, tokens.mint(ann))
    for client in (steady, lossy):
        client.inbox = {str(e["_id"]): json.loads(frames.encode(frames.created(e))) for e in [*old, *new]}
        client.since = frames.rfc3339(new[0]["created_at"])
    await steady.connect()
    await steady.until(lambda: steady.unread == 4)

    rest = await sync_to_async(as_follower)(ann)
    for read, unread, archived, *_ in (old, new):
        for entry, change in ((read, "read"), (unread, "unread"), (archived, "archive")):
            await sync_to_async(rest.patch)(f"/api/v1/inbox/{entry['_id']}/{change}")
    await steady.until(lambda: len(steady.inbox) == 6 and steady.unread == 2)
    await lossy.connect()
    await lossy.until(lambda: lossy.inbox == steady.inbox)

    newest = await sync_to_async(inbox.newest)(ann.pk, clock.now(), TRADES)
    assert {frames.encode(frame) for frame in lossy.inbox.values()} == {
        frames.encode(frames.created(entry)) for entry in newest
    }


def _trade(follower: Follower, stored: list[dict[str, Any]]) -> None:
    """As the fan-out does it: inserts, prunes to the newest, then tells who is connected."""
    entry = builders.stored_entry(follower)
    stored.append(entry)
    outdated = [old["_id"] for old in stored[-KEPT - 1 : -KEPT]]
    collection(InAppEntry).delete_many({"_id": {"$in": outdated}})
    push_alerts([entry], [(follower.pk, old) for old in outdated])
