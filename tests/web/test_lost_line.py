"""A client that loses its line in a stream of trades ends with the same inbox as one that does not."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from followers import clock
from followers.models import Follower
from followers.mongo import collection
from notifications import frames, inbox, tokens
from notifications.consumers import SUBPROTOCOL
from notifications.live import push_alerts
from notifications.models import InAppEntry
from tests.web import builders
from tests.web.server import ANSWER_SECONDS, Server, raw_socket

pytestmark = pytest.mark.django_db(transaction=True)

TRADES = 200
KEPT = 50
LOST_AT, BACK_AT = 60, 150  # Away for longer than what is kept: all that it knew is gone when it comes back.


class Client:
    """What any app does: keeps what it is told, and on every connect asks for what it missed."""

    def __init__(self, server: Server, token: str) -> None:
        self.inbox: dict[str, Any] = {}
        self.unread = -1
        self._server, self._token = server, token
        self._since = ""
        self._socket: ClientConnection | None = None
        self._changed = asyncio.Event()

    async def connect(self) -> None:
        self._socket = await raw_socket(self._server, [SUBPROTOCOL, self._token])
        if self._since:
            await self._socket.send(json.dumps({"type": "resume", "since": self._since, "known": list(self.inbox)}))
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
                self._since = max(self._since, frame["created_at"])
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


def _trade(follower: Follower, stored: list[dict[str, Any]]) -> None:
    """As the fan-out does it: inserts, prunes to the newest, then tells who is connected."""
    entry = builders.stored_entry(follower)
    stored.append(entry)
    outdated = [old["_id"] for old in stored[-KEPT - 1 : -KEPT]]
    collection(InAppEntry).delete_many({"_id": {"$in": outdated}})
    push_alerts([entry], [(follower.pk, old) for old in outdated])
