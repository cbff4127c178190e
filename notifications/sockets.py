"""The sockets of this web process: what is pushed is handed to them, their followers are kept present, and what Redis
has lost is noticed.

A frame is lost without any error when Redis restarts, forgets its keys or drops our subscription. Each of these shows
here, as a marker that is gone, a renewal that fails, a subscription that came back or a probe that did not; then every
socket is given what it may have missed. Always in this order, so that no moment is left out: the socket is one that is
handed frames; its follower is present; the subscription is known to work; the inbox is read.

A frame that was never published leaves no such trace: the worker could not reach Redis, or died between its insert and
its push. So with every renewal this process compares what is stored for its followers with what their sockets were
told.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
from collections import deque
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Protocol
from weakref import WeakKeyDictionary

import structlog
from bson import ObjectId
from django.conf import settings
from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from followers import clock, erasures
from followers.outage import MONGODB, REDIS
from notifications import inbox
from notifications.counts import Counts
from notifications.frames import encode, unread_count
from notifications.live import Told
from notifications.presence import PresenceWriter
from notifications.subscription import Subscription

LOOK_BACK = timedelta(seconds=60)
"""How long after it was made an entry is looked for: longer than a fan-out needs to store it and its push to arrive."""
LOOK_GRACE = timedelta(seconds=2)
"""What is younger may still be on its way. If it is so for longer, its frame is dropped: a socket is told once."""
LOOK_SECONDS = 15
"""Between two looks: a fraction of LOOK_BACK, for each reads the index once for every follower."""
LOOK_CHUNK = 2_000  # Followers per query.
SILENCE_SECONDS = 120
"""A socket whose client has begun to ping, and then says nothing for so long, is closed: its page hangs or sleeps, and
the pings of the protocol itself are answered by the browser all the same. Hidden pages may ping once a minute only."""

logger = structlog.get_logger(__name__)


class Socket(Protocol):
    """What a consumer shows of itself here. Its methods return at once: it sends in a task of its own."""

    follower_id: ObjectId
    missed_since: datetime | None
    """Set here when frames may have been lost since then, and set back when the socket has caught up."""
    told: deque[str]
    """The ids of the newest entries that it was told of; bounded, so what falls out may be told twice."""
    pinged_at: float | None
    """On the event loop's clock. None = its client does not ping."""
    is_busy: bool
    """Whether something is still to be sent to it."""

    def hear(self, text: str, entry: str | None) -> None:
        """Sends a frame, unless it brings an entry that the socket was told of."""

    def catch_up(self, epoch: int) -> None:
        """Reads the inbox, sends what is there, and answers by `Sockets.has_caught_up`."""

    def tell(self, entry_ids: Collection[ObjectId]) -> None:
        """Brings entries whose frames did not come, as far as they are still in the inbox."""

    def end_silence(self) -> None:
        """Closes the socket because its client has fallen silent."""

    def end_erased(self) -> None:
        """Closes the socket because its follower was erased."""


class Sockets:
    """All sockets of one event loop. Made by `sockets_of_this_process`."""

    def __init__(self, ttl_seconds: int) -> None:
        self._subscription = Subscription(self._hand_out, self._end_erased, self._catch_up, self._subscription_was_lost)
        self._counts = Counts(self._tell_count)
        self._presence = PresenceWriter(os.urandom(12), ttl_seconds)
        self._interval_seconds = ttl_seconds / 3
        self._by_follower: dict[bytes, set[Socket]] = {}
        """Who is handed frames."""
        self._present: set[Socket] = set()
        """Those of them whose follower's presence is written."""
        self._behind: set[Socket] = set()
        """Those of these who are to read their inbox."""
        self._renew_now = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._look: asyncio.Task[None] | None = None

    async def add(self, socket: Socket) -> None:
        """Registers a socket; it is told to catch up as soon as nothing can pass it by. Raises redis.RedisError."""
        await self._subscription.join()
        if not self._by_follower:
            self._subscription.start_over()
        self._by_follower.setdefault(socket.follower_id.binary, set()).add(socket)
        epoch = -1
        while epoch != self._subscription.epoch:  # What was written before a loss may be gone.
            epoch = self._subscription.epoch
            if not await self._presence.renew([socket.follower_id]):
                self._something_was_lost()
        if socket not in self._by_follower.get(socket.follower_id.binary, ()):
            return  # Removed meanwhile.
        self._present.add(socket)
        self._behind.add(socket)
        if self._subscription.works:
            socket.catch_up(epoch)
        else:
            self._renew_now.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._keep_present(), context=contextvars.Context())

    def has_caught_up(self, socket: Socket, epoch: int) -> None:
        """The socket was told in this epoch to catch up, and has."""
        if epoch == self._subscription.epoch:  # Else something was lost again meanwhile.
            socket.missed_since = None
            self._behind.discard(socket)

    def is_to_catch_up(self, socket: Socket) -> None:
        """Has a registered socket told to catch up at the next renewal."""
        if socket in self._present:
            self._behind.add(socket)

    def is_behind(self, socket: Socket) -> bool:
        return socket in self._behind

    def remove(self, socket: Socket) -> None:
        """Forgets a socket; its follower's presence runs out by itself."""
        self._present.discard(socket)
        self._behind.discard(socket)
        siblings = self._by_follower.get(socket.follower_id.binary, set())
        siblings.discard(socket)
        if not siblings:
            self._by_follower.pop(socket.follower_id.binary, None)
        if not self._by_follower:
            self._renew_now.set()  # So that the task ends.

    # --- What the subscription says -----------------------------------------------------------------------------------
    def _hand_out(self, frames: Sequence[Told]) -> None:
        for follower, text, entry in frames:
            if sockets := self._by_follower.get(follower):
                if text is not None:
                    for socket in sockets:
                        socket.hear(text, entry)
                self._counts.want(follower)

    def _tell_count(self, follower: bytes, count: int) -> None:
        if sockets := self._by_follower.get(follower):
            text = encode(unread_count(count))
            for socket in sockets:
                socket.hear(text, None)

    def _end_erased(self, follower: bytes) -> None:
        for socket in self._by_follower.get(follower, ()):
            socket.end_erased()

    def _catch_up(self) -> None:
        for socket in self._behind:
            socket.catch_up(self._subscription.epoch)

    def _subscription_was_lost(self) -> None:
        if self._by_follower:
            logger.warning("The subscription was lost and is back; sockets catch up.", sockets=len(self._present))
            self._something_was_lost()

    def _something_was_lost(self) -> None:
        """Notes what each socket may have missed, and has presence written for all, before a probe can confirm it."""
        self._note_a_loss()
        self._renew_now.set()

    def _note_a_loss(self) -> None:
        since = self._subscription.heard_until
        self._subscription.doubt()
        for socket in self._present:
            socket.missed_since = min(socket.missed_since or since, since)
        self._behind.update(self._present)

    # --- Every few seconds --------------------------------------------------------------------------------------------
    async def _keep_present(self) -> None:
        loop = asyncio.get_running_loop()
        looked_at = loop.time()
        while self._by_follower:
            # Running out is the usual case: nothing happened, and it is time to renew.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._renew_now.wait(), self._interval_seconds)
            self._renew_now.clear()
            try:
                await self._renew()
            except RedisError as error:  # Sockets catch up when it is back.
                REDIS.away(error)
                self._note_a_loss()
            else:
                REDIS.back()
            # Beside the renewals: while the database is away, presence must not run out.
            if loop.time() - looked_at >= LOOK_SECONDS and (self._look is None or self._look.done()):
                looked_at = loop.time()
                self._look = asyncio.create_task(self._look_around())
            self._end_silent()

    async def _renew(self) -> None:
        """Presence first, then the probe: whoever reads an inbox because it came back is present by then."""
        epoch = self._subscription.epoch
        if not await self._presence.renew([ObjectId(follower) for follower in self._by_follower]):
            self._something_was_lost()  # Renewed once more, at once: it may have been forgotten halfway.
            return
        if self._subscription.is_deaf:
            self._note_a_loss()
            epoch = self._subscription.epoch
            await self._subscription.join_again()
        if epoch == self._subscription.epoch:  # Else something was lost meanwhile, and this goes round again.
            await self._subscription.probe()

    async def _look_around(self) -> None:
        """Unheard entries first: they are told even if nobody can say who was erased."""
        try:
            await self._look_for_unheard()
            for erased in await asyncio.to_thread(erasures.LATELY.ids):  # Whose end nobody here has heard.
                self._end_erased(erased.binary)
        except PyMongoError as error:  # The next look finds the same, and more.
            MONGODB.away(error)

    async def _look_for_unheard(self) -> None:
        """Tells each socket what is stored for its follower, and what it was not told of."""
        by_follower: dict[ObjectId, list[Socket]] = {}
        for socket in self._present - self._behind:  # The others catch up anyhow.
            by_follower.setdefault(socket.follower_id, []).append(socket)
        followers, now = list(by_follower), clock.now()
        for start in range(0, len(followers), LOOK_CHUNK):
            chunk = followers[start : start + LOOK_CHUNK]
            made = await asyncio.to_thread(inbox.made_between, chunk, now - LOOK_BACK, now - LOOK_GRACE)
            for follower, ids in made.items():
                for socket in by_follower[follower]:
                    unheard = {entry for entry in ids if str(entry) not in socket.told}
                    if unheard and not socket.is_busy:  # What waits may be the very frame; the next look finds it.
                        socket.tell(unheard)

    def _end_silent(self) -> None:
        at = asyncio.get_running_loop().time()
        for socket in self._present:
            if socket.pinged_at is not None and at - socket.pinged_at > SILENCE_SECONDS:
                socket.end_silence()


_by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Sockets] = WeakKeyDictionary()


def sockets_of_this_process() -> Sockets:
    """The running event loop's sockets; a web process has one loop."""
    loop = asyncio.get_running_loop()
    if loop not in _by_loop:
        _by_loop[loop] = Sockets(settings.PRESENCE_TTL_SECONDS)
    return _by_loop[loop]
