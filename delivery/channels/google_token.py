"""Google's OAuth access token for a service account: the server-to-server flow of RFC 7523.

Source: developers.google.com/identity/protocols/oauth2/service-account.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta
from urllib.parse import urlencode

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from delivery.channels.answers import json_object, retry_after_seconds, seconds_or_none
from delivery.channels.base import Outcome, Result
from delivery.channels.transport import HttpClient, Request, TransportError

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_LIFETIME = timedelta(hours=1)  # The longest that Google takes.
DEFAULT_LIFETIME = 3600.0  # Seconds; what Google documents, for an answer that does not say.
REFRESH_BEFORE = timedelta(minutes=5)
"""A new token is fetched in the background this long before the old one ends, so that no send waits for it."""
_HEADERS = {"content-type": "application/x-www-form-urlencoded"}


class AccessToken:
    """One token for the whole process, fetched by one request however many sends need it.

    Signing (RS256) holds the loop for about a millisecond, once an hour.
    """

    def __init__(self, client_email: str, private_key_pem: bytes, token_url: str, audience: str) -> None:
        """Raises ValueError if the key is not a private RSA key without a password."""
        try:
            key = load_pem_private_key(private_key_pem, password=None)
        except TypeError as error:
            raise ValueError("The key is protected by a password.") from error
        if not isinstance(key, RSAPrivateKey):
            raise ValueError("The key is not an RSA key.")  # noqa: TRY004 - a wrong file, not a wrong call.
        self._key = key
        self._client_email = client_email
        self._token_url = token_url
        self._audience = audience
        self._authorization = ""
        self._expires_at: datetime | None = None
        self._fetching: asyncio.Task[Result | None] | None = None

    @property
    def authorization(self) -> str:
        """The value of the `authorization` header; empty before the first `ensure`."""
        return self._authorization

    async def ensure(self, http: HttpClient, now: datetime, deadline: float) -> Result | None:
        """Have a valid token by `deadline` (of time.monotonic), or say what prevents it."""
        valid_for = self._expires_at - now if self._expires_at else timedelta(0)
        if valid_for > REFRESH_BEFORE:
            return None
        remaining = deadline - time.monotonic()
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch(http, now, remaining))
            self._fetching.add_done_callback(self._fetched)
        if valid_for > timedelta(0):
            return None
        try:
            # Shielded: one send that gives up must not take the token away from the others.
            return await asyncio.wait_for(asyncio.shield(self._fetching), max(0.0, remaining))
        except TimeoutError:
            return Result(Outcome.RETRY, "token_timeout", "Google gave no access token in time.")

    def drop(self, refused: str) -> None:
        """Google refused this `authorization`: fetch another, unless that has happened already."""
        if refused == self._authorization:
            self._expires_at = None

    async def settle(self) -> None:
        """Wait for the end of a fetch under way; closing its client ends it at once."""
        if self._fetching is not None:
            await self._fetching

    def _fetched(self, task: asyncio.Task[Result | None]) -> None:
        self._fetching = None

    async def _fetch(self, http: HttpClient, now: datetime, timeout_seconds: float) -> Result | None:
        """Failures are returned: nobody awaits a fetch in the background."""
        try:
            response = await http.post(self._request(now), timeout_seconds)
        except TransportError as error:
            # Whether it went out does not matter: a token is no message.
            return Result(Outcome.RETRY, f"token_{error.code}", "Google gave no access token.")
        answer = json_object(response.body)
        token = answer.get("access_token")
        if response.status == 200 and isinstance(token, str) and token:
            self._authorization = f"Bearer {token}"
            self._expires_at = now + timedelta(seconds=seconds_or_none(answer.get("expires_in")) or DEFAULT_LIFETIME)
            return None
        outcome = Outcome.THROTTLED if response.status == 429 else Outcome.RETRY
        if 400 <= response.status < 500 and outcome is Outcome.RETRY:
            outcome = Outcome.MISCONFIGURED  # 400 invalid_grant, 401 invalid_client: the key, or our clock.
        code = answer.get("error")
        return Result(
            outcome,
            f"token_{code}" if isinstance(code, str) else f"token_http_{response.status}",
            "Google refused an access token for our service account.",
            retry_after_seconds=retry_after_seconds(response.headers),
        )

    def _request(self, now: datetime) -> Request:
        claims = {
            "iss": self._client_email,
            "scope": SCOPE,
            "aud": self._audience,
            "iat": int(now.timestamp()),
            "exp": int((now + ASSERTION_LIFETIME).timestamp()),
        }
        assertion = jwt.encode(claims, self._key, algorithm="RS256")
        body = urlencode({"grant_type": GRANT_TYPE, "assertion": assertion}).encode()
        return Request(self._token_url, _HEADERS, body)
