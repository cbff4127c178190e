"""Single-use tickets for the socket."""

from __future__ import annotations

import pytest
import redis
from asgiref.sync import sync_to_async
from django.test import Client
from websockets.exceptions import ConnectionClosed

from followers.models import Follower
from notifications import tickets, tokens
from tests.web.server import App, Server, raw_socket

pytestmark = pytest.mark.django_db(transaction=True)


def ticket_of(follower: Follower) -> str:
    return tickets.issue(tokens.verify(tokens.mint(follower)))


async def test_a_ticket_is_fetched_by_token(server: Server, ann: Follower, client: Client):
    token = await sync_to_async(tokens.mint)(ann)
    post = sync_to_async(client.post)

    answer = await post("/api/v1/ws-ticket", headers={"authorization": f"Bearer {token}"})

    assert answer.status_code == 201
    assert answer.json()["expires_in"] == 30
    async with raw_socket(server, [], path=f"/ws/inbox/?ticket={answer.json()['ticket']}") as socket:
        assert (await App(socket).hear())["count"] == 0
    refused = await post("/api/v1/ws-ticket", headers={"authorization": "Bearer a.b.c"})
    assert (refused.status_code, refused.json()["code"]) == (401, "token_invalid")


def test_only_pages_of_named_origins_may_read_the_api(client: Client, ann: Follower, settings):
    settings.CORS_ALLOWED_ORIGINS = ["https://app.example"]
    token = {"authorization": f"Bearer {tokens.mint(ann)}"}

    ours = client.get("/api/v1/inbox/count", headers={**token, "origin": "https://app.example"})
    other = client.get("/api/v1/inbox/count", headers={**token, "origin": "https://evil.example"})

    assert ours["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-origin" not in other


async def closing(server: Server, ticket: str) -> tuple[int, str]:
    async with raw_socket(server, [], path=f"/ws/inbox/?ticket={ticket}") as socket:
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await socket.recv()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


async def test_a_ticket_opens_the_socket_of_its_follower_once(server: Server, ann: Follower):
    ticket = await sync_to_async(ticket_of)(ann)

    async with raw_socket(server, [], path=f"/ws/inbox/?ticket={ticket}") as socket:
        assert await App(socket).hear() == {"type": "unread_count.changed", "count": 0}

    assert await closing(server, ticket) == (4401, "ticket_invalid")


async def test_a_socket_by_ticket_ends_with_the_token_that_fetched_it(server: Server, ann: Follower, settings):
    settings.FOLLOWER_TOKEN_SECONDS = 1

    assert await closing(server, await sync_to_async(ticket_of)(ann)) == (4401, "token_expired")


@pytest.mark.parametrize("ticket", ["x", "%00", "%ff%fe", "a" * 5_000])
async def test_what_is_no_ticket_is_closed_with_4401(server: Server, ann: Follower, ticket: str):
    assert await closing(server, ticket) == (4401, "ticket_invalid")


def test_redis_knows_a_ticket_for_30_seconds_and_only_its_hash(ann: Follower, redis_client: redis.Redis):
    ticket = ticket_of(ann)

    keys = redis_client.keys(tickets.PREFIX + "*")

    assert not any(ticket.encode() in key for key in keys)
    assert {0 < redis_client.ttl(key) <= 30 for key in keys} == {True}
    assert tickets.redeem(ticket).follower_id == ann.pk
