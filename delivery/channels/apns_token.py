"""The provider token that APNs takes instead of a client certificate: an ES256 JWT (RFC 7518), signed with our key."""

from __future__ import annotations

from datetime import datetime, timedelta

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

RENEW_AFTER = timedelta(minutes=50)  # Apple refuses one that is older than an hour.
NEVER_BEFORE = timedelta(minutes=20)  # Apple answers 429 TooManyProviderTokenUpdates to more.


class ProviderToken:
    """One token for all topics, hosts and connections of a process.

    Signing takes a fraction of a millisecond, is done in the loop without awaiting, and so never happens twice at once.
    """

    def __init__(self, key_pem: bytes, key_id: str, team_id: str) -> None:
        """Raises ValueError if the key is not a private elliptic-curve key without a password."""
        try:
            key = load_pem_private_key(key_pem, password=None)
        except TypeError as error:
            raise ValueError("The key is protected by a password.") from error
        if not isinstance(key, EllipticCurvePrivateKey):
            raise ValueError("The key is not an elliptic-curve key.")  # noqa: TRY004 - a wrong file, not a wrong call.
        self._key = key
        self._key_id = key_id
        self._team_id = team_id
        self._signed_at: datetime | None = None
        self._authorization = ""

    def authorization(self, now: datetime) -> str:
        """The value of the `authorization` header."""
        if self._signed_at is None or now - self._signed_at >= RENEW_AFTER:
            self._sign(now)
        return self._authorization

    def renew(self, refused: str, now: datetime) -> bool:
        """Apple called the token in `refused` expired. Whether there is another one to try.

        False for a token that is still young: then a clock is wrong, and another signature would only be the 429 for
        renewing too often.
        """
        if refused != self._authorization:
            return True  # Renewed already, for another request.
        if self._signed_at is not None and now - self._signed_at < NEVER_BEFORE:
            return False
        self._sign(now)
        return True

    def _sign(self, now: datetime) -> None:
        claims = {"iss": self._team_id, "iat": int(now.timestamp())}
        token = jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": self._key_id})
        self._authorization = f"bearer {token}"
        self._signed_at = now
