"""What the live push does at a bad moment: late registrations, a Redis that is emptied, restarts or is away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from copy import deepcopy
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels_redis.pubsub import RedisSingleShardConnection
from pymongo.errors import AutoReconnect
from redis.commands.core import AsyncScript
from websockets.exceptions import ConnectionClosed

from followers import clock
from followers.models import Follower
from notifications import frames, inbox, tokens
from notifications.frames import SUBPROTOCOL
from notifications.live import push, push_alerts
from notifications.sockets import _by_loop
from tests.web import builders
from tests.web.private_redis import PrivateRedis
from tests.web.server import ANSWER_SECONDS, App, Server, app, raw_socket, running_server

pytestmark = pytest.mark.django_db(transaction=True)

stored_entry = sync_to_async(builders.stored_entry)
tell = sync_to_async(push_alerts)


@pytest.fixture
def own_redis(tmp_path: Path, settings) -> Iterator[PrivateRedis]:
    """A Redis for this test alone, which the settings name."""
    private = PrivateRedis(tmp_path)
    private.start()
    layers = deepcopy(settings.CHANNEL_LAYERS)
    layers["default"]["CONFIG"]["hosts"][0]["address"] = private.url
    settings.REDIS_URL, settings.CHANNEL_LAYERS = private.url, layers
    settings.PRESENCE_TTL_SECONDS = 3  # Renewed every second.
    yield private
    private.stop()
    # The shared server's sockets would go on with the channel layer of before: changing the settings made a new one.
    _by_loop.clear()


@pytest.fixture
def own_server(transactional_db: None, own_redis: PrivateRedis) -> Iterator[Server]:
    with running_server() as started:
        yield started


async def test_a_follower_who_connects_while_an_alert_is_inserted_is_told_of_it(
    server: Server, ann: Follower, monkeypatch
):
    """Race 9. The whole fan-out happens right after the socket's first look at its inbox, which still saw nothing.

    So the frame must come live; it does because the socket registered before it looked.
    """
    inserted: list[dict[str, Any]] = []
    read_count = inbox.unread_count

    def count_then_fan_out(follower_id, now):
        count = read_count(follower_id, now)
        if not inserted:
            inserted.append(builders.stored_entry(ann))
            push_alerts(inserted, [])
        return count

    monkeypatch.setattr(inbox, "unread_count", count_then_fan_out)
    async with app(server, tokens.mint(ann)) as phone:
        frame = await phone.hear()

    assert (frame["type"], frame["id"]) == ("notification.created", str(inserted[0]["_id"]))


async def test_a_resume_that_met_an_outage_is_carried_out_when_it_is_over(
    own_server: Server, ann: Follower, monkeypatch
):
    known = await stored_entry(ann)

    def away(*arguments: Any) -> None:
        monkeypatch.undo()
        raise AutoReconnect

    async with app(own_server, tokens.mint(ann)) as phone:
        await phone.everything_so_far()
        await sync_to_async(inbox.mark_read)(ann.pk, known["_id"], clock.now())
        monkeypatch.setattr(inbox, "read_times", away)
        await phone.say(type="resume", since=frames.rfc3339(known["created_at"]), known=[str(known["_id"])])

        assert (await phone.hear_until("error"))[-1]["code"] == "unavailable"
        updated = (await phone.hear_until("notification.updated", id=str(known["_id"])))[-1]
    assert updated["read_at"] is not None


async def test_a_socket_does_not_look_before_its_subscription_is_in_force(
    own_server: Server, ann: Follower, monkeypatch
):
    """The library does not wait for the answer to SUBSCRIBE; here Redis carries it out late."""
    late, test_loop = asyncio.Event(), asyncio.get_running_loop()
    subscribe, subscriptions = RedisSingleShardConnection.subscribe, []

    async def subscribe_late(self, channel):
        if "__group__" not in channel:
            await subscribe(self, channel)
            return
        release = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(late.wait(), test_loop))
        subscriptions.append(asyncio.create_task(_after(release, lambda: subscribe(self, channel))))

    monkeypatch.setattr(RedisSingleShardConnection, "subscribe", subscribe_late)
    async with raw_socket(own_server, [SUBPROTOCOL, tokens.mint(ann)]) as socket:
        phone = App(socket)
        # The answer to this comes after whatever the connect has sent: nothing, for the subscription is not there.
        assert await phone.everything_so_far() == []

        late.set()

        assert await phone.hear() == {"type": "unread_count.changed", "count": 0}


async def test_what_is_stored_while_the_subscription_is_not_in_force_comes_when_it_is(
    own_server: Server, ann: Follower, bob: Follower, monkeypatch
):
    """Nobody hears the push; the sockets that have connected meanwhile, and wait, look afterwards."""
    deaf, receive = [True], RedisSingleShardConnection._receive_message
    monkeypatch.setattr(
        RedisSingleShardConnection, "_receive_message", lambda self, m: None if deaf[0] else receive(self, m)
    )
    began = clock.now()
    async with (
        raw_socket(own_server, [SUBPROTOCOL, tokens.mint(ann)]) as first,
        raw_socket(own_server, [SUBPROTOCOL, tokens.mint(bob)]) as second,
    ):
        phones = {ann: App(first), bob: App(second)}
        for phone in phones.values():
            await phone.say(type="resume", since=frames.rfc3339(began))
            assert await phone.everything_so_far() == []
        entries = {follower: await stored_entry(follower) for follower in phones}
        await tell(list(entries.values()), [])

        deaf[0] = False

        for follower, phone in phones.items():
            heard = await phone.hear_until("notification.created", id=str(entries[follower]["_id"]))
            assert heard[0] == {"type": "unread_count.changed", "count": 1}


async def _after(condition, step):
    await condition
    return await step()


async def test_an_emptied_redis_costs_no_alert(own_server: Server, own_redis: PrivateRedis, ann: Follower):
    async with app(own_server, tokens.mint(ann)) as phone:
        own_redis.client.flushall()
        unseen = await stored_entry(ann)
        assert await tell([unseen], []) == 0  # Nobody is known to be connected.

        # The next renewal notices, registers again and brings what was missed.
        await phone.hear_until("notification.created", id=str(unseen["_id"]))

        seen = await stored_entry(ann)
        assert await tell([seen], []) == 1
        await phone.hear_until("notification.created", id=str(seen["_id"]))


async def test_a_restarted_redis_costs_no_alert_and_no_socket(
    own_server: Server, own_redis: PrivateRedis, ann: Follower
):
    async with app(own_server, tokens.mint(ann)) as phone:
        own_redis.stop()
        missed = await stored_entry(ann)
        assert await tell([missed], []) == 0  # Logged, not raised: the fan-out goes on.

        own_redis.start()

        await phone.hear_until("notification.created", id=str(missed["_id"]))
        seen = await stored_entry(ann)
        assert await tell([seen], []) == 1
        await phone.hear_until("notification.created", id=str(seen["_id"]))


async def test_a_lost_subscription_is_noticed_though_redis_forgot_nothing(
    own_server: Server, own_redis: PrivateRedis, ann: Follower
):
    async with app(own_server, tokens.mint(ann)) as phone:
        unpushed = await stored_entry(ann)  # Its frame is published while nobody listens.

        own_redis.client.client_kill_filter(_type="pubsub")

        await phone.hear_until("notification.created", id=str(unpushed["_id"]))


async def test_what_was_told_before_a_subscription_was_lost_is_not_told_again(
    own_server: Server, own_redis: PrivateRedis, ann: Follower
):
    """But whether it is read is: that may have changed unheard."""
    async with app(own_server, tokens.mint(ann)) as phone:
        told = await stored_entry(ann)
        await tell([told], [])
        await phone.hear_until("unread_count.changed", count=1)
        unpushed = await stored_entry(ann)

        own_redis.client.client_kill_filter(_type="pubsub")

        heard = await phone.hear_until("notification.created", id=str(unpushed["_id"]))
        assert {"type": "notification.updated", "id": str(told["_id"]), "read_at": None} in heard
        assert [f["id"] for f in heard if f["type"] == "notification.created"] == [str(unpushed["_id"])]


async def test_a_process_that_hears_nothing_any_more_subscribes_again(own_server: Server, ann: Follower, monkeypatch):
    """No line broke and no error showed: only the probes do not come back."""
    deaf, subscribe, receive = [True], RedisSingleShardConnection.subscribe, RedisSingleShardConnection._receive_message

    async def subscribe_and_hear(self, channel):
        await subscribe(self, channel)
        deaf[0] = False

    async with app(own_server, tokens.mint(ann)) as phone:
        monkeypatch.setattr(RedisSingleShardConnection, "subscribe", subscribe_and_hear)
        monkeypatch.setattr(
            RedisSingleShardConnection, "_receive_message", lambda self, m: None if deaf[0] else receive(self, m)
        )
        unheard = await stored_entry(ann)
        await tell([unheard], [])

        monkeypatch.setattr("notifications.subscription.ANSWER_SECONDS", 0)

        await phone.hear_until("notification.created", id=str(unheard["_id"]))


async def test_a_message_that_nobody_can_read_ends_no_pushes(
    own_server: Server, own_redis: PrivateRedis, ann: Follower
):
    async with app(own_server, tokens.mint(ann)) as phone:
        assert own_redis.client.publish("notifyhub__group__inboxes", b"\xc1") == 1
        entry = await stored_entry(ann)
        await tell([entry], [])

        await phone.hear_until("notification.created", id=str(entry["_id"]))


async def test_a_connection_that_is_reset_during_a_renewal_ends_no_renewals(
    own_server: Server, own_redis: PrivateRedis, ann: Follower, monkeypatch
):
    reset = asyncio.Event()
    renew, test_loop = AsyncScript.__call__, asyncio.get_running_loop()

    async def reset_once(self, **options):
        if not reset.is_set():
            test_loop.call_soon_threadsafe(reset.set)
            raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")
        return await renew(self, **options)

    async with app(own_server, tokens.mint(ann)) as phone:
        monkeypatch.setattr(AsyncScript, "__call__", reset_once)
        await asyncio.wait_for(reset.wait(), ANSWER_SECONDS)

        own_redis.client.flushall()  # What only the next renewal can notice.
        unseen = await stored_entry(ann)

        await phone.hear_until("notification.created", id=str(unseen["_id"]))


async def test_push_says_how_many_frames_were_not_sent(own_redis: PrivateRedis, ann: Follower):
    own_redis.stop()

    assert await sync_to_async(push)([(ann.pk, {"type": "unread_count.changed", "count": 1})] * 3) == 3


async def test_a_socket_that_cannot_be_registered_is_asked_to_come_again(
    own_server: Server, own_redis: PrivateRedis, ann: Follower
):
    own_redis.stop()
    async with raw_socket(own_server, [SUBPROTOCOL, tokens.mint(ann)]) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1013


async def test_an_alert_that_was_stored_and_never_pushed_is_told_all_the_same(
    own_server: Server, ann: Follower, bob: Follower, monkeypatch
):
    """As when a worker dies between its insert and its push: Redis has lost nothing, and nobody knows of it."""
    monkeypatch.setattr("notifications.sockets.LOOK_GRACE", timedelta(0))
    monkeypatch.setattr("notifications.sockets.LOOK_SECONDS", 0)
    async with app(own_server, tokens.mint(ann)) as phone, app(own_server, tokens.mint(bob)) as other:
        unpushed = await stored_entry(ann)

        heard = await phone.hear_until("notification.created", id=str(unpushed["_id"]))
        assert await phone.hear() == {"type": "unread_count.changed", "count": 1}

        assert len(heard) == 1
        assert await other.everything_so_far() == []


async def test_an_alert_that_was_pushed_is_not_told_again(own_server: Server, ann: Follower, monkeypatch):
    monkeypatch.setattr("notifications.sockets.LOOK_GRACE", timedelta(0))
    monkeypatch.setattr("notifications.sockets.LOOK_SECONDS", 0)
    looks: asyncio.Queue[None] = asyncio.Queue()
    made_between, loop = inbox.made_between, asyncio.get_running_loop()

    def look(*arguments):
        loop.call_soon_threadsafe(looks.put_nowait, None)
        return made_between(*arguments)

    async with app(own_server, tokens.mint(ann)) as phone:
        seen = await stored_entry(ann)
        await tell([seen], [])
        await phone.hear_until("unread_count.changed", count=1)
        monkeypatch.setattr(inbox, "made_between", look)

        for _ in range(2):  # The first has ended when the second begins.
            await asyncio.wait_for(looks.get(), ANSWER_SECONDS)

        assert await phone.everything_so_far() == []


async def test_a_push_that_comes_later_than_the_look_tells_nothing_twice(
    own_server: Server, ann: Follower, monkeypatch
):
    monkeypatch.setattr("notifications.sockets.LOOK_GRACE", timedelta(0))
    monkeypatch.setattr("notifications.sockets.LOOK_SECONDS", 0)
    async with app(own_server, tokens.mint(ann)) as phone:
        late = await stored_entry(ann)
        await phone.hear_until("unread_count.changed", count=1)  # It was looked for, and told.

        await tell([late], [])

        heard = await phone.hear_until("unread_count.changed")  # Every push is followed by the count.
        assert len(heard) == 1


async def test_a_client_that_stops_pinging_is_closed(own_server: Server, ann: Follower, monkeypatch):
    monkeypatch.setattr("notifications.sockets.SILENCE_SECONDS", 0)
    async with app(own_server, tokens.mint(ann)) as phone, app(own_server, tokens.mint(ann)) as quiet:
        await phone.say(type="ping")
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await phone.hear()

        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4408, "silent")
        assert await quiet.everything_so_far() == []  # It never pinged: nothing is expected of it.
