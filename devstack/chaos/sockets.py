"""A few apps that listen to their inbox over WebSocket, connect again when they must, and ask for what they missed.

Needs Django set up.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import defaultdict
from typing import Any

from bson import ObjectId
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from devstack.chaos.audience import Audience
from devstack.demo.cast import TRADERS
from devstack.demo.followers import follower_id
from followers import clock
from followers.models import Follower
from followers.mongo import collection
from notifications.frames import SUBPROTOCOL
from notifications.models import InAppEntry
from notifications.tokens import mint

SOCKETS = 6
RECONNECT_SECONDS = 0.3
CONNECT_SECONDS = 5
FIRST_SINCE = "2000-01-01T00:00:00Z"
RESUME_ALL = json.dumps({"type": "resume", "since": FIRST_SINCE})


class Sockets:
    """Followers of the trader with the largest audience, from :meth:`start` to :meth:`stop`."""

    def __init__(self, web_port: int, audience: Audience) -> None:
        numbers = audience.followers_of[TRADERS[0].external_id][:SOCKETS]
        self._followers = list(Follower.objects.filter(external_id__in=[follower_id(n) for n in numbers]))
        self._url = f"ws://127.0.0.1:{web_port}/ws/inbox/"
        self._heard: dict[ObjectId, set[str]] = defaultdict(set)
        self._since: dict[ObjectId, str] = {}
        self._open: set[ClientConnection] = set()
        self._resume = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._listen()), name="chaos-sockets", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(CONNECT_SECONDS * 2)

    @property
    def connected(self) -> int:
        return len(self._open)

    def resume(self) -> None:
        """Have every connected app ask for all that it may have missed, as a person does who pulls the list down."""
        self._resume.set()

    def missing(self) -> int:
        """How many alerts are in the inboxes that the apps do not know of. Raises PyMongoError."""
        known = {follower: set(self._heard[follower]) for follower in (f.pk for f in self._followers)}
        visible = {"follower_id": {"$in": list(known)}, "expires_at": {"$gt": clock.now()}}
        stored = collection(InAppEntry).find(visible, {"follower_id": 1})
        return sum(1 for entry in stored if str(entry["_id"]) not in known[entry["follower_id"]])

    async def _listen(self) -> None:
        tasks = [asyncio.create_task(self._stay_connected(follower, mint(follower))) for follower in self._followers]
        while not self._stopped.is_set():
            await asyncio.sleep(0.1)
            if self._resume.is_set():
                self._resume.clear()
                asked = [socket.send(RESUME_ALL) for socket in list(self._open)]
                await asyncio.gather(*asked, return_exceptions=True)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _stay_connected(self, follower: Follower, token: str) -> None:
        while True:
            try:
                async with connect(
                    self._url,
                    subprotocols=[SUBPROTOCOL, token],  # type: ignore[list-item]
                    open_timeout=CONNECT_SECONDS,
                ) as socket:
                    self._open.add(socket)
                    try:
                        await self._hear(socket, follower.pk)
                    finally:
                        self._open.discard(socket)
            except (OSError, WebSocketException, TimeoutError):
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _hear(self, socket: ClientConnection, follower: ObjectId) -> None:
        await socket.send(json.dumps({"type": "resume", "since": self._since.get(follower, FIRST_SINCE)}))
        async for text in socket:
            frame: dict[str, Any] = json.loads(text)
            if frame["type"] == "notification.created":
                self._heard[follower].add(frame["id"])
                self._since[follower] = max(frame["created_at"], self._since.get(follower, FIRST_SINCE))
