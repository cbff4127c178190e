"""How the OpenAPI schema is made: what its operations have in common is said here, once.

The statuses that an operation names are the ones that it can really give; tests/api/test_contract.py calls them all.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Literal

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse
from rest_framework import serializers

from followers.api.codes import ErrorCode
from followers.api.cursors import CURSOR_PATTERN, DEFAULT_LIMIT, MAX_LIMIT
from followers.api.errors import MEDIA_TYPE, as_problem

Document = dict[str, Any]
Where = Literal["query", "path", "header"]

NO_BODY = OpenApiResponse(description="Done.")
ALERT_ID = "6742a1c83f0e9d5b7c8a1e2f"
ENDPOINT_ID = "6742a1c83f0e9d5b7c8a1e30"
CURSOR = "AAABk0ypi4BnQqHIPw6dW3yKHi8"

EVERY_CALL = (401, 403, 406, 429, 500, 503)
BODY = (400, 413, 415)
"""A call that reads a body."""

POSTED = (*BODY, 409)
"""A POST: its Idempotency-Key may be in conflict."""

POSTED_EMPTY = (400, 409, 413)
"""A POST that reads no body; with an Idempotency-Key it is looked at all the same."""


def parameter(name: str, description: str, example: Any, where: Where = "query", **schema: Any) -> OpenApiParameter:
    """A parameter by its JSON schema; `example` stands in the documentation and is called by the tests."""
    return OpenApiParameter(
        name,
        {"type": "string", **schema},
        where,
        required=where == "path",
        description=description,
        examples=[OpenApiExample(name, example)],
    )


def path_id(name: str, description: str, example: str) -> OpenApiParameter:
    return parameter(name, description, example, "path", pattern="^[0-9a-f]{24}$")


def path_external_id(name: str, description: str, example: str, pattern: str = "^[^/]{1,128}$") -> OpenApiParameter:
    return parameter(name, description, example, "path", pattern=pattern)


PAGED = (
    parameter("limit", "How many a page has.", 20, type="integer", minimum=1, maximum=MAX_LIMIT, default=DEFAULT_LIMIT),
    parameter(
        "cursor", "Where the page begins; it stands in `next` of the page before.", CURSOR, pattern=CURSOR_PATTERN
    ),
)
"""What a list in pages takes (followers/api/cursors.py)."""

IDEMPOTENCY_KEY = parameter(
    "Idempotency-Key",
    "Any text of your own, a new one for each new request: the same request under the same key is carried out once "
    "within 24 h, and gets the same answer again.",
    "8d3f5b0e-1c52-4d0b-9a55-6a1f6f0f3c11",
    "header",
    pattern="^[!-~]([ -~]{0,126}[!-~])?$",
)


class WrongFieldSerializer(serializers.Serializer[Any]):
    field = serializers.CharField(allow_blank=True, help_text="Its name, `quiet_hours.start`; empty: the whole body.")
    pointer = serializers.CharField(help_text="The same as a JSON pointer (RFC 6901), `#/quiet_hours/start`.")
    code = serializers.CharField()
    detail = serializers.CharField()


class ProblemSerializer(serializers.Serializer[Any]):
    """A problem detail (RFC 9457)."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    code = serializers.ChoiceField(choices=[error.code for error in ErrorCode], help_text="Act on this; it stays.")
    errors = serializers.ListField(child=WrongFieldSerializer(), required=False, help_text="The fields that are wrong.")


def asked(name: str, value: Any) -> OpenApiExample:
    """An example of a request's body."""
    return OpenApiExample(name, value, request_only=True)


def answered(name: str, value: Any, *statuses: int) -> OpenApiExample:
    """An example of an answer's body; 200 unless other statuses are named."""
    return OpenApiExample(name, value, response_only=True, status_codes=[str(s) for s in statuses or (200,)])


def problems(*statuses: int) -> dict[Any, Any]:
    """The error responses of a call: `statuses`, and those that every call can give."""
    return {(status, MEDIA_TYPE): _PROBLEMS[status] for status in sorted({*EVERY_CALL, *statuses})}


def _problem(status: int) -> OpenApiResponse:
    """Every error of a status, each with its example."""
    errors = [error for error in ErrorCode if error.status == status]
    words = "\n".join(f"- `{error.code}`: {error.title}" for error in errors)
    wrong = {"field": "limit", "pointer": "#/limit", "code": "invalid", "detail": "A number is needed."}
    examples = [
        OpenApiExample(error.code, as_problem(error, errors=[wrong] if error is ErrorCode.INVALID else None))
        for error in errors
    ]
    return OpenApiResponse(ProblemSerializer, words, examples)


_PROBLEMS = {status: _problem(status) for status in sorted({error.status for error in ErrorCode})}


class ApiSchema(AutoSchema):
    """The operations of the API. Serializers may have `also`: JSON schema that no field of theirs can express."""

    def get_description(self) -> str:
        """Only what is written for app developers: docstrings are for whoever reads the code."""
        return ""

    def get_override_parameters(self) -> list[Any]:
        return [IDEMPOTENCY_KEY] if self.method == "POST" else []

    def get_request_serializer(self) -> Any:
        return None if self.method == "DELETE" else super().get_request_serializer()

    def _get_request_body(self, direction: str = "request") -> Any:
        """OpenAPI 3.1 lets a DELETE have a body, and "one of these fields" needs one; the library knows neither."""
        if self.method != "DELETE" or self.get_request_serializer() is None:
            body = super()._get_request_body(direction)
            if body and "oneOf" in getattr(self.get_request_serializer(), "also", ()):
                body["required"] = True
            return body
        self.method = "POST"
        try:
            return super()._get_request_body(direction)
        finally:
            self.method = "DELETE"

    def _map_serializer(self, serializer: Any, direction: Any, bypass_extensions: bool = False) -> Any:
        schema = super()._map_serializer(serializer, direction, bypass_extensions)
        return {**schema, **getattr(serializer, "also", {})}


# --- What a response of each status has ------------------------------------------------------------------------------
_HEADERS: dict[str, Document] = {
    "RateLimit-Limit": {"description": "Calls a minute.", "schema": {"type": "integer"}},
    "RateLimit-Remaining": {"description": "Calls that are left.", "schema": {"type": "integer", "minimum": 0}},
    "RateLimit-Reset": {"description": "Seconds until all are there again.", "schema": {"type": "integer"}},
    "Retry-After": {"description": "Seconds after which to try again.", "schema": {"type": "integer", "minimum": 1}},
    "WWW-Authenticate": {
        "description": "The scheme that the call takes.",
        "schema": {"type": "string", "enum": ["Api-Key", "Bearer"]},
    },
    "Idempotency-Replayed": {
        "description": "This is the answer to an earlier request with the same key.",
        "schema": {"type": "string", "enum": ["true"]},
    },
}
_NAMES = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    406: "NotAcceptable",
    409: "Conflict",
    413: "TooLarge",
    415: "UnsupportedMediaType",
    429: "TooManyRequests",
    500: "InternalError",
    503: "Unavailable",
}
_ALWAYS = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}
_SOMETIMES = {409: ("Retry-After",)}
_LIMITS = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")


def finish(result: Document, generator: Any, request: Any, public: bool) -> Document:
    """drf-spectacular's postprocessing hook: responses get their headers, and each error is written down once."""
    shared: Document = {}
    for operations in result["paths"].values():
        for method, operation in operations.items():
            for status, response in operation["responses"].items():
                response["description"] = response["description"] or HTTPStatus(int(status)).phrase
                response["headers"] = response.get("headers", {}) | _headers_of(int(status), method)
                if int(status) >= 400:
                    name = _NAMES[int(status)]
                    shared[name] = response
                    operation["responses"][status] = {"$ref": f"#/components/responses/{name}"}
    result["components"]["responses"] = dict(sorted(shared.items()))
    result["components"]["headers"] = _HEADERS
    return result


def _headers_of(status: int, method: str) -> Document:
    names = [*_SOMETIMES.get(status, ()), *(_LIMITS if status != 401 else ())]
    if method == "post" and status < 300:
        names.append("Idempotency-Replayed")
    always = {name: {"required": True, **_HEADERS[name]} for name in _ALWAYS.get(status, ())}
    return always | {name: {"$ref": f"#/components/headers/{name}"} for name in names}
