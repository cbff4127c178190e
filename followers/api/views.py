"""The base of all views of the API: who calls, how often, and each POST once."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from followers.api import idempotency, limits
from followers.api.authentication import HasScope, ServiceKeyAuthentication
from followers.api.codes import ErrorCode
from followers.api.errors import ProblemError
from followers.choices import Scope


class _ReplayError(Exception):
    """This request was answered before; DRF's way out of a view before its handler is an exception."""

    def __init__(self, kept: idempotency.Kept) -> None:
        super().__init__("answered before")
        self.kept = kept


class ApiView(APIView):
    """Subclasses name their authenticators and permissions, and `per_minute`."""

    answers_are_secret = False
    """With an Idempotency-Key such an answer is not kept: it would lie in Redis, and be given when it is void."""

    def per_minute(self) -> int:
        raise NotImplementedError

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        self.limit_headers: dict[str, str] = {}
        self.claim: idempotency.Claim | None = None
        super().initial(request, *args, **kwargs)
        self.limit_headers = limits.take(request, self.per_minute())
        if request.method == "POST":
            claimed = idempotency.claim(request)
            if isinstance(claimed, idempotency.Kept):
                raise _ReplayError(claimed)
            self.claim = claimed

    def options(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Only the methods, in the Allow header: what DRF would tell of a view is meant for its readers."""
        return Response(status=204)

    def handle_exception(self, exc: Exception) -> Response:
        if isinstance(exc, _ReplayError):
            kept = exc.kept
            return Response(
                kept.body, kept.status, headers={"Idempotency-Replayed": "true"}, content_type=kept.content_type
            )
        if isinstance(exc, ProblemError) and exc.status_code == 401:
            exc.headers["WWW-Authenticate"] = self.get_authenticate_header(self.request)
        return super().handle_exception(exc)

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        response = super().finalize_response(request, response, *args, **kwargs)
        for name, value in getattr(self, "limit_headers", {}).items():
            response[name] = value
        response["Cache-Control"] = "private, no-cache"
        if (claim := getattr(self, "claim", None)) is not None:
            response.add_post_render_callback(claim.release if self.answers_are_secret else claim.keep)
        return response


class ServiceView(ApiView):
    """A call for services; `scope` is what their key needs."""

    authentication_classes = [ServiceKeyAuthentication]
    permission_classes = [HasScope]
    scope: Scope

    def per_minute(self) -> int:
        return settings.API_SERVICE_PER_MINUTE


@extend_schema(exclude=True)
class NothingHere(APIView):
    """Every other address of the API."""

    authentication_classes = ()
    permission_classes = ()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        raise ProblemError(ErrorCode.NOT_FOUND)
