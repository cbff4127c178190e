"""The inbox's WebSocket, over TCP, against the real Redis and MongoDB."""

from __future__ import annotations

from datetime import timedelta

import jwt
import pytest
from asgiref.sync import sync_to_async
from bson import ObjectId
from websockets.exceptions import ConnectionClosed, InvalidStatus

from followers import clock
from followers.models import Follower
from notifications import frames, tokens
from notifications.frames import SUBPROTOCOL
from notifications.live import push, push_alerts
from tests.web import builders
from tests.web.server import App, Server, app, raw_socket

pytestmark = pytest.mark.django_db(transaction=True)

stored_entry = sync_to_async(builders.stored_entry)
stored_alert = sync_to_async(builders.stored_alert)
tell = sync_to_async(push_alerts)


async def closing(server: Server, subprotocols: list[str]) -> tuple[int, str]:
    """The code and reason that the server closes a new socket with."""
    async with raw_socket(server, subprotocols) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


# --- Frames from the fan-out ------------------------------------------------------------------------------------------
async def test_an_alert_reaches_all_sockets_of_its_follower_alone(server: Server, ann: Follower, bob: Follower):
    token = tokens.mint(ann)
    async with app(server, token) as phone, app(server, token) as tablet, app(server, tokens.mint(bob)) as other:
        entry = await stored_entry(ann)

        assert await tell([entry], []) == 1

        for device in (phone, tablet):
            assert await device.hear() == {
                "type": "notification.created",
                "id": str(entry["_id"]),
                "created_at": frames.rfc3339(entry["created_at"]),
                "expires_at": frames.rfc3339(entry["expires_at"]),
                "read_at": None,
                "payload": entry["payload"],
            }
            assert await device.hear() == {"type": "unread_count.changed", "count": 1}
        assert await other.everything_so_far() == []


async def test_a_pruned_entry_is_announced_as_removed(server: Server, ann: Follower):
    pruned = ObjectId()
    async with app(server, tokens.mint(ann)) as phone:
        await tell([], [(ann.pk, pruned)])

        assert await phone.hear() == {"type": "notification.removed", "id": str(pruned), "reason": "outdated"}


async def test_nobody_connected_costs_no_frame(server: Server, ann: Follower):
    assert await tell([await stored_entry(ann)], []) == 0


async def test_two_thousand_frames_go_out_in_one_call(server: Server, ann: Follower):
    entries = [ObjectId() for _ in range(2_000)]
    async with app(server, tokens.mint(ann)) as phone:
        assert await sync_to_async(push)([(ann.pk, frames.updated(entry, None)) for entry in entries]) == 0

        heard = [await phone.hear() for _ in range(len(entries) + 1)]
        assert [f["id"] for f in heard if "id" in f] == [str(entry) for entry in entries]


# --- Who may connect --------------------------------------------------------------------------------------------------
async def test_the_server_selects_the_protocol_and_not_the_token(server: Server, ann: Follower):
    async with raw_socket(server, [tokens.mint(ann), SUBPROTOCOL]) as socket:
        assert socket.subprotocol == SUBPROTOCOL


async def test_a_token_alone_is_enough_for_an_app_that_needs_no_selection(server: Server, ann: Follower):
    async with raw_socket(server, [tokens.mint(ann)]) as socket:
        assert socket.subprotocol is None
        assert "unread_count.changed" in await socket.recv()


@pytest.mark.parametrize("offered", [[SUBPROTOCOL], [SUBPROTOCOL, "not.a.token"], [SUBPROTOCOL, "x"]])
async def test_a_missing_or_wrong_token_is_closed_with_4401(server: Server, offered: list[str]):
    assert await closing(server, offered) == (4401, "token_invalid")


async def test_an_expired_token_is_closed_with_4401(server: Server, ann: Follower, settings):
    settings.FOLLOWER_TOKEN_SECONDS = 0

    assert await closing(server, [SUBPROTOCOL, tokens.mint(ann)]) == (4401, "token_expired")


async def test_a_token_signed_with_the_bare_secret_key_opens_nothing(server: Server, ann: Follower, settings):
    claims = jwt.decode(tokens.mint(ann), options={"verify_signature": False})

    forged = jwt.encode(claims, settings.SECRET_KEY, "HS256")

    assert await closing(server, [SUBPROTOCOL, forged]) == (4401, "token_invalid")


async def test_a_socket_ends_with_its_token(server: Server, ann: Follower, settings):
    settings.FOLLOWER_TOKEN_SECONDS = 1
    async with raw_socket(server, [SUBPROTOCOL, tokens.mint(ann)]) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await socket.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4401, "token_expired")


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://localhost.evil.example", "http://[", "x"],
)
async def test_another_sites_page_is_closed_with_4403(server: Server, ann: Follower, origin: str):
    async with raw_socket(server, [SUBPROTOCOL, tokens.mint(ann)], origin=origin) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4403, "origin_not_allowed")


async def test_our_own_page_is_let_in(server: Server, ann: Follower):
    async with app(server, tokens.mint(ann), origin="http://localhost:8000") as page:
        assert await page.everything_so_far() == []


async def test_an_unknown_address_is_refused(server: Server, ann: Follower):
    with pytest.raises(InvalidStatus) as refused:
        async with raw_socket(server, [SUBPROTOCOL, tokens.mint(ann)], path="/ws/elsewhere/"):
            pass
    assert refused.value.response.status_code == 403


# --- Frames from the client -------------------------------------------------------------------------------------------
async def test_ack_delivers_the_in_app_delivery_once(server: Server, ann: Follower):
    alert = await stored_alert(ann)
    async with app(server, tokens.mint(ann)) as phone:
        await phone.say(type="ack", id=str(alert["_id"]))
        assert await phone.everything_so_far() == []
        first = await sync_to_async(builders.notification)(alert["_id"])
        await phone.say(type="ack", id=str(alert["_id"]))
        assert await phone.everything_so_far() == []

    in_app, push_delivery = first["deliveries"]
    assert (in_app["state"], list(in_app["acks"])) == ("delivered", ["received"])
    assert in_app["delivered_at"] >= alert["created_at"].replace(tzinfo=None)
    assert push_delivery["state"] == "queued"
    assert first["state"] == "pending"  # Derived: the other channel is unfinished.
    assert first["wake_at"] == push_delivery["next_attempt_at"]
    assert await sync_to_async(builders.notification)(alert["_id"]) == first


async def test_ack_of_a_push_message_names_its_device(server: Server, ann: Follower):
    alert = await stored_alert(ann)
    devices = [await sync_to_async(builders.sent_push)(alert["_id"], "fcm") for _ in range(2)]
    ack = {"type": "ack", "id": str(alert["_id"]), "event": "opened", "channel": "fcm"}
    async with app(server, tokens.mint(ann)) as phone:
        await phone.say(**ack)
        unnamed = await phone.hear()
        await phone.say(**ack, device_id=str(devices[1]))
        assert await phone.everything_so_far() == []

    assert (unnamed["type"], unnamed["code"]) == ("error", "invalid_ack")
    *_, first, second = (await sync_to_async(builders.notification)(alert["_id"]))["deliveries"]
    assert (first["state"], second["state"]) == ("sent", "delivered")
    assert (first.get("acks"), list(second["acks"])) == (None, ["opened"])


async def test_read_marks_the_entry_and_tells_all_sockets(server: Server, ann: Follower):
    kept, read = await stored_entry(ann), await stored_entry(ann)
    token = tokens.mint(ann)
    async with app(server, token) as phone, app(server, token) as tablet:
        await phone.say(type="read", id=str(read["_id"]))

        for device in (phone, tablet):
            updated = await device.hear()
            assert (updated["type"], updated["id"]) == ("notification.updated", str(read["_id"]))
            assert await device.hear() == {"type": "unread_count.changed", "count": 1}
    assert frames.rfc3339((await sync_to_async(builders.inbox_entry)(read["_id"]))["read_at"]) == updated["read_at"]
    assert (await sync_to_async(builders.inbox_entry)(kept["_id"]))["read_at"] is None


async def test_read_and_unread_again_are_told_to_all_sockets(server: Server, ann: Follower):
    entry = await stored_entry(ann, read_at=clock.now())
    token = tokens.mint(ann)
    async with app(server, token) as phone, app(server, token) as tablet:
        await phone.say(type="unread", id=str(entry["_id"]))

        for device in (phone, tablet):
            assert await device.hear() == {"type": "notification.updated", "id": str(entry["_id"]), "read_at": None}
            assert await device.hear() == {"type": "unread_count.changed", "count": 1}


async def test_what_is_archived_here_is_gone_there(server: Server, ann: Follower):
    entry = await stored_entry(ann)
    token = tokens.mint(ann)
    async with app(server, token) as phone, app(server, token) as tablet:
        await phone.say(type="archive", id=str(entry["_id"]))

        for device in (phone, tablet):
            gone = {"type": "notification.removed", "id": str(entry["_id"]), "reason": "archived"}
            assert await device.hear() == gone
            assert await device.hear() == {"type": "unread_count.changed", "count": 0}
    stored = await sync_to_async(builders.inbox_entry)(entry["_id"])
    assert stored["archived_at"] is not None
    assert stored["read_at"] is None


async def test_read_all_marks_what_is_in_the_inbox_of_this_follower(server: Server, ann: Follower, bob: Follower):
    mine, other = [await stored_entry(ann) for _ in range(3)], await stored_entry(bob)
    async with app(server, tokens.mint(ann)) as phone:
        await phone.say(type="read_all")
        heard = await phone.hear_until("unread_count.changed", count=0)

    assert {f["id"] for f in heard[:-1]} == {str(e["_id"]) for e in mine}
    assert all(f["read_at"] for f in heard[:-1])
    assert (await sync_to_async(builders.inbox_entry)(other["_id"]))["read_at"] is None


async def test_ping_is_answered_with_the_servers_time(server: Server, ann: Follower):
    async with app(server, tokens.mint(ann)) as phone:
        before = frames.rfc3339(clock.now())
        await phone.say(type="ping")

        answer = await phone.hear()
    assert answer["type"] == "pong"
    assert before <= answer["now"] <= frames.rfc3339(clock.now())


@pytest.mark.parametrize("type_", ["ack", "read", "unread", "archive"])
async def test_somebody_elses_alert_is_not_found_and_stays_as_it_is(
    server: Server, ann: Follower, bob: Follower, type_: str
):
    alert = await stored_alert(ann)
    before = await sync_to_async(builders.notification)(alert["_id"])
    async with app(server, tokens.mint(bob)) as intruder:
        await intruder.say(type=type_, id=str(alert["_id"]))
        answer = await intruder.hear()

    assert (answer["type"], answer["code"]) == ("error", "not_found")
    assert await sync_to_async(builders.notification)(alert["_id"]) == before
    entry = await sync_to_async(builders.inbox_entry)(alert["_id"])
    assert (entry["read_at"], entry["archived_at"]) == (None, None)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("", "invalid_frame"),
        ("{", "invalid_frame"),
        ("[]", "invalid_frame"),
        ("null", "invalid_frame"),
        (b"\x00\xff", "invalid_frame"),
        ("NaN", "invalid_frame"),
        ("[" * 10_000, "invalid_frame"),
        ("{}", "unknown_type"),
        ('{"type": {"$gt": ""}}', "unknown_type"),
        ('{"type": "notification.created"}', "unknown_type"),
        ('{"type": "ack"}', "invalid_id"),
        ('{"type": "ack", "id": 7}', "invalid_id"),
        ('{"type": "ack", "id": "666666666666666666666666", "event": "eaten"}', "invalid_ack"),
        ('{"type": "ack", "id": "666666666666666666666666", "event": {"$gt": ""}}', "invalid_ack"),
        ('{"type": "ack", "id": "666666666666666666666666", "channel": "sms"}', "invalid_ack"),
        ('{"type": "ack", "id": "666666666666666666666666", "channel": ["fcm"]}', "invalid_ack"),
        ('{"type": "ack", "id": "666666666666666666666666", "device_id": "666666666666666666666666"}', "invalid_ack"),
        ('{"type": "ack", "id": "666666666666666666666666", "channel": "fcm", "device_id": {}}', "invalid_id"),
        ('{"type": "ack", "id": "666666666666666666666666", "channel": "fcm"}', "not_found"),
        ('{"type": "read", "id": {"$ne": null}}', "invalid_id"),
        ('{"type": "read", "id": "abc"}', "invalid_id"),
        ('{"type": "resume"}', "invalid_since"),
        ('{"type": "resume", "since": "yesterday"}', "invalid_since"),
        ('{"type": "resume", "since": "2026-11-21T09:15:00"}', "invalid_since"),
        ('{"type": "resume", "since": "0001-01-01T00:00:00+23:00"}', "invalid_since"),
        ('{"type": "resume", "since": "2026-11-21T09:15:00Z", "known": ["x"]}', "invalid_id"),
        ('{"type": "ack", "id": "' + "é" * frames.MAX_FRAME_BYTES + '"}', "frame_too_large"),
    ],
)
async def test_a_malformed_frame_is_answered_and_the_socket_stays(
    server: Server, ann: Follower, sent: str | bytes, code: str
):
    async with app(server, tokens.mint(ann)) as phone:
        await phone.socket.send(sent)
        answer = await phone.hear()
        assert (answer["type"], answer["code"]) == ("error", code)
        assert await phone.everything_so_far() == []  # Still open.


# --- Resume -----------------------------------------------------------------------------------------------------------
async def test_resume_brings_what_was_missed_in_order_with_an_overlap_of_a_minute(server: Server, ann: Follower):
    now = clock.now()
    long_known = await stored_entry(ann, now - timedelta(seconds=100))
    stored_late = await stored_entry(ann, now - timedelta(seconds=80))  # Made before the newest known, seen after it.
    known = await stored_entry(ann, now - timedelta(seconds=30))
    missed = [await stored_entry(ann, now - timedelta(seconds=s)) for s in (20, 10, 10)]
    await stored_entry(ann, now - timedelta(seconds=5), expires_at=now - timedelta(seconds=1))
    await stored_entry(ann, now - timedelta(seconds=5), archived_at=now)

    async with app(server, tokens.mint(ann)) as phone:
        await phone.say(type="resume", since=frames.rfc3339(known["created_at"]))
        heard = await phone.everything_so_far()

    assert [f["id"] for f in heard] == [str(e["_id"]) for e in [stored_late, known, *missed]]
    assert str(long_known["_id"]) not in {f["id"] for f in heard}


async def test_resume_is_complete_beyond_one_page(server: Server, ann: Follower, monkeypatch):
    monkeypatch.setattr("notifications.inbox.PAGE", 3)
    at = clock.now()
    entries = [await stored_entry(ann, at) for _ in range(8)]  # The same time: only the id tells the pages apart.
    async with app(server, tokens.mint(ann)) as phone:
        await phone.say(type="resume", since=frames.rfc3339(at))
        heard = await phone.everything_so_far()

    assert [f["id"] for f in heard] == sorted(str(e["_id"]) for e in entries)


async def test_resume_says_of_each_known_entry_whether_it_is_read_or_gone_and_brings_it_no_more(
    server: Server, ann: Follower, bob: Follower
):
    now = clock.now()
    here, old = await stored_entry(ann), await stored_entry(ann, now - timedelta(minutes=3), read_at=now)
    gone, others = ObjectId(), await stored_entry(bob)
    known = [str(oid) for oid in (here["_id"], old["_id"], gone, others["_id"])]
    async with app(server, tokens.mint(ann)) as phone:
        await phone.say(type="resume", since=frames.rfc3339(now), known=known)
        heard = await phone.everything_so_far()

    assert heard == [
        {"type": "notification.updated", "id": known[0], "read_at": None},
        {"type": "notification.updated", "id": known[1], "read_at": frames.rfc3339(now)},
        {"type": "notification.removed", "id": known[2], "reason": "outdated"},
        {"type": "notification.removed", "id": known[3], "reason": "outdated"},
    ]


async def test_what_came_while_away_arrives_after_the_reconnect(server: Server, ann: Follower):
    token = tokens.mint(ann)
    async with app(server, token) as phone:
        seen = await stored_entry(ann)
        await tell([seen], [])
        created_at = (await phone.hear())["created_at"]
    missed = await stored_entry(ann)
    await tell([missed], [])

    # Sent at once, before the server has registered the socket: it must be answered all the same.
    async with raw_socket(server, [SUBPROTOCOL, token]) as socket:
        phone = App(socket)
        await phone.say(type="resume", since=created_at)
        heard = await phone.hear_until("notification.created", id=str(missed["_id"]))

    assert heard[0] == {"type": "unread_count.changed", "count": 2}
