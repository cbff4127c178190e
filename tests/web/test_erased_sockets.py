"""The sockets of a follower who is erased: open ones end, and no new one opens."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from pymongo.errors import OperationFailure
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from followers import clock
from followers.choices import Scope
from followers.models import Follower
from notifications import tickets, tokens
from notifications.erasure import erase
from notifications.frames import SUBPROTOCOL
from tests.api.conftest import as_service
from tests.web import builders
from tests.web.server import ANSWER_SECONDS, Server, app, raw_socket, running_server

pytestmark = pytest.mark.django_db(transaction=True)

UNKNOWN = (4403, "follower_unknown")


@pytest.fixture
def own_server(transactional_db: None, settings: Any) -> Iterator[Server]:
    settings.PRESENCE_TTL_SECONDS = 3  # Renewed, and looked around, every second.
    with running_server() as started:
        yield started


async def closing(socket: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as closed:
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                await socket.recv()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


async def test_every_open_socket_of_theirs_ends_at_once(
    server: Server, ann: Follower, bob: Follower, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("notifications.sockets.LOOK_SECONDS", 3_600)
    token = tokens.mint(ann)
    async with app(server, token) as phone, app(server, token) as tablet, app(server, tokens.mint(bob)) as other:
        service = await sync_to_async(as_service)(Scope.FOLLOWERS_ERASE)
        await sync_to_async(service.delete)("/api/v1/followers/F-ann")

        assert [await closing(device.socket) for device in (phone, tablet)] == [UNKNOWN, UNKNOWN]
        assert await other.everything_so_far() == []


async def test_a_socket_whose_end_was_not_heard_ends_at_the_next_look(
    own_server: Server, ann: Follower, monkeypatch: pytest.MonkeyPatch
):
    """As when Redis was away, or the process that erased died before it said so."""
    monkeypatch.setattr("notifications.sockets.LOOK_SECONDS", 0)
    async with app(own_server, tokens.mint(ann)) as phone:
        await sync_to_async(erase)("F-ann")

        assert await closing(phone.socket) == UNKNOWN


async def test_unheard_entries_are_told_even_if_nobody_can_say_who_was_erased(
    own_server: Server, ann: Follower, monkeypatch: pytest.MonkeyPatch
):
    def refused() -> None:
        raise OperationFailure("not authorised")

    async with app(own_server, tokens.mint(ann)) as phone:
        await phone.everything_so_far()
        unheard = await sync_to_async(builders.stored_entry)(ann, clock.now() - timedelta(seconds=5))
        monkeypatch.setattr("notifications.sockets.erasures.LATELY.ids", refused)
        monkeypatch.setattr("notifications.sockets.LOOK_SECONDS", 0)

        assert await phone.hear_until("notification.created", id=str(unheard["_id"]))


async def test_neither_token_nor_ticket_opens_one(server: Server, ann: Follower):
    token = tokens.mint(ann)
    ticket = await sync_to_async(lambda: tickets.issue(tokens.verify(token)))()
    await sync_to_async(erase)("F-ann")

    async with raw_socket(server, [SUBPROTOCOL, token]) as socket:
        assert await closing(socket) == UNKNOWN
    async with raw_socket(server, [], path=f"/ws/inbox/?ticket={ticket}") as socket:
        assert await closing(socket) == UNKNOWN
