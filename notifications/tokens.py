"""Follower tokens: what an app shows to read one follower's inbox."""

from __future__ import annotations

import hmac
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache

import jwt
from bson import ObjectId
from django.conf import settings

from followers import clock, erasures
from followers.models import Follower
from notifications import platform_tokens

ALGORITHM = "HS256"
ISSUER = "notifyhub"
AUDIENCE = "notifyhub.follower"
KEY_PURPOSE = b"notifyhub follower token, HS256, 1"


class TokenErrorCode(StrEnum):
    """Stable words: apps act on them."""

    EXPIRED = "token_expired"  # It was good; get a new one.
    INVALID = "token_invalid"  # Missing, malformed, not ours nor the platform's, or not for this use.
    FOLLOWER_UNKNOWN = "follower_unknown"  # Good, but of nobody whom we know: erased, or of the platform's alone.
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
    key = next(iter(_keys().values()))
    return jwt.encode(claims, key, ALGORITHM, headers={"kid": key_id(key)})


def verify(token: str) -> Claims:
    """Checks signature, issuer, audience and lifetime, and that the follower was not erased.

    For a token of the platform's it may ask the network, and asks the database; for one of ours the database, once a
    second and process. Raises TokenError, PlatformKeysAwayError and PyMongoError.
    """
    try:
        claims = _platforms(token) if platform_tokens.is_one(token) else _ours(token)
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as error:
        raise TokenError(TokenErrorCode.INVALID) from error
    if claims.expires_at <= clock.now():
        raise TokenError(TokenErrorCode.EXPIRED)
    return claims


def _platforms(token: str) -> Claims:
    """One of the platform's, which may be expired. Raises what `platform_tokens.read` does, and TokenError."""
    read = platform_tokens.read(token)
    follower_id = erasures.find_present(read.external_id)
    if follower_id is None:
        raise TokenError(TokenErrorCode.FOLLOWER_UNKNOWN)
    return Claims(follower_id, read.expires_at)


def _ours(token: str) -> Claims:
    """One of our own, which may be expired.

    Raises TokenError, and jwt.PyJWTError, ValueError, TypeError or OverflowError for a bad token.
    """
    claims = jwt.decode(
        token,
        _key_of(token),
        [ALGORITHM],  # Named, so that a token cannot choose a weaker one (RFC 8725, 3.1).
        audience=AUDIENCE,
        issuer=ISSUER,
        # The lifetime is compared by `verify`, with the clock that tests move.
        options={"require": ["exp", "iat", "sub", "iss", "aud"], "verify_exp": False, "verify_iat": False},
    )
    if not ObjectId.is_valid(claims["sub"]):
        raise ValueError("The subject is no follower's id.")
    read = Claims(ObjectId(claims["sub"]), datetime.fromtimestamp(claims["exp"], UTC))
    if erasures.is_erased(read.follower_id):
        raise TokenError(TokenErrorCode.FOLLOWER_UNKNOWN)
    return read


def _keys() -> dict[str, bytes]:
    """Every key by its id, the one that mints first: FOLLOWER_TOKEN_SECRETS, or SECRET_KEY where there is none."""
    keys = [_key(secret) for secret in settings.FOLLOWER_TOKEN_SECRETS or [settings.SECRET_KEY]]
    return {key_id(key): key for key in keys}


def _key_of(token: str) -> bytes:
    """The key that the token names, the minting one if it names none. Raises InvalidTokenError."""
    named = jwt.get_unverified_header(token).get("kid")
    keys = _keys()
    if named is None:
        return next(iter(keys.values()))
    if named not in keys:
        raise jwt.InvalidTokenError("An unknown key.")
    return keys[named]


def key_id(key: bytes) -> str:
    """Says which key it is, and nothing about it."""
    return hmac.digest(key, b"kid", "sha256").hex()[:16]


@lru_cache(maxsize=16)
def _key(secret: str) -> bytes:
    """A key for this purpose alone: a signature made for anything else with SECRET_KEY does not fit."""
    return hmac.digest(secret.encode(), KEY_PURPOSE, "sha256")
