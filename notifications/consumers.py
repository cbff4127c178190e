"""The inbox's WebSocket."""

from __future__ import annotations

import asyncio
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
    Ping,
    Read,
    ReadAll,
    RemovalReason,
    Resume,
    Unread,
)
from notifications.platform_keys import PlatformKeysAwayError
from notifications.sockets import Sockets, sockets_of_this_process

P = ParamSpec("P")
T = TypeVar("T")

SUBPROTOCOL = "notifyhub.v1"
REMEMBERED = 64  # Entries that a socket knows it has told of; see `sockets`.


class InboxConsumer(AsyncWebsocketConsumer):
    """One socket of one follower. `notifications.frames` describes what is said on it.

    A client offers two subprotocols, `notifyhub.v1` and its follower token, in any order; the server selects the first,
    so that the token is in no answer and in no address. A bad token is told after the handshake, by close code 4401: a
    refusal before it would show as HTTP 403, without a reason. The socket ends with its token, likewise by 4401; a
    client then gets a new token, connects and resumes, and misses nothing. A client that cannot offer subprotocols
    fetches a ticket by its token, and connects with `?ticket=`; the socket still ends with the token.

    On connect the client is told its unread count. What it missed it asks for by `resume`, naming the `created_at` of
    the newest entry it knows; entries of the minute before that come again, and it drops the ids that it has.
    """

    follower_id: ObjectId
    missed_since: datetime | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sockets: Sockets | None = None
        self._registered = False
        self._waiting: Resume | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._is_accepted = False
        self.told: deque[str] = deque(maxlen=REMEMBERED)
        self.pinged_at: float | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        except RedisError as error:
            REDIS.away(error)
            if not self._is_accepted:
                await send({"type": "websocket.accept", "subprotocol": _selected(scope["subprotocols"])})
            await send({"type": "websocket.close", "code": CloseCode.TRY_AGAIN_LATER.value})
        finally:
            await self._forget()  # However it ended: a client that vanished leaves no disconnect behind.

    async def connect(self) -> None:
        await self.accept(_selected(self.scope["subprotocols"]))
        self._is_accepted = True
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
        await self._forget()

    async def _forget(self) -> None:
        """Nothing of this socket stays behind; doing it twice changes nothing."""
        if self._expiry is not None:
            self._expiry.cancel()
        sockets, self._sockets = self._sockets, None
        if sockets is not None:
            await sockets.remove(self)

    def _end_with_token(self) -> None:
        self._closing = asyncio.create_task(
            self.close(CloseCode.UNAUTHORISED.value, tokens.TokenErrorCode.EXPIRED.value)
        )

    # --- From our own processes --------------------------------------------------------------------------------------
    async def inbox_frame(self, event: dict[str, Any]) -> None:
        """A frame for this follower."""
        if entry := event.get("entry"):
            self.told.append(entry)
        await self.send(event["text"])

    async def tell(self, entry_ids: Collection[ObjectId]) -> None:
        now = clock.now()
        found = await _in_thread(inbox.entries)(self.follower_id, entry_ids, now)
        self.told.extend(str(entry) for entry in entry_ids)  # Also what has gone meanwhile: it is not looked for again.
        for entry in found:
            await self._send_frame(frames.created(entry))
        if found:
            await self._send_frame(frames.unread_count(await _in_thread(inbox.unread_count)(self.follower_id, now)))

    async def end_silence(self) -> None:
        await self.close(CloseCode.SILENT.value, "silent")

    async def inbox_registered(self, event: dict[str, Any]) -> None:
        """This socket hears what is pushed from now on: the time to read the inbox, and not before."""
        if event["socket"] != self.channel_name or self._sockets is None:
            return
        self._registered = True
        await self._carry_out(self._catch_up(self._sockets))

    async def _catch_up(self, sockets: Sockets) -> None:
        """Sends the present state. Unless it comes to its end, the next renewal has it done again."""
        missed_since = self.missed_since
        await self._send_frame(frames.unread_count(await _in_thread(inbox.unread_count)(self.follower_id, clock.now())))
        if missed_since is not None:
            await self._resume(Resume(missed_since))
        if self._waiting is not None:
            await self._resume(self._waiting)
            self._waiting = None
        sockets.confirm(self, missed_since)

    # --- From the client ---------------------------------------------------------------------------------------------
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self._sockets is None:
            return  # Refused; the close is on its way.
        try:
            frame = frames.parse(text_data)
        except FrameError as error:
            await self._send_frame(frames.error(error.code, str(error)))
            return
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
                await self._carry_out(self._resume(frame))
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

    async def _resume(self, frame: Resume) -> None:
        for entry in await _in_thread(inbox.gone)(self.follower_id, frame.known, clock.now()) if frame.known else ():
            await self._send_frame(frames.removed(entry, RemovalReason.OUTDATED))
        pages = inbox.pages_since(self.follower_id, frame.since, clock.now())
        while page := await _in_thread(next)(pages, None):
            for entry in page:
                self.told.append(str(entry["_id"]))
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
    return SUBPROTOCOL if SUBPROTOCOL in offered else None


def _offered_token(offered: list[str]) -> str:
    """The subprotocol that has a JWT's three parts; empty if there is none."""
    return next((protocol for protocol in offered if protocol.count(".") == 2), "")
