"""The sockets of this web process: one task keeps their followers present, and notices when Redis has lost something.

A frame is lost without any error when Redis restarts, forgets its keys or drops our subscription. Each of these shows
here, as a marker that is gone, a renewal that fails or a subscription that came back; then every socket registers
again, and is given what it may have missed.

A frame that was never published leaves no such trace: the worker could not reach Redis, or died between its insert and
its push. So with every renewal this process compares what is stored for its followers with what their sockets were
told.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import structlog
from bson import ObjectId
from channels.layers import get_channel_layer
from django.conf import settings
from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from followers import clock
from followers.outage import MONGODB, REDIS
from notifications import inbox
from notifications.live import group_of
from notifications.presence import PresenceWriter

LOOK_BACK = timedelta(seconds=60)
"""How long after it was made an entry is looked for: longer than a fan-out needs to store it and its push to arrive."""
LOOK_GRACE = timedelta(seconds=2)
"""What is younger may still be on its way."""
LOOK_CHUNK = 2_000  # Followers per query.
SILENCE_SECONDS = 120
"""A socket whose client has begun to ping, and then says nothing for so long, is closed: its page hangs or sleeps, and
the pings of the protocol itself are answered by the browser all the same. Hidden pages may ping once a minute only."""

logger = structlog.get_logger(__name__)

REGISTERED = "inbox.registered"
"""A message that a socket sends to its own group: when it comes back, the subscription is known to work."""


class Socket(Protocol):
    """What a consumer shows of itself here."""

    follower_id: ObjectId
    channel_name: str
    missed_since: datetime | None
    """Set here when frames may have been lost since then, and set back when the socket has caught up."""
    told: deque[str]
    """The ids of the newest entries that it was told of; bounded, so what falls out may be told twice."""
    pinged_at: float | None
    """On the event loop's clock. None = its client does not ping."""

    async def tell(self, entry_ids: Collection[ObjectId]) -> None:
        """Brings entries whose frames did not come, as far as they are still in the inbox."""

    async def end_silence(self) -> None:
        """Closes the socket because its client has fallen silent."""


class Sockets:
    """All sockets of one event loop. Made by `sockets_of_this_process`."""

    def __init__(self, ttl_seconds: int) -> None:
        self._layer: Any = get_channel_layer()
        self._presence = PresenceWriter(os.urandom(12), ttl_seconds)
        self._interval_seconds = ttl_seconds / 3
        self._sockets: set[Socket] = set()
        self._unconfirmed: set[Socket] = set()
        self._healthy_at = clock.now()
        self._lost = False
        self._look_now = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._look: asyncio.Task[None] | None = None
        self._layer.resubscribed.append(self._subscriptions_were_lost)

    async def add(self, socket: Socket) -> None:
        """Registers a socket: group, presence, and the message that comes back when both are in force.

        The socket must not read its inbox before that message (`REGISTERED`) has come: the library sends SUBSCRIBE
        without waiting for its answer, so that until then a frame published now may pass it by.
        Raises redis.RedisError.
        """
        await self._layer.group_add(group_of(socket.follower_id), socket.channel_name)
        is_first = not self._sockets
        self._sockets.add(socket)
        self._unconfirmed.add(socket)
        if is_first:
            self._healthy_at = clock.now()
        if not await self._presence.renew([socket.follower_id]) and not is_first:
            self._something_was_lost()
        await self._probe([socket])
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._keep_present())

    def confirm(self, socket: Socket, caught_up_since: datetime | None) -> None:
        """The socket's own message has come back, and it has sent what was missed since the time given."""
        if socket.missed_since == caught_up_since:  # Else something was lost again meanwhile.
            socket.missed_since = None
            self._unconfirmed.discard(socket)

    async def remove(self, socket: Socket) -> None:
        """Forgets a socket; its follower's presence runs out by itself. Raises redis.RedisError."""
        self._sockets.discard(socket)
        self._unconfirmed.discard(socket)
        if not self._sockets:
            self._look_now.set()  # So that the task ends.
        await self._layer.group_discard(group_of(socket.follower_id), socket.channel_name)

    async def _keep_present(self) -> None:
        while self._sockets:
            # Running out is the usual case: nothing happened, and it is time to renew.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look_now.wait(), self._interval_seconds)
            self._look_now.clear()
            try:
                await self._renew()
            except RedisError as error:  # Sockets catch up when it is back.
                REDIS.away(error)
                self._lost = True
            else:
                REDIS.back()
            # Beside the renewals: while the database is away, presence must not run out.
            if self._look is None or self._look.done():
                self._look = asyncio.create_task(self._look_for_unheard())
            await self._end_silent()

    async def _look_for_unheard(self) -> None:
        """Tells each socket what is stored for its follower, and what it was not told of."""
        by_follower: dict[ObjectId, list[Socket]] = {}
        for socket in self._sockets - self._unconfirmed:  # The others catch up anyhow.
            by_follower.setdefault(socket.follower_id, []).append(socket)
        followers, now = list(by_follower), clock.now()
        try:
            for start in range(0, len(followers), LOOK_CHUNK):
                chunk = followers[start : start + LOOK_CHUNK]
                made = await asyncio.to_thread(inbox.made_between, chunk, now - LOOK_BACK, now - LOOK_GRACE)
                for follower, ids in made.items():
                    for socket in by_follower[follower]:
                        if unheard := {entry for entry in ids if str(entry) not in socket.told}:
                            await socket.tell(unheard)
        except PyMongoError as error:  # The next look finds the same, and more.
            MONGODB.away(error)

    async def _end_silent(self) -> None:
        at = asyncio.get_running_loop().time()
        for socket in [s for s in self._sockets if s.pinged_at is not None and at - s.pinged_at > SILENCE_SECONDS]:
            await socket.end_silence()

    async def _renew(self) -> None:
        if not await self._presence.renew(list({s.follower_id for s in self._sockets})):
            self._lost = True
        if self._lost:
            for socket in self._sockets:
                socket.missed_since = min(socket.missed_since or self._healthy_at, self._healthy_at)
            self._unconfirmed.update(self._sockets)
            self._lost = False
        # Whoever was not confirmed since the last round asks once more: the message may have been lost as well.
        await self._probe(self._unconfirmed)
        if not self._unconfirmed:
            self._healthy_at = clock.now()

    async def _probe(self, sockets: Iterable[Socket]) -> None:
        messages = [
            (group_of(socket.follower_id), {"type": REGISTERED, "socket": socket.channel_name}) for socket in sockets
        ]
        if messages:
            await asyncio.to_thread(self._layer.publish_many, messages)

    def _subscriptions_were_lost(self) -> None:
        if self._sockets:
            logger.warning("The subscriptions were lost and are back; sockets catch up.", sockets=len(self._sockets))
            self._something_was_lost()

    def _something_was_lost(self) -> None:
        self._lost = True
        self._look_now.set()


_by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Sockets] = WeakKeyDictionary()


def sockets_of_this_process() -> Sockets:
    """The running event loop's sockets; a web process has one loop."""
    loop = asyncio.get_running_loop()
    if loop not in _by_loop:
        _by_loop[loop] = Sockets(settings.PRESENCE_TTL_SECONDS)
    return _by_loop[loop]
