"""Follower tokens: what is let through and what is not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import jwt
import pytest
from bson import ObjectId
from django.conf import settings

from followers import clock
from followers.models import Follower
from notifications import tokens
from notifications.tokens import TokenError, TokenErrorCode, mint, verify

FOLLOWER = Follower(pk=ObjectId(), external_id="F-1")


def signed(**changes: Any) -> str:
    """A token with our key and these claims changed (None takes one out)."""
    key = tokens._key(settings.SECRET_KEY)
    claims = {**jwt.decode(mint(FOLLOWER), options={"verify_signature": False}), **changes}
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, key, "HS256")


def refused(token: str) -> TokenErrorCode:
    with pytest.raises(TokenError) as error:
        verify(token)
    return error.value.code


def test_a_minted_token_names_its_follower_and_its_end(settings, monkeypatch):
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now)

    claims = verify(mint(FOLLOWER))

    assert claims.follower_id == FOLLOWER.pk
    assert claims.expires_at == (now + timedelta(seconds=settings.FOLLOWER_TOKEN_SECONDS)).replace(microsecond=0)


def test_a_token_is_over_when_its_time_is(settings, monkeypatch):
    token, now = mint(FOLLOWER), clock.now()
    monkeypatch.setattr(clock, "now", lambda: now + timedelta(seconds=settings.FOLLOWER_TOKEN_SECONDS))

    assert refused(token) is TokenErrorCode.EXPIRED


def test_the_helper_of_this_test_makes_good_tokens():
    assert verify(signed()).follower_id == FOLLOWER.pk


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "somebody-else"},
        {"aud": None},
        {"iss": "somebody-else"},
        {"iss": None},
        {"exp": None},
        {"exp": "soon"},
        {"exp": 1e300},
        {"iat": None},
        {"sub": None},
        {"sub": "F-1"},
    ],
)
def test_a_token_with_a_wrong_claim_is_invalid(changes: dict[str, Any]):
    assert refused(signed(**changes)) is TokenErrorCode.INVALID


def test_an_unsigned_token_is_invalid():
    claims = jwt.decode(mint(FOLLOWER), options={"verify_signature": False})

    assert refused(jwt.encode(claims, "", "none")) is TokenErrorCode.INVALID


def test_another_installations_token_is_invalid(settings):
    token = mint(FOLLOWER)
    settings.SECRET_KEY = "another-" + "x" * 50

    assert refused(token) is TokenErrorCode.INVALID


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "é.é.é", "." * 50_000])
def test_what_is_no_token_is_invalid(token: str):
    assert refused(token) is TokenErrorCode.INVALID
