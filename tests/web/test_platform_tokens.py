"""The platform's own JWTs as followers' tokens: what is let through and what is not."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.test import Client
from pymongo.errors import AutoReconnect
from websockets.exceptions import ConnectionClosed

from followers import clock, erasures
from followers.models import Follower
from notifications import platform_keys, tokens
from notifications.erasure import erase
from notifications.frames import SUBPROTOCOL
from notifications.tokens import TokenErrorCode, verify
from tests.web.platform import Platform, private_key, public_jwk, refused, resigned
from tests.web.server import App, Server, app, raw_socket

pytestmark = pytest.mark.django_db(transaction=True)

COUNT = "/api/v1/inbox/count"


# --- Whose tokens -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("algorithm", platform_keys.ALGORITHMS)
def test_the_platforms_token_names_its_follower_and_its_end(platform: Platform, ann: Follower, algorithm: str):
    end = clock.now().replace(microsecond=0) + timedelta(hours=1)

    claims = verify(platform.token(algorithm, exp=end))

    assert (claims.follower_id, claims.expires_at) == (ann.pk, end)


def test_the_follower_may_be_in_another_claim(platform: Platform, bob: Follower, settings):
    settings.PLATFORM_JWT_FOLLOWER_CLAIM = "follower"

    assert verify(platform.token(follower="F-bob")).follower_id == bob.pk
    assert refused(platform.token()) is TokenErrorCode.INVALID


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://login.platform.example"},
        {"iss": None},
        {"iss": tokens.ISSUER},
        {"aud": "somebody-else"},
        {"aud": [tokens.AUDIENCE]},
        {"aud": None},
        {"exp": None},
        {"exp": "soon"},
        {"exp": 1e300},
        {"nbf": 32_503_680_000},
        {"nbf": "soon"},
        {"sub": None},
        {"sub": 17},
        {"kid": None},
        {"kid": "made-up"},
        {"number": 2, "kid": "RS256-1"},
        {"algorithm": "ES256", "kid": "RS256-1"},
    ],
    ids=str,
)
def test_a_token_with_anything_wrong_is_refused(platform: Platform, changes: dict[str, Any]):
    assert refused(platform.token(**changes)) is TokenErrorCode.INVALID


def test_a_token_that_begins_within_the_minute_is_good_already(platform: Platform, ann: Follower):
    assert verify(platform.token(nbf=clock.now() + timedelta(seconds=30))).follower_id == ann.pk


def test_a_token_is_over_when_its_time_is(platform: Platform, pass_time):
    token = platform.token(exp=clock.now() + timedelta(minutes=1))
    verify(token)
    pass_time(timedelta(minutes=1))

    assert refused(token) is TokenErrorCode.EXPIRED


@pytest.mark.parametrize("algorithm", ["HS256", "RS256"])
@pytest.mark.parametrize("form", [Encoding.PEM, Encoding.DER, None], ids=["PEM", "DER", "JWK"])
def test_a_token_signed_with_the_public_key_as_a_secret_is_invalid(
    platform: Platform, algorithm: str, form: Encoding | None
):
    public = private_key("RS256").public_key()
    secret = (
        json.dumps(public_jwk("RS256")).encode()
        if form is None
        else public.public_bytes(form, PublicFormat.SubjectPublicKeyInfo)
    )
    for kid in ("RS256-1", None):
        header = {"alg": algorithm, "typ": "JWT", **({"kid": kid} if kid else {})}

        assert refused(resigned(platform.token(), header, secret)) is TokenErrorCode.INVALID


@pytest.mark.parametrize("algorithm", ["HS256", "RS256"])
def test_a_secret_that_the_platform_publishes_by_mistake_opens_nothing(platform: Platform, algorithm: str):
    platform.keys.append({"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0", "alg": "HS256", "kid": "oct"})
    header = {"alg": algorithm, "kid": "oct"}

    assert refused(resigned(platform.token(), header, b"secret-secret-secret-secret")) is TokenErrorCode.INVALID


def test_an_algorithm_that_is_not_allowed_is_invalid_with_a_good_key_too(platform: Platform):
    claims = jwt.decode(platform.token(), options={"verify_signature": False})

    token = jwt.encode(claims, private_key("RS256"), "PS256", headers={"kid": "RS256-1"})

    assert refused(token) is TokenErrorCode.INVALID


def test_an_unsigned_token_is_invalid(platform: Platform):
    claims = jwt.decode(platform.token(), options={"verify_signature": False})

    assert refused(jwt.encode(claims, "", "none", headers={"kid": "RS256-1"})) is TokenErrorCode.INVALID


@pytest.mark.parametrize("algorithm", [["RS256"], {}, 1, None])
def test_an_algorithm_that_is_no_word_is_invalid(platform: Platform, algorithm: Any):
    assert refused(resigned(platform.token(), {"alg": algorithm, "kid": "RS256-1"}, b"")) is TokenErrorCode.INVALID


def test_a_person_who_is_unknown_or_erased_is_told_so(platform: Platform, ann: Follower, bob: Follower):
    for nobody in ("F-nobody", ""):
        assert refused(platform.token(sub=nobody)) is TokenErrorCode.FOLLOWER_UNKNOWN
    erase("F-ann")
    erasures.begin("F-bob", clock.now())

    for erased in ("F-ann", f"erased:{ann.pk}", "F-bob"):
        assert refused(platform.token(sub=erased)) is TokenErrorCode.FOLLOWER_UNKNOWN


def test_without_an_address_only_our_own_tokens_are_taken(platform: Platform, ann: Follower, settings):
    settings.PLATFORM_JWKS_URL = ""

    assert refused(platform.token()) is TokenErrorCode.INVALID
    assert verify(tokens.mint(ann)).follower_id == ann.pk
    assert platform.asked == 0


def test_our_own_tokens_need_no_platform(platform: Platform, ann: Follower):
    assert verify(tokens.mint(ann)).follower_id == ann.pk
    assert platform.asked == 0


# --- REST -------------------------------------------------------------------------------------------------------------
def asked(client: Client, token: str) -> tuple[int, str | None]:
    answer = client.get(COUNT, headers={"authorization": f"Bearer {token}"})
    return answer.status_code, answer.json().get("code")


def test_rest_takes_the_platforms_tokens_and_says_what_is_wrong_with_one(platform: Platform, client: Client):
    past = clock.now() - timedelta(seconds=1)

    assert asked(client, platform.token()) == (200, None)
    assert asked(client, platform.token(exp=past)) == (401, "token_expired")
    assert asked(client, platform.token(aud="somebody-else")) == (401, "token_invalid")
    assert asked(client, platform.token(sub="F-nobody")) == (403, "follower_unknown")


def test_rest_says_when_to_try_again_while_the_platform_is_away(platform: Platform, client: Client):
    platform.stop()

    answer = client.get(COUNT, headers={"authorization": f"Bearer {platform.token()}"})

    assert (answer.status_code, answer.json()["code"]) == (503, "platform_unavailable")
    assert answer["Content-Type"] == "application/problem+json"
    assert answer["Retry-After"] == "10"


# --- The socket -------------------------------------------------------------------------------------------------------
async def closing(server: Server, token: str) -> tuple[int, str]:
    async with raw_socket(server, [SUBPROTOCOL, token]) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await socket.recv()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


async def test_the_platforms_token_opens_the_socket_of_its_follower(server: Server, platform: Platform):
    async with app(server, platform.token()) as phone:
        assert await phone.everything_so_far() == []


async def test_the_platforms_token_fetches_a_ticket(server: Server, platform: Platform, async_client: Any):
    answer = await async_client.post("/api/v1/ws-ticket", headers={"authorization": f"Bearer {platform.token()}"})

    async with raw_socket(server, [], path=f"/ws/inbox/?ticket={answer.json()['ticket']}") as socket:
        assert await App(socket).hear() == {"type": "unread_count.changed", "count": 0}


async def test_the_socket_ends_with_the_platforms_token(server: Server, platform: Platform):
    token = platform.token(exp=clock.now().timestamp() + 0.7)

    assert await closing(server, token) == (4401, "token_expired")


async def test_the_socket_says_why_it_does_not_open(server: Server, platform: Platform):
    assert await closing(server, platform.token(iss="somebody-else")) == (4401, "token_invalid")
    assert await closing(server, platform.token(sub="F-nobody")) == (4403, "follower_unknown")


async def test_the_socket_asks_to_try_again_while_platform_or_database_are_away(
    server: Server, platform: Platform, monkeypatch: pytest.MonkeyPatch
):
    platform.status = 500
    assert await closing(server, platform.token()) == (1013, "platform_unavailable")

    def away(external_id: str) -> None:
        raise AutoReconnect("Gone.")

    platform.status = 200
    platform_keys._keys_at.cache_clear()
    monkeypatch.setattr(erasures, "find_present", away)
    assert await closing(server, platform.token()) == (1013, "unavailable")
