"""Tickets for the socket: opened once, within 30 s, by an app that cannot offer its token as a subprotocol.

A token stays good for minutes, so it must not stand in an address, which proxies and browsers keep. A ticket may: once
it was used, or after TICKET_SECONDS, it opens nothing. Redis holds only its hash, so that reading Redis opens nothing
either. A ticket lost with Redis costs the app one more request.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime
from typing import Any

from bson import ObjectId

from followers import clock, erasures
from followers.redis_client import client
from notifications.tokens import Claims, TokenError, TokenErrorCode

TICKET_SECONDS = 30
PREFIX = "notifyhub:ws-ticket:"


def issue(claims: Claims) -> str:
    """A ticket for the follower whose token was verified; its socket ends with that token. Raises redis.RedisError."""
    ticket = secrets.token_urlsafe(32)
    value = f"{claims.follower_id} {claims.expires_at.timestamp()}"
    client().set(_key(ticket), value, ex=TICKET_SECONDS)
    return ticket


def redeem(ticket: str) -> Claims:
    """issued → used: whoever comes second finds nothing. Raises TokenError, redis.RedisError and PyMongoError."""
    # GETDEL must not be repeated after a lost answer, for it may have been carried out; so this client never retries.
    value: Any = client().getdel(_key(ticket))
    if value is None:
        raise TokenError(TokenErrorCode.TICKET_INVALID)
    follower, expires_at = value.decode().split(" ")
    claims = Claims(ObjectId(follower), datetime.fromtimestamp(float(expires_at), UTC))
    if claims.expires_at <= clock.now():
        raise TokenError(TokenErrorCode.EXPIRED)
    if erasures.is_erased(claims.follower_id):
        raise TokenError(TokenErrorCode.FOLLOWER_UNKNOWN)
    return claims


def _key(ticket: str) -> str:
    return PREFIX + hashlib.sha256(ticket.encode("utf-8", "surrogatepass")).hexdigest()
