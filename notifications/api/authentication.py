"""`Authorization: Bearer …`: a follower, by a token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bson import ObjectId
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from followers.api.authentication import credential
from followers.api.codes import ErrorCode
from followers.api.errors import ProblemError
from notifications import platform_keys, tokens
from notifications.platform_keys import PlatformKeysAwayError
from notifications.tokens import TokenError, TokenErrorCode

_CODES = {
    TokenErrorCode.EXPIRED: ErrorCode.TOKEN_EXPIRED,
    TokenErrorCode.INVALID: ErrorCode.TOKEN_INVALID,
    TokenErrorCode.FOLLOWER_UNKNOWN: ErrorCode.FOLLOWER_UNKNOWN,
}


@dataclass(frozen=True, slots=True)
class Person:
    """Who calls: a follower, for what is theirs."""

    follower_id: ObjectId
    is_authenticated = True

    @property
    def throttle_name(self) -> str:
        return f"follower:{self.follower_id}"


class FollowerAuthentication(BaseAuthentication):
    scheme = "Bearer"

    def authenticate(self, request: Request) -> tuple[Person, tokens.Claims] | None:
        text = credential(request, self.scheme)
        if text is None:
            return None
        try:
            claims = tokens.verify(text)
        except TokenError as error:
            raise ProblemError(_CODES[error.code]) from error
        except PlatformKeysAwayError as error:
            headers = {"Retry-After": str(round(platform_keys.PAUSE.total_seconds()))}
            raise ProblemError(ErrorCode.PLATFORM_UNAVAILABLE, headers=headers) from error
        return Person(claims.follower_id), claims

    def authenticate_header(self, request: Request) -> str:
        return self.scheme


class FollowerTokenScheme(OpenApiAuthenticationExtension):
    target_class = FollowerAuthentication
    name = "FollowerToken"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "A follower's token: ours, or the platform's own.",
        }
