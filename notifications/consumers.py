"""The inbox's WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any, ParamSpec, TypeVar
from urllib.parse import parse_qs

from bson import ObjectId
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from followers import clock
from followers.outage import MONGODB, REDIS
from notifications import acks, frames, inbox, live, tickets, tokens
from notifications.acks import Acknowledged
from notifications.frames import (
    Ack,
    Archive,
    CloseCode,
    ErrorCode,
    FrameError,
    Parsed,
    Ping,
    Read,
    ReadAll,
    RemovalReason,
    Resume,
    Unread,
)
from notifications.outbox import Outbox
from notifications.platform_keys import PlatformKeysAwayError
from notifications.sockets import Sockets, sockets_of_this_process

P = ParamSpec("P")
T = TypeVar("T")

REMEMBERED = 64  # Entries that a socket knows it has told of; see `sockets`.


class InboxConsumer(AsyncWebsocketConsumer):
    """One socket of one follower. `notifications.frames` describes what is said on it.

    A client offers two subprotocols, `notifyhub.v1` and its follower token, in any order; the server selects the first,
    so that the token is in no answer and in no address. A bad token is told after the handshake, by close code 4401: a
    refusal before it would show as HTTP 403, without a reason. The socket ends with its token, likewise by 4401; a
    client then gets a new token, connects and resumes, and misses nothing. A client that cannot offer subprotocols
    fetches a ticket by its token, and connects with `?ticket=`; the socket still ends with the token.

    On connect the client is told its unread count. What it missed it asks for by `resume`, naming the `created_at` of
    the newest entry it knows; entries of the minute before that come again, and it drops the ids that it has. Of those
    that it names as known it is told whether they are read, or gone.
    """

    channel_layer_alias = "none"
    """Is not configured, so that Channels gives no socket a channel of its own: what is pushed comes by `sockets`."""

    follower_id: ObjectId
    missed_since: datetime | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sockets: Sockets | None = None
        self._outbox = Outbox(self.send, self._give_up)
        self._is_over = False
        self._closing: asyncio.Task[None] | None = None
        self._registered = False
        self._catch_up_in: int | None = None
        self._waiting: Resume | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self.told: deque[str] = deque(maxlen=REMEMBERED)
        self.pinged_at: float | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        except RedisError as error:
            REDIS.away(error)
            await self.close(CloseCode.TRY_AGAIN_LATER.value)
        finally:
            self._forget()  # However it ended: a client that vanished leaves no disconnect behind.

    async def connect(self) -> None:
        await self.accept(_selected(self.scope["subprotocols"]))
        try:
            claims = await self._claims()
        except tokens.TokenError as error:
            is_known = error.code is not tokens.TokenErrorCode.FOLLOWER_UNKNOWN
            await self.close((CloseCode.UNAUTHORISED if is_known else CloseCode.FORBIDDEN).value, error.code.value)
            return
        except PlatformKeysAwayError:
            await self.close(CloseCode.TRY_AGAIN_LATER.value, "platform_unavailable")
            return
        except PyMongoError as error:
            MONGODB.away(error)
            await self.close(CloseCode.TRY_AGAIN_LATER.value, ErrorCode.UNAVAILABLE.value)
            return
        self.follower_id = claims.follower_id
        seconds = (claims.expires_at - clock.now()).total_seconds()
        self._expiry = asyncio.get_running_loop().call_later(seconds, self._end_with_token)
        self._sockets = sockets_of_this_process()
        await self._sockets.add(self)

    async def _claims(self) -> tokens.Claims:
        """Whose socket this is, by ticket or token. Raises what `tickets.redeem` and `tokens.verify` do."""
        if ticket := parse_qs(self.scope["query_string"].decode("ascii", "replace")).get("ticket"):
            return await _in_thread(tickets.redeem)(ticket[0])
        return await _in_thread(tokens.verify)(_offered_token(self.scope["subprotocols"]))

    async def disconnect(self, code: int) -> None:
        self._forget()

    def _forget(self) -> None:
        """Nothing of this socket stays behind; doing it twice changes nothing."""
        if self._expiry is not None:
            self._expiry.cancel()
        self._outbox.end()
        sockets, self._sockets = self._sockets, None
        if sockets is not None:
            sockets.remove(self)

    async def send(self, text_data: str | None = None, bytes_data: bytes | None = None, close: bool = False) -> None:
        if not self._is_over:  # A frame after the close would be an error.
            await super().send(text_data, bytes_data, close)

    async def close(self, code: int | None = None, reason: str | None = None) -> None:
        if not self._is_over:
            self._is_over = True
            await super().close(code, reason)

    def _end(self, code: CloseCode, reason: str) -> None:
        """Closes in a task of its own: a client that takes nothing in lets even this wait."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close_and_forget(code, reason))

    async def _close_and_forget(self, code: CloseCode, reason: str) -> None:
        self._forget()
        with contextlib.suppress(OSError):  # The client was quicker.
            await self.close(code.value, reason)

    def _end_with_token(self) -> None:
        self._end(CloseCode.UNAUTHORISED, tokens.TokenErrorCode.EXPIRED.value)

    def _give_up(self) -> None:
        self._end(CloseCode.TRY_AGAIN_LATER, "behind")

    # --- From our own processes --------------------------------------------------------------------------------------
    def hear(self, text: str, entry: str | None) -> None:
        if entry is not None:
            if entry in self.told:
                return
            self.told.append(entry)
        self._outbox.put(text)

    def tell(self, entry_ids: Collection[ObjectId]) -> None:
        self._outbox.put(lambda: self._carry_out(self._tell(entry_ids)))

    def catch_up(self, epoch: int) -> None:
        if self._catch_up_in is None:
            self._outbox.put(lambda: self._carry_out(self._catch_up()))
        self._catch_up_in = epoch

    def end_silence(self) -> None:
        self._end(CloseCode.SILENT, "silent")

    def end_erased(self) -> None:
        self._end(CloseCode.FORBIDDEN, tokens.TokenErrorCode.FOLLOWER_UNKNOWN.value)

    @property
    def is_busy(self) -> bool:
        return not self._outbox.is_empty

    async def _tell(self, entry_ids: Collection[ObjectId]) -> None:
        now = clock.now()
        untold = {entry for entry in entry_ids if str(entry) not in self.told}
        found = await _in_thread(inbox.entries)(self.follower_id, untold, now)
        for entry in untold:  # Also what has gone meanwhile: it is not looked for again.
            self.told.append(str(entry))
        for entry in found:
            await self._send_frame(frames.created(entry))
        if found:
            await self._send_frame(frames.unread_count(await _in_thread(inbox.unread_count)(self.follower_id, now)))

    async def _catch_up(self) -> None:
        """Sends the present state. Unless it comes to its end, the next renewal has it done again."""
        epoch, self._catch_up_in = self._catch_up_in, None
        if epoch is None or self._sockets is None or not self._sockets.is_behind(self):
            return
        self._registered = True
        missed_since = self.missed_since
        await self._send_frame(frames.unread_count(await _in_thread(inbox.unread_count)(self.follower_id, clock.now())))
        if missed_since is not None:
            await self._resume(Resume(missed_since, tuple(map(ObjectId, self.told))))
        if self._waiting is not None:
            await self._resume(self._waiting)
            self._waiting = None
        if self._sockets is not None:
            self._sockets.has_caught_up(self, epoch)

    # --- From the client ---------------------------------------------------------------------------------------------
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self._sockets is None:
            return  # Refused; the close is on its way.
        async with self._outbox.turn:
            try:
                frame = frames.parse(text_data)
            except FrameError as error:
                await self._send_frame(frames.error(error.code, str(error)))
            else:
                await self._answer(frame)

    async def _answer(self, frame: Parsed) -> None:
        match frame:
            case Ack():
                await self._carry_out(self._acknowledge(frame))
            case Read() | Unread() | Archive():
                await self._carry_out(self._change(frame))
            case ReadAll():
                await self._carry_out(self._read_all())
            case Ping():
                self.pinged_at = asyncio.get_running_loop().time()
                await self._send_frame(frames.pong(clock.now()))
            case Resume() if self._registered:
                await self._carry_out(self._resume_or_wait(frame))
            case Resume():
                self._waiting = frame  # Answered as soon as this socket is registered; the latest one counts.

    async def _carry_out(self, step: Any) -> None:
        """Runs a step that needs the database; while that is away the client is told, and the socket stays."""
        try:
            await step
        except FrameError as error:
            await self._send_frame(frames.error(error.code, str(error)))
        except PyMongoError as error:
            MONGODB.away(error)
            await self._send_frame(frames.error(ErrorCode.UNAVAILABLE, "Try again in a moment."))

    async def _acknowledge(self, frame: Ack) -> None:
        match await _in_thread(acks.acknowledge)(self.follower_id, frame, clock.now()):
            case Acknowledged.NOT_FOUND:
                raise FrameError(ErrorCode.NOT_FOUND, f"Alert {frame.id} was not sent to you on {frame.channel}.")
            case Acknowledged.WHICH_DEVICE:
                raise FrameError(ErrorCode.INVALID_ACK, f"You have several devices on {frame.channel}: `device_id`?")

    async def _change(self, frame: Read | Unread | Archive) -> None:
        if not await _in_thread(_change_entry)(self.follower_id, frame, clock.now()):
            raise FrameError(ErrorCode.NOT_FOUND, f"There is no entry {frame.id} in the inbox.")

    async def _read_all(self) -> None:
        now = clock.now()
        read = await _in_thread(inbox.mark_many_read)(self.follower_id, now, None, now)
        await _in_thread(live.push_read)(self.follower_id, read, now)

    async def _resume_or_wait(self, frame: Resume) -> None:
        """While the database is away it waits for the next catch-up: what is asked for is told, if later."""
        try:
            await self._resume(frame)
        except PyMongoError:
            self._waiting = frame
            if self._sockets is not None:
                self._sockets.is_to_catch_up(self)
            raise

    async def _resume(self, frame: Resume) -> None:
        """Sends of each known entry whether it is gone or read, and what else is in the inbox since then."""
        now = clock.now()
        known: dict[ObjectId, datetime | None] = {}
        if frame.known:
            known = await _in_thread(inbox.read_times)(self.follower_id, frame.known, now)
        for oid in frame.known:
            if oid in known:
                await self._send_frame(frames.updated(oid, known[oid]))
            else:
                await self._send_frame(frames.removed(oid, RemovalReason.OUTDATED))
        pages = inbox.pages_since(self.follower_id, frame.since, now)
        while page := await _in_thread(next)(pages, None):
            for entry in page:
                if str(entry["_id"]) not in self.told:
                    self.told.append(str(entry["_id"]))
                if entry["_id"] not in known:
                    await self._send_frame(frames.created(entry))

    async def _send_frame(self, frame: dict[str, Any]) -> None:
        await self.send(frames.encode(frame))


def _change_entry(follower_id: ObjectId, frame: Read | Unread | Archive, now: datetime) -> bool:
    """Carries it out and tells all sockets of the follower, this one too. Returns whether there is such an entry."""
    match frame:
        case Read():
            if there := inbox.mark_read(follower_id, frame.id, now):
                live.push_read(follower_id, [frame.id], now)
        case Unread():
            if there := inbox.mark_unread(follower_id, frame.id, now):
                live.push_read(follower_id, [frame.id], None)
        case Archive():
            if there := inbox.archive(follower_id, frame.id, now):
                live.push_archived(follower_id, [frame.id])
    return there


def _in_thread(function: Callable[P, T]) -> Callable[P, Any]:
    """Runs in a thread of the pool: the default would queue all sockets of the process behind one thread."""
    return database_sync_to_async(function, thread_sensitive=False)


def _selected(offered: list[str]) -> str | None:
    return frames.SUBPROTOCOL if frames.SUBPROTOCOL in offered else None


def _offered_token(offered: list[str]) -> str:
    """The subprotocol that has a JWT's three parts; empty if there is none."""
    return next((protocol for protocol in offered if protocol.count(".") == 2), "")
