"""Every error as a problem detail (RFC 9457) with a stable `code`; nothing of the inside is ever shown."""

from __future__ import annotations

import logging
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.http import Http404, UnreadablePostError
from pymongo.errors import PyMongoError
from redis.exceptions import RedisError
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.views import set_rollback

from followers.api.codes import ErrorCode
from followers.mongo import is_passing

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5

_BY_CLASS: tuple[tuple[type[Exception], ErrorCode], ...] = (
    (exceptions.ParseError, ErrorCode.MALFORMED),
    (exceptions.ValidationError, ErrorCode.INVALID),
    (exceptions.NotAuthenticated, ErrorCode.CREDENTIALS_MISSING),
    (exceptions.AuthenticationFailed, ErrorCode.CREDENTIALS_MISSING),
    (exceptions.PermissionDenied, ErrorCode.FORBIDDEN),
    (PermissionDenied, ErrorCode.FORBIDDEN),
    (exceptions.NotFound, ErrorCode.NOT_FOUND),
    (Http404, ErrorCode.NOT_FOUND),
    (RequestDataTooBig, ErrorCode.TOO_LARGE),
    (UnreadablePostError, ErrorCode.MALFORMED),
    (exceptions.MethodNotAllowed, ErrorCode.METHOD_NOT_ALLOWED),
    (exceptions.NotAcceptable, ErrorCode.NOT_ACCEPTABLE),
    (exceptions.UnsupportedMediaType, ErrorCode.UNSUPPORTED_MEDIA_TYPE),
)


class ProblemError(exceptions.APIException):
    """An error that a view or an authenticator raises by its code."""

    def __init__(self, error: ErrorCode, detail: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(detail or error.title)
        self.error = error
        self.status_code = error.status
        self.headers = headers or {}


def problem(
    error: ErrorCode,
    detail: str = "",
    headers: dict[str, str] | None = None,
    errors: list[dict[str, str]] | None = None,
) -> Response:
    """The answer to a call that failed."""
    return Response(as_problem(error, detail, errors), error.status, headers=headers, content_type=MEDIA_TYPE)


def as_problem(error: ErrorCode, detail: str = "", errors: list[dict[str, str]] | None = None) -> dict[str, Any]:
    """The body: `type`, `title`, `status`, `detail`, `code`, and `errors` where fields are wrong."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": error.title,
        "status": error.status,
        "detail": detail or error.title,
        "code": error.code,
    }
    return body if errors is None else {**body, "errors": errors}


def handle(raised: Exception, context: dict[str, Any]) -> Response:
    """DRF's exception handler."""
    set_rollback()
    if isinstance(raised, ProblemError):
        return problem(raised.error, str(raised.detail), raised.headers)
    for known, error in _BY_CLASS:
        if isinstance(raised, known):
            return _known(raised, error, context)
    if isinstance(raised, RedisError) or (isinstance(raised, PyMongoError) and is_passing(raised)):
        return problem(ErrorCode.UNAVAILABLE, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
    logger.error("A call of the API failed.", exc_info=raised)
    return problem(ErrorCode.INTERNAL)


def _known(raised: Exception, error: ErrorCode, context: dict[str, Any]) -> Response:
    headers = {}
    if challenge := getattr(raised, "auth_header", None):
        headers["WWW-Authenticate"] = challenge
    if error is ErrorCode.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(context["view"].allowed_methods)
    if isinstance(raised, exceptions.ValidationError):
        return problem(error, headers=headers, errors=list(_fields(raised.detail)))
    detail = str(raised.detail) if isinstance(raised, exceptions.APIException) and error.status < 401 else ""
    return problem(error, detail, headers)


def _fields(detail: Any, path: tuple[str, ...] = ()) -> list[dict[str, str]]:
    """Flat: {field, pointer, code, detail} of each wrong field, nested ones as `items.3.name` and `#/items/3/name`."""
    if isinstance(detail, dict):
        return [e for name, value in detail.items() for e in _fields(value, (*path, *_steps(name)))]
    if isinstance(detail, list):
        if any(isinstance(item, (dict, list)) for item in detail):
            return [e for i, value in enumerate(detail) for e in _fields(value, (*path, str(i)))]
        return [e for value in detail for e in _fields(value, path)]
    pointer = "#" + "".join(f"/{name.replace('~', '~0').replace('/', '~1')}" for name in path)  # RFC 6901.
    code = getattr(detail, "code", "invalid")
    return [{"field": ".".join(path), "pointer": pointer, "code": code, "detail": str(detail)}]


def _steps(name: Any) -> tuple[str, ...]:
    """What is wrong with the body as a whole belongs to no field."""
    return () if name in {"", api_settings.NON_FIELD_ERRORS_KEY} else (str(name),)
