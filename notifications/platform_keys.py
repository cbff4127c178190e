"""The platform's public keys: fetched from PLATFORM_JWKS_URL, kept, and used on while that address does not answer."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from http.client import HTTPException

import jwt
from django.conf import settings

from followers import clock
from followers.outage import PLATFORM_KEYS

ALGORITHMS = ("RS256", "ES256", "EdDSA")
"""All with a public key: HS256 among them would let whoever reads the keys sign with them (RFC 8725, 3.1)."""

FRESH = timedelta(minutes=5)
"""After so long the keys are fetched again: one that the platform has withdrawn opens nothing from then on."""

USABLE = timedelta(hours=24)
"""So long they are used while the address is away; longer, and a withdrawn key would outlive its withdrawal."""

PAUSE = timedelta(seconds=10)
"""From one fetch to the next at least, however it ended: made-up key ids cost the platform no more than that."""

TIMEOUT_SECONDS = 3.0


class PlatformKeysAwayError(Exception):
    """The key is not known, and the address that would know it does not answer: the token may be good."""


class PlatformKeys:
    """The keys at one address, by their ids (RFC 7517). Safe to use from any thread.

    PyJWT's client fetches and reads them. When and how often is decided here: by itself it would have no keys once its
    cache runs out while the address is away, ask an address that is away for every token, and have everybody wait.
    """

    def __init__(self, url: str) -> None:
        self._client = jwt.PyJWKClient(url, cache_jwk_set=False, timeout=TIMEOUT_SECONDS)
        self._fetching = threading.Lock()
        self._keys: dict[str, jwt.PyJWK] = {}
        self._asked_at = self._fetched_at = datetime.min.replace(tzinfo=UTC)

    def find(self, key_id: str) -> jwt.PyJWK | None:
        """The key of this id; None = the platform has none. Raises PlatformKeysAwayError."""
        is_known = key_id in self._keys
        is_fresh = clock.now() - self._fetched_at < FRESH
        # Whoever has a key does not wait for somebody else's fetch.
        if not (is_known and is_fresh) and self._fetching.acquire(blocking=not is_known):
            try:
                self._fetch_if_due()
            finally:
                self._fetching.release()
        key = self._keys.get(key_id)
        if key is not None and clock.now() - self._fetched_at < USABLE:
            return key
        if self._fetched_at < self._asked_at:
            raise PlatformKeysAwayError
        return None

    def _fetch_if_due(self) -> None:
        now = clock.now()
        if now - self._asked_at < PAUSE:
            return
        self._asked_at = now
        try:
            keys = {str(key.key_id): key for key in self._client.get_signing_keys() if key.algorithm_name in ALGORITHMS}
            if not keys:
                raise jwt.PyJWKSetError(f"None of the keys is for {', '.join(ALGORITHMS)}.")
        # PyJWT lets some things through: a line that breaks off, and answers that are no key set.
        except (jwt.PyJWTError, OSError, HTTPException, ValueError, TypeError, AttributeError) as error:
            PLATFORM_KEYS.away(error)
        else:
            # In this order, so that nobody finds a new key under the old time.
            self._fetched_at, self._keys = now, keys
            PLATFORM_KEYS.back()


def find(key_id: str) -> jwt.PyJWK | None:
    """The platform's key of this id; None = it has none. Raises PlatformKeysAwayError."""
    return _keys_at(settings.PLATFORM_JWKS_URL).find(key_id)


@lru_cache(maxsize=4)
def _keys_at(url: str) -> PlatformKeys:
    return PlatformKeys(url)
