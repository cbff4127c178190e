"""Google's OAuth token endpoint for service accounts, and the bearer tokens it issues.

RFC 7523 as in "Using OAuth 2.0 for Server to Server Applications" (developers.google.com/identity/protocols).
"""

from __future__ import annotations

import hmac
from typing import Any
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from devstack.vendors.credentials import Credentials
from devstack.vendors.messages import RefusedError, Reply, Request
from devstack.vendors.recorder import now

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SCOPES = frozenset(
    ("https://www.googleapis.com/auth/firebase.messaging", "https://www.googleapis.com/auth/cloud-platform")
)
MAX_ASSERTION_SECONDS = 3600
CLOCK_SKEW_SECONDS = 60


class TokenEndpoint:
    """Issues bearer tokens that carry their own end, signed, so that they stay valid over a restart."""

    def __init__(self, credentials: Credentials, token_url: str) -> None:
        self._credentials = credentials
        self._token_url = token_url
        self._secret = bytes.fromhex(credentials.fcm_token_secret)
        key = load_pem_private_key(credentials.fcm_private_key.encode(), password=None)
        if not isinstance(key, RSAPrivateKey):
            raise TypeError("the service account's key is not an RSA key")
        self._public_key = key.public_key()
        self._known: dict[str, float] = {}  # Tokens whose signature was found good → when they end.

    def issue(self, request: Request, lifetime_seconds: float) -> Reply:
        """Answer one token request. Raises RefusedError with Google's `invalid_…` errors."""
        if request.method != "POST":
            raise oauth_refused("method_not_allowed", "Only POST is allowed here.", 405)
        form = {name: values[-1] for name, values in parse_qs(request.body.decode("utf-8", "replace")).items()}
        if form.get("grant_type") != GRANT_TYPE:
            raise oauth_refused("unsupported_grant_type", f"Invalid grant_type: {form.get('grant_type', '')}")
        self._check_assertion(form.get("assertion", ""))
        ends_at = f"{now() + lifetime_seconds:.3f}"
        return Reply.json(
            200,
            {
                "access_token": f"ya29.{ends_at}.{self._sign(ends_at)}",
                "expires_in": int(lifetime_seconds),
                "token_type": "Bearer",
            },
        )

    def is_valid(self, token: str) -> bool:
        ends_at = self._known.get(token)
        if ends_at is None:
            prefix, _, signature = token.rpartition(".")
            text = prefix.removeprefix("ya29.")
            if not prefix.startswith("ya29.") or not hmac.compare_digest(signature, self._sign(text)):
                return False
            ends_at = self._known[token] = float(text)
        return now() < ends_at

    def _sign(self, text: str) -> str:
        return hmac.new(self._secret, text.encode(), "sha256").hexdigest()

    def _check_assertion(self, assertion: str) -> None:
        try:
            claims: dict[str, Any] = jwt.decode(
                assertion,
                self._public_key,
                algorithms=["RS256"],
                audience=self._token_url,
                leeway=CLOCK_SKEW_SECONDS,
                options={"require": ["iss", "aud", "exp", "iat"]},
            )
        except jwt.InvalidSignatureError:
            raise oauth_refused("invalid_grant", "Invalid JWT Signature.") from None
        except jwt.InvalidAudienceError:
            raise oauth_refused("invalid_grant", "Invalid JWT: Failed audience check.") from None
        except jwt.InvalidTokenError as error:
            raise oauth_refused("invalid_grant", f"Invalid JWT: {error}") from None
        if claims["iss"] != self._credentials.fcm_client_email:
            raise oauth_refused("invalid_grant", "Invalid grant: account not found")
        if claims["exp"] - claims["iat"] > MAX_ASSERTION_SECONDS:
            raise oauth_refused("invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes)")
        if not SCOPES & set(str(claims.get("scope", "")).split()):
            raise oauth_refused("invalid_scope", "Invalid OAuth scope or ID token audience provided.")


def oauth_refused(error: str, description: str, status: int = 400) -> RefusedError:
    return RefusedError(error, Reply.json(status, {"error": error, "error_description": description}))
