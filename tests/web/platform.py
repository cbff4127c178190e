"""A platform as NotifyHub sees it: an address with its public keys, and the tokens that it signs for its people."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from datetime import timedelta
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from followers import clock
from notifications.tokens import TokenError, TokenErrorCode, verify

ISSUER = "https://login.platform.example/"
AUDIENCE = "notifyhub"
WAIT_SECONDS = 10


@lru_cache(maxsize=16)
def private_key(algorithm: str, number: int = 1) -> Any:
    """A real key of this algorithm; the same one each time."""
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public_jwk(algorithm: str, number: int = 1) -> dict[str, Any]:
    key = private_key(algorithm, number).public_key()
    return {
        **jwt.get_algorithm_by_name(algorithm).to_jwk(key, as_dict=True),
        "kid": f"{algorithm}-{number}",
        "use": "sig",
    }


class Platform:
    """Publishes what is in `keys` on a port of its own, and counts how often it was asked."""

    def __init__(self) -> None:
        self.keys = [public_jwk(algorithm) for algorithm in ("RS256", "ES256", "EdDSA")]
        self.body: bytes | None = None  # In place of the keys.
        self.status = 200
        self.asked = 0
        self.was_asked = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/jwks.json"

    def start(self) -> None:
        """At the same address as before."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), self._handler())
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def stop(self) -> None:
        """Nobody answers at the address any more."""
        self.may_answer.set()
        if self._server is not None:
            self._server.shutdown()
            self._thread.join(WAIT_SECONDS)
            self._server.server_close()
            self._server = None

    def token(self, algorithm: str = "RS256", number: int = 1, kid: Any = "its own", **changes: Any) -> str:
        """A good token for F-ann with these claims changed (None takes one out) and this key id."""
        claims = {
            "iss": ISSUER,
            "aud": [AUDIENCE, "elsewhere"],
            "sub": "F-ann",
            "exp": clock.now() + timedelta(days=30),
            **changes,
        }
        kid = f"{algorithm}-{number}" if kid == "its own" else kid
        given = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(given, private_key(algorithm, number), algorithm, headers={"kid": kid} if kid else None)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        platform = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                platform.asked += 1
                platform.was_asked.set()
                platform.may_answer.wait(WAIT_SECONDS)
                body = json.dumps({"keys": platform.keys}).encode() if platform.body is None else platform.body
                self.send_response(platform.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                """Quiet."""

        return Handler


def refused(token: str) -> TokenErrorCode:
    """Why the token opens nothing."""
    with pytest.raises(TokenError) as error:
        verify(token)
    return error.value.code


def resigned(token: str, header: dict[str, Any], secret: bytes) -> str:
    """The same claims under another header, signed by HMAC: what PyJWT itself refuses to make from a public key."""
    signed = f"{_segment(json.dumps(header).encode())}.{token.split('.')[1]}"
    return f"{signed}.{_segment(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def _segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
