"""The API's error codes: stable words that apps act on, each with its status and what it means."""

from __future__ import annotations

from enum import Enum


class ErrorCode(Enum):
    """(code, HTTP status, title). docs/api.md lists them all."""

    MALFORMED = ("malformed", 400, "The body cannot be read.")
    INVALID = ("invalid", 400, "Some fields are wrong; `errors` names each.")
    INVALID_CURSOR = ("invalid_cursor", 400, "The cursor is none of ours; begin with the first page.")
    INVALID_IDEMPOTENCY_KEY = ("invalid_idempotency_key", 400, "An Idempotency-Key has 1 to 128 printable characters.")
    CREDENTIALS_MISSING = ("credentials_missing", 401, "Credentials of this call's kind are needed.")
    KEY_INVALID = ("key_invalid", 401, "The API key is unknown.")
    KEY_REVOKED = ("key_revoked", 401, "The API key was revoked.")
    KEY_EXPIRED = ("key_expired", 401, "The API key has expired.")
    TOKEN_EXPIRED = ("token_expired", 401, "The follower's token has expired; get a new one.")
    TOKEN_INVALID = ("token_invalid", 401, "The follower's token is not one of ours.")
    FOLLOWER_UNKNOWN = ("follower_unknown", 403, "The token is good, but its follower is unknown or was erased.")
    FORBIDDEN = ("forbidden", 403, "These credentials do not allow this.")
    SCOPE_MISSING = ("scope_missing", 403, "The API key lacks the scope of this call.")
    NOT_FOUND = ("not_found", 404, "There is no such thing, or it is not yours.")
    METHOD_NOT_ALLOWED = ("method_not_allowed", 405, "This address does not take that method.")
    NOT_ACCEPTABLE = ("not_acceptable", 406, "Answers are JSON.")
    IDEMPOTENCY_CONFLICT = ("idempotency_conflict", 409, "This Idempotency-Key was used for another request.")
    UPDATE_CONFLICT = ("update_conflict", 409, "Another update was published under this id.")
    REQUEST_IN_PROGRESS = (
        "request_in_progress",
        409,
        "The first request with this Idempotency-Key is under way, or others change the same preferences.",
    )
    TOO_LARGE = ("too_large", 413, "The body is larger than API_MAX_BODY_BYTES.")
    UNSUPPORTED_MEDIA_TYPE = ("unsupported_media_type", 415, "Bodies are application/json.")
    RATE_LIMITED = ("rate_limited", 429, "Too many calls; try again after Retry-After seconds.")
    INTERNAL = ("internal_error", 500, "Something is wrong on our side.")
    UNAVAILABLE = ("unavailable", 503, "The database is away for a moment; try again.")
    PLATFORM_UNAVAILABLE = ("platform_unavailable", 503, "The platform's keys cannot be read for a moment; try again.")

    def __init__(self, code: str, status: int, title: str) -> None:
        self.code = code
        self.status = status
        self.title = title
