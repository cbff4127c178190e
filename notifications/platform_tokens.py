"""The platform's own JWTs: what its back end has signed for whoever is signed in there, as a follower's token.

Which kind a token is, its algorithm says, and nothing can be gained by saying it wrongly: ours are made and checked by
HS256 with a secret alone, the platform's by an algorithm with a public key alone, and neither key fits the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import jwt
from django.conf import settings

from followers import clock
from notifications import platform_keys
from notifications.platform_keys import ALGORITHMS

LEEWAY = timedelta(seconds=60)
"""The platform's clock may be ahead of ours: many issuers write the moment of signing as `nbf`."""


@dataclass(frozen=True, slots=True)
class PlatformClaims:
    """What a token of the platform's says, its signature, issuer and audience being right."""

    external_id: str  # The follower's.
    expires_at: datetime  # Aware UTC; may be past.


def is_one(token: str) -> bool:
    """Whether the platform is to say if it is good. Raises jwt.PyJWTError and ValueError for what is no JWT."""
    return bool(settings.PLATFORM_JWKS_URL) and jwt.get_unverified_header(token).get("alg") in ALGORITHMS


def read(token: str) -> PlatformClaims:
    """Checks signature, issuer, audience and `nbf`; the end is the caller's to compare.

    Raises PlatformKeysAwayError, and jwt.PyJWTError, ValueError, TypeError or OverflowError for a bad token.
    """
    claim = settings.PLATFORM_JWT_FOLLOWER_CLAIM
    claims = jwt.decode(
        token,
        _key_of(token),
        ALGORITHMS,
        audience=settings.PLATFORM_JWT_AUDIENCE,
        issuer=settings.PLATFORM_JWT_ISSUER,
        # Times are compared with the clock that tests move.
        options={
            "require": ["exp", "iss", "aud", claim],
            "verify_exp": False,
            "verify_iat": False,
            "verify_nbf": False,
        },
    )
    if not isinstance(claims[claim], str):
        raise TypeError("The follower's id is no text.")
    if "nbf" in claims and datetime.fromtimestamp(claims["nbf"], UTC) > clock.now() + LEEWAY:
        raise jwt.ImmatureSignatureError("Not yet.")
    return PlatformClaims(claims[claim], datetime.fromtimestamp(claims["exp"], UTC))


def _key_of(token: str) -> jwt.PyJWK:
    key_id = jwt.get_unverified_header(token).get("kid")
    key = platform_keys.find(key_id) if isinstance(key_id, str) else None
    if key is None:
        raise jwt.InvalidTokenError("It names no key of the platform's.")
    return key
