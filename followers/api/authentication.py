"""`Authorization: Api-Key …`: services, by their keys and scopes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from followers import clock, service_keys
from followers.api.codes import ErrorCode
from followers.api.errors import ProblemError
from followers.models import ServiceKey


@dataclass(frozen=True, slots=True)
class Service:
    """Who calls: a service, by one of its keys."""

    key: ServiceKey
    is_authenticated = True

    @property
    def throttle_name(self) -> str:
        return f"key:{self.key.prefix}"


def credential(request: Request, scheme: str) -> str | None:
    """What follows the scheme in the Authorization header; None for another scheme or none."""
    parts = get_authorization_header(request).decode("latin-1").split()
    return parts[1] if len(parts) == 2 and parts[0].lower() == scheme.lower() else None


class ServiceKeyAuthentication(BaseAuthentication):
    scheme = "Api-Key"

    def authenticate(self, request: Request) -> tuple[Service, ServiceKey] | None:
        text = credential(request, self.scheme)
        if text is None:
            return None
        key = service_keys.find(text)
        now = clock.now()
        if key is None:
            raise ProblemError(ErrorCode.KEY_INVALID)
        if key.revoked_at is not None:
            raise ProblemError(ErrorCode.KEY_REVOKED)
        if key.expires_at is not None and clock.as_utc(key.expires_at) <= now:
            raise ProblemError(ErrorCode.KEY_EXPIRED)
        service_keys.stamp(key, now)
        return Service(key), key

    def authenticate_header(self, request: Request) -> str:
        return self.scheme


class ServiceKeyScheme(OpenApiAuthenticationExtension):
    target_class = ServiceKeyAuthentication
    name = "ServiceKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "A service's key: `Api-Key nh_…`.",
        }


class IsKnown(BasePermission):
    """Whoever has shown credentials of the view's kind."""

    def has_permission(self, request: Request, view: Any) -> bool:
        return request.user is not None


class HasScope(BasePermission):
    """A service whose key has the view's `scope`."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if request.user is None:
            return False  # DRF makes it a 401.
        if view.scope not in request.user.key.scopes:
            raise ProblemError(ErrorCode.SCOPE_MISSING, f"The API key lacks the scope {view.scope}.")
        return True
