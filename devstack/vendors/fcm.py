"""FCM HTTP v1 (`projects.messages.send`) with its OAuth token endpoint under /token.

Fields and types: the discovery document of fcm v1; errors: firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, ClassVar

import orjson

from devstack.vendors.behaviour import Rule
from devstack.vendors.credentials import Credentials
from devstack.vendors.fcm_message import InvalidFieldError, canonical_content, check_message, replacement_key
from devstack.vendors.google_oauth import TokenEndpoint
from devstack.vendors.messages import Call, Message, RefusedError, Repeat, Reply, Request
from devstack.vendors.recorder import Recorder, now
from devstack.vendors.vendor import Vendor, retry_after_header, unknown_code

FCM_ERROR_TYPE = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
BAD_REQUEST_TYPE = "type.googleapis.com/google.rpc.BadRequest"
MAX_PAYLOAD_BYTES = 4096
MAX_TOPIC_PAYLOAD_BYTES = 2048
TOKEN_LIFETIME_SECONDS = 3599

# FCM's code → HTTP status, Google's canonical status, message, whether an FcmError detail comes with it.
ERRORS: dict[str, tuple[int, str, str, bool]] = {
    "UNREGISTERED": (404, "NOT_FOUND", "Requested entity was not found.", True),
    "INVALID_ARGUMENT": (
        400,
        "INVALID_ARGUMENT",
        "The registration token is not a valid FCM registration token",
        True,
    ),
    "SENDER_ID_MISMATCH": (403, "PERMISSION_DENIED", "SenderId mismatch", True),
    "PERMISSION_DENIED": (403, "PERMISSION_DENIED", "The caller does not have permission", False),
    "UNAUTHENTICATED": (
        401,
        "UNAUTHENTICATED",
        "Request had invalid authentication credentials. Expected OAuth 2 access token.",
        False,
    ),
    "THIRD_PARTY_AUTH_ERROR": (401, "UNAUTHENTICATED", "Auth error from APNS or Web Push Service", True),
    "NOT_FOUND": (404, "NOT_FOUND", "Requested entity was not found.", False),
    "QUOTA_EXCEEDED": (429, "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric.", True),
    "UNAVAILABLE": (503, "UNAVAILABLE", "The service is currently unavailable.", True),
    "INTERNAL": (500, "INTERNAL", "Internal error encountered.", True),
}
CODE_OF_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "UNREGISTERED",
    429: "QUOTA_EXCEEDED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
HTML_ERROR = "<!DOCTYPE html><html><title>Error {0}</title><p>The server encountered a temporary error.</html>"


class Fcm(Vendor):
    name: ClassVar[str] = "fcm"
    options: ClassVar[Mapping[str, float]] = {"token_lifetime_seconds": TOKEN_LIFETIME_SECONDS}
    code_words: ClassVar[Mapping[str, str]] = {
        "dead": "UNREGISTERED",
        "throttled": "QUOTA_EXCEEDED",
        "unavailable": "UNAVAILABLE",
        "auth": "UNAUTHENTICATED",
    }

    def __init__(self, recorder: Recorder, credentials: Credentials, token_url: str) -> None:
        super().__init__(recorder)
        self._client_email = credentials.fcm_client_email
        self._project = credentials.fcm_project_id
        self._tokens = TokenEndpoint(credentials, token_url)

    def message_id(self) -> str:
        return f"projects/{self._project}/messages/0:{int(now() * 1e6)}%{secrets.token_hex(8)}"

    def receive(self, request: Request) -> Call:
        if request.path == "/token":
            answer = self._tokens.issue(request, self.behaviour.options["token_lifetime_seconds"])
            return Call("token", self._client_email, request.session, answer=answer)
        self._check_path(request)
        message, validate_only = read_body(request.body)
        self._check_size(message)
        address = message.get("token") or message.get("topic") or message.get("condition") or message.get("fid")
        call = Call("send", str(address), request.session)
        if validate_only:
            call.answer = Reply.json(200, {"name": f"projects/{self._project}/messages/fake_message_id"})
            return call
        self._warn(message)
        key = replacement_key(message)
        call.messages.append(
            Message(
                address=call.address,
                content=canonical_content(message),
                body=message,
                key=key,
                repeat=Repeat.REPLACED if key else Repeat.SHOWN,
                identity=f"{call.address} {key}",
            )
        )
        return call

    def _check_path(self, request: Request) -> None:
        prefix, _, rest = request.path.partition("/projects/")
        project, _, action = rest.partition("/")
        if prefix != "/v1" or action != "messages:send" or request.method != "POST":
            raise refused("NOT_FOUND")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not self._tokens.is_valid(token):
            raise refused("UNAUTHENTICATED")
        if project != self._project:
            raise refused("PERMISSION_DENIED")

    def _check_size(self, message: dict[str, Any]) -> None:
        limit = MAX_TOPIC_PAYLOAD_BYTES if "topic" in message or "condition" in message else MAX_PAYLOAD_BYTES
        if len(canonical_content(message)) > limit:
            error = {"code": 400, "message": "Message is too big", "status": "INVALID_ARGUMENT"}
            raise RefusedError("INVALID_ARGUMENT", Reply.json(400, {"error": error}))

    def _warn(self, message: dict[str, Any]) -> None:
        expiration = message.get("apns", {}).get("headers", {}).get("apns-expiration", "0")
        if expiration.isdigit() and 0 < int(expiration) < now():
            self.recorder.warnings["apns-expiration is in the past"] += 1

    def accepted(self, call: Call, message_id: str, replayed: bool) -> Reply:
        return Reply.json(200, {"name": message_id})

    def refusal(self, code: str | None, rule: Rule) -> RefusedError:
        if code is None and rule.status in (502, 504):
            # These come from the front end, not from FCM.
            html = HTML_ERROR.format(rule.status).encode()
            return RefusedError(f"HTTP_{rule.status}", Reply(rule.status, html, (("content-type", "text/html"),)))
        found = code or CODE_OF_STATUS.get(rule.status or 0)
        if found is None or found not in ERRORS:
            raise unknown_code(self.name, found, sorted(ERRORS))
        return refused(found, rule.message, rule.retry_after)


def read_body(body: bytes) -> tuple[dict[str, Any], bool]:
    """The message and `validate_only`. Raises RefusedError where FCM would."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise bad_request("", "Invalid JSON payload received.") from None
    if not isinstance(content, dict):
        raise bad_request("", "Invalid JSON payload received. Expected an object.")
    if unknown := content.keys() - {"message", "validate_only", "validateOnly"}:
        raise bad_request("", f'Invalid JSON payload received. Unknown name "{min(unknown)}": Cannot find field.')
    message = content.get("message")
    if not isinstance(message, dict):
        raise bad_request("message", "Message is required.")
    try:
        check_message(message)
    except InvalidFieldError as error:
        raise bad_request(error.field, error.description, error.from_fcm) from None
    return message, bool(content.get("validate_only", content.get("validateOnly", False)))


def refused(code: str, message: str | None = None, retry_after: float | None = None) -> RefusedError:
    status, canonical, text, from_fcm = ERRORS[code]
    details = [{"@type": FCM_ERROR_TYPE, "errorCode": code}] if from_fcm else []
    return _refused(code, status, canonical, message or text, details=details, retry_after=retry_after)


def bad_request(field: str, description: str, from_fcm: bool = False) -> RefusedError:
    """400 INVALID_ARGUMENT that names the field; FCM's own detail comes only with what the JSON parser let pass."""
    details: list[dict[str, Any]] = [{"@type": FCM_ERROR_TYPE, "errorCode": "INVALID_ARGUMENT"}] if from_fcm else []
    details.append({"@type": BAD_REQUEST_TYPE, "fieldViolations": [{"field": field, "description": description}]})
    return _refused("INVALID_ARGUMENT", 400, "INVALID_ARGUMENT", description, details=details, retry_after=None)


def _refused(
    code: str, status: int, canonical: str, message: str, *, details: list[dict[str, Any]], retry_after: float | None
) -> RefusedError:
    error: dict[str, Any] = {"code": status, "message": message, "status": canonical}
    if details:
        error["details"] = details
    return RefusedError(code, Reply.json(status, {"error": error}, retry_after_header(retry_after)))
