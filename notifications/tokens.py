"""Follower tokens: what an app shows to read one follower's inbox."""

from __future__ import annotations

import hmac
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any

import jwt
from bson import ObjectId
from django.conf import settings

from followers import clock
from followers.models import Follower

ALGORITHM = "HS256"
ISSUER = "notifyhub"
AUDIENCE = "notifyhub.follower"
KEY_PURPOSE = b"notifyhub follower token, HS256, 1"


class TokenErrorCode(StrEnum):
    """Stable words: apps act on them."""

    EXPIRED = "token_expired"  # It was good; get a new one.
    INVALID = "token_invalid"  # Missing, malformed, not ours, or not for this use.
    TICKET_INVALID = "ticket_invalid"  # Used, too old, or never issued; a token gets another.


class TokenError(Exception):
    """A token that opens nothing. `code` says whether a new one would."""

    def __init__(self, code: TokenErrorCode) -> None:
        super().__init__(code.value)
        self.code = code


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says."""

    follower_id: ObjectId
    expires_at: datetime  # Aware UTC.


def mint(follower: Follower) -> str:
    """A token for the follower's own inbox, good for FOLLOWER_TOKEN_SECONDS.

    The text is a JWT (RFC 7519); its characters are also those that Sec-WebSocket-Protocol allows.
    """
    now = clock.now()
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": str(follower.pk),
        "iat": now,
        "exp": now + timedelta(seconds=settings.FOLLOWER_TOKEN_SECONDS),
        "jti": uuid.uuid4().hex,
    }
    return jwt.encode(claims, _key(settings.SECRET_KEY), ALGORITHM)


def verify(token: str) -> Claims:
    """Checks signature, issuer, audience and lifetime. Raises TokenError."""
    try:
        claims = jwt.decode(
            token,
            _key(settings.SECRET_KEY),
            [ALGORITHM],  # Named, so that a token cannot choose a weaker one (RFC 8725, 3.1).
            audience=AUDIENCE,
            issuer=ISSUER,
            # The lifetime is compared below, with the clock that tests move.
            options={"require": ["exp", "iat", "sub", "iss", "aud"], "verify_exp": False, "verify_iat": False},
        )
        verified = _claims(claims)
    except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError) as error:
        raise TokenError(TokenErrorCode.INVALID) from error
    if verified.expires_at <= clock.now():
        raise TokenError(TokenErrorCode.EXPIRED)
    return verified


def _claims(claims: dict[str, Any]) -> Claims:
    if not ObjectId.is_valid(claims["sub"]):
        raise ValueError("The subject is no follower's id.")
    return Claims(ObjectId(claims["sub"]), datetime.fromtimestamp(claims["exp"], UTC))


@lru_cache(maxsize=4)
def _key(secret: str) -> bytes:
    """A key for this purpose alone: a signature made for anything else with SECRET_KEY does not fit."""
    return hmac.digest(secret.encode(), KEY_PURPOSE, "sha256")
