"""`Idempotency-Key` on POST: the first answer is kept for 24 h and given again; kept in Redis, by caller and key."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import orjson
from django.conf import settings
from rest_framework.request import Request
from rest_framework.response import Response

from followers.api.codes import ErrorCode
from followers.api.errors import ProblemError
from followers.redis_client import client

KEPT_SECONDS = 86_400
UNDER_WAY_SECONDS = 60
"""A request whose process died may be tried again after this time."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The first request with its key: its answer is to be kept."""

    name: str
    fingerprint: str

    def keep(self, response: Response) -> None:
        """Stores the rendered answer; after an error of ours, the request may be tried again."""
        if response.status_code >= 500:
            self.release()
            return
        kept = {
            "fingerprint": self.fingerprint,
            "status": response.status_code,
            "type": response.get("Content-Type"),  # None where there is no body.
            "body": response.content.decode(),
        }
        client().set(self.name, orjson.dumps(kept), ex=KEPT_SECONDS)

    def release(self, response: Response | None = None) -> None:
        """Keeps nothing of the answer: the next request with this key is carried out."""
        client().delete(self.name)


@dataclass(frozen=True, slots=True)
class Kept:
    """The answer to an earlier request with the same key and body."""

    status: int
    content_type: str | None
    body: Any


def claim(request: Request) -> Claim | Kept | None:
    """None without a key. Raises ProblemError: `idempotency_conflict` or `request_in_progress`."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not (1 <= len(key) <= 128 and key.isascii() and key.isprintable()):
        raise ProblemError(ErrorCode.INVALID_IDEMPOTENCY_KEY)
    hashed = hashlib.sha256(f"{request.user.throttle_name}\n{key}".encode()).hexdigest()
    name = f"{settings.QUEUE_NAMESPACE}:idempotency:{hashed}"
    body = hashlib.sha256(f"{request.method} {request.path}\n".encode() + request.body).hexdigest()
    redis = client()
    if redis.set(name, orjson.dumps({"fingerprint": body}), nx=True, ex=UNDER_WAY_SECONDS):
        return Claim(name, body)
    found: Any = redis.get(name)
    kept: dict[str, Any] = (
        orjson.loads(found) if found else {"fingerprint": body}
    )  # Gone in between: as good as under way.
    if kept["fingerprint"] != body:
        raise ProblemError(ErrorCode.IDEMPOTENCY_CONFLICT)
    if "status" not in kept:
        raise ProblemError(ErrorCode.REQUEST_IN_PROGRESS, headers={"Retry-After": "1"})
    return Kept(kept["status"], kept["type"], orjson.loads(kept["body"]) if kept["body"] else None)
