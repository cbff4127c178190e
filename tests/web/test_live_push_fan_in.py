"""One subscription for all sockets of a web process: who is told what, and who waits for whom."""

from __future__ import annotations

import asyncio
import socket
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from bson import ObjectId
from pymongo.errors import AutoReconnect
from websockets.exceptions import ConnectionClosed

from followers import clock
from followers.models import Follower
from notifications import frames, inbox, live, tokens
from notifications.live import push, push_alerts
from notifications.outbox import MOST_WAITING
from tests.web import builders
from tests.web.server import App, Server, app

pytestmark = pytest.mark.django_db(transaction=True)

stored_entry = sync_to_async(builders.stored_entry)
tell = sync_to_async(push_alerts)
publish = sync_to_async(push)


def socket_that_takes_in_little(server: Server) -> socket.socket:
    """Connected. By default the kernel would take in megabytes for a client that does not read."""
    connected = socket.socket()
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    host, port = server.address.split(":")
    connected.connect((host, int(port)))
    connected.setblocking(False)
    return connected


async def closing(phone: App) -> tuple[int, str]:
    """The code and reason of the close, after whatever else still comes."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            await phone.hear()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


async def test_of_a_chunk_each_socket_is_told_its_own_followers_frames_in_order(
    server: Server, ann: Follower, bob: Follower
):
    mine, theirs, nobodys = ([ObjectId() for _ in range(3)] for _ in range(3))
    chunk = [
        (follower, frames.updated(entry, None))
        for trio in zip(mine, theirs, nobodys, strict=True)
        for follower, entry in zip((ann.pk, bob.pk, ObjectId()), trio, strict=True)
    ]
    token = tokens.mint(ann)
    async with app(server, token) as phone, app(server, token) as tablet, app(server, tokens.mint(bob)) as other:
        await publish(chunk)

        for device, expected in ((phone, mine), (tablet, mine), (other, theirs)):
            heard = await device.hear_until("unread_count.changed")
            assert [frame["id"] for frame in heard[:-1]] == [str(entry) for entry in expected]


async def test_the_count_of_many_alerts_at_once_comes_after_them(server: Server, ann: Follower):
    entries = [await stored_entry(ann) for _ in range(5)]
    async with app(server, tokens.mint(ann)) as phone:
        assert await tell(entries, []) == 5

        heard = await phone.hear_until("unread_count.changed", count=5)

    assert [frame.get("id") for frame in heard] == [*(str(e["_id"]) for e in entries), None]


async def test_a_count_that_fails_is_made_up_for(server: Server, ann: Follower, monkeypatch):
    unread_counts, failures = inbox.unread_counts, [AutoReconnect("reset")]

    def fail_once(*arguments):
        if failures:
            raise failures.pop()
        return unread_counts(*arguments)

    async with app(server, tokens.mint(ann)) as phone:
        monkeypatch.setattr(inbox, "unread_counts", fail_once)
        await sync_to_async(live.push)([(ann.pk, None)])

        assert await phone.hear() == {"type": "unread_count.changed", "count": 0}

    assert failures == []


async def test_a_client_that_takes_nothing_in_delays_nobody_and_is_asked_to_come_again(
    server: Server, ann: Follower, bob: Follower
):
    """It is closed with 1013 when more waits for it than may, and its next connection brings what it missed."""
    began = clock.now()
    large = {**frames.updated(ObjectId(), None), "padding": "x" * 8_000}
    rounds = MOST_WAITING // live.CHUNK * 2  # Some hundred such frames fit into the network's own buffers.
    own = socket_that_takes_in_little(server)
    async with (
        app(server, tokens.mint(ann), sock=own, compression=None) as slow,
        app(server, tokens.mint(bob)) as other,
    ):
        slow.socket.transport.pause_reading()
        for _ in range(rounds):
            marker = ObjectId()
            await publish([*[(ann.pk, large)] * live.CHUNK, (bob.pk, frames.updated(marker, None))])
            await other.hear_until("notification.updated", id=str(marker))
        missed = await stored_entry(ann)
        await tell([missed], [])

        slow.socket.transport.resume_reading()
        assert await closing(slow) == (1013, "behind")

    async with app(server, tokens.mint(ann)) as phone:
        await phone.say(type="resume", since=frames.rfc3339(began))
        heard = await phone.everything_so_far()
    assert [frame["id"] for frame in heard if frame["type"] == "notification.created"] == [str(missed["_id"])]


async def test_a_socket_whose_news_fail_is_asked_to_come_again(server: Server, ann: Follower, monkeypatch):
    monkeypatch.setattr(inbox, "unread_count", lambda *_: 1 // 0)
    with pytest.raises(ConnectionClosed) as closed:
        async with app(server, tokens.mint(ann)):
            pass
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1013, "behind")


async def test_an_answer_from_an_earlier_look_does_not_overtake_news(server: Server, ann: Follower, monkeypatch):
    """A resume has read an entry as unread; then it is read, and told so. The socket must hear that last."""
    entry = await stored_entry(ann)
    pages_since, loop, is_told = inbox.pages_since, asyncio.get_running_loop(), asyncio.Event()

    def pages_then_news(*arguments):
        pages = list(pages_since(*arguments))
        inbox.mark_read(ann.pk, entry["_id"], clock.now())
        live.push_read(ann.pk, [entry["_id"]], clock.now())
        asyncio.run_coroutine_threadsafe(is_told.wait(), loop).result()
        yield from pages

    async with app(server, tokens.mint(ann)) as phone, app(server, tokens.mint(ann)) as tablet:
        monkeypatch.setattr(inbox, "pages_since", pages_then_news)
        await phone.say(type="resume", since=frames.rfc3339(clock.now() - timedelta(minutes=1)))
        await tablet.hear_until("notification.updated", id=str(entry["_id"]))  # So the phone's frame is here as well.
        is_told.set()

        heard = await phone.hear_until("notification.updated", id=str(entry["_id"]))

    assert [frame["type"] for frame in heard] == ["notification.created", "notification.updated"]
