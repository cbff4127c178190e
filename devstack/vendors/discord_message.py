"""Discord's message form, its limits, and Discord's forms of error."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from devstack.vendors.behaviour import Rule
from devstack.vendors.messages import Headers, RefusedError, Reply
from devstack.vendors.vendor import retry_after_header

MAX_CONTENT = 2000
MAX_NONCE = 25
MAX_EMBEDS = 10
MAX_EMBED_TITLE = 256
MAX_EMBED_DESCRIPTION = 4096
MAX_EMBED_TOTAL = 6000
DEFAULT_RETRY_SECONDS = 1.0

Errors = Mapping[str, tuple[int, str]]


def check_message(body: Mapping[str, Any], errors: Errors) -> None:
    """Raises RefusedError with 50006 or 50035."""
    content = body.get("content")
    if content is not None and not isinstance(content, str):
        raise invalid_form("content", "STRING_TYPE_CONVERT", "Could not interpret value as string.")
    embeds = body.get("embeds") or []
    if not isinstance(embeds, list):
        raise invalid_form("embeds", "LIST_TYPE_CONVERT", "Only iterables may be used in a ListType.")
    if not content and not embeds and not body.get("components") and not body.get("poll"):
        raise refused("50006", errors)
    _at_most("content", content or "", MAX_CONTENT)
    if len(embeds) > MAX_EMBEDS:
        raise invalid_form("embeds", "BASE_TYPE_MAX_LENGTH", f"Must be {MAX_EMBEDS} or fewer in length.")
    for embed in embeds:
        if not isinstance(embed, dict):
            raise invalid_form("embeds", "MODEL_TYPE_CONVERT", "Only dictionaries may be used in a ModelType.")
        _at_most("embeds", embed.get("title") or "", MAX_EMBED_TITLE)
        _at_most("embeds", embed.get("description") or "", MAX_EMBED_DESCRIPTION)
    if sum(map(_embed_length, embeds)) > MAX_EMBED_TOTAL:
        raise invalid_form("embeds", "MAX_EMBED_SIZE_EXCEEDED", f"Embed size exceeds maximum size of {MAX_EMBED_TOTAL}")
    _check_nonce(body.get("nonce"))


def _check_nonce(nonce: Any) -> None:
    if nonce is None:
        return
    if isinstance(nonce, bool) or not isinstance(nonce, (str, int)):
        raise invalid_form("nonce", "NONCE_TYPE_INVALID", "Nonce must be a string or an integer.")
    if len(str(nonce)) > MAX_NONCE:
        raise invalid_form("nonce", "NONCE_TYPE_TOO_LONG", f"Nonce must be {MAX_NONCE} or fewer in length.")


def _at_most(field: str, text: Any, limit: int) -> None:
    if not isinstance(text, str):
        raise invalid_form(field, "STRING_TYPE_CONVERT", "Could not interpret value as string.")
    if len(text) > limit:
        raise invalid_form(field, "BASE_TYPE_MAX_LENGTH", f"Must be {limit} or fewer in length.")


def _embed_length(embed: Mapping[str, Any]) -> int:
    """Title, description, field names and values, footer and author count together."""
    texts = [embed.get("title"), embed.get("description")]
    texts += [(embed.get(part) or {}).get(name) for part, name in (("footer", "text"), ("author", "name"))]
    for field in embed.get("fields") or []:
        texts += [field.get("name"), field.get("value")]
    return sum(len(str(text)) for text in texts if text)


def refused(code: str, errors: Errors, message: str | None = None, status: int | None = None) -> RefusedError:
    usual_status, text = errors.get(code, (status or 400, "Error"))
    return RefusedError(code, Reply.json(status or usual_status, {"message": message or text, "code": int(code)}))


def invalid_form(field: str, code: str, message: str) -> RefusedError:
    """50035 with the tree of fields."""
    errors = {field: {"_errors": [{"code": code, "message": message}]}}
    return RefusedError("50035", Reply.json(400, {"message": "Invalid Form Body", "code": 50035, "errors": errors}))


def throttled(rule: Rule, code: str = "429", message: str = "You are being rate limited.") -> RefusedError:
    """429: `retry_after` as a float in the body, whole seconds in the header, and whom the limit concerns."""
    seconds = rule.retry_after if rule.retry_after is not None else DEFAULT_RETRY_SECONDS
    content: dict[str, Any] = {"message": message, "retry_after": seconds, "global": rule.scope == "global"}
    if code != "429":
        content["code"] = int(code)
    headers: Headers = (*retry_after_header(seconds), ("x-ratelimit-scope", rule.scope))
    if rule.scope == "global":
        headers += (("x-ratelimit-global", "true"),)
    else:
        headers += (
            ("x-ratelimit-limit", "5"),
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", f"{time.time() + seconds:.3f}"),
            ("x-ratelimit-reset-after", f"{seconds:.3f}"),
            ("x-ratelimit-bucket", "80c17d2f203122d936070c88c8d10f33"),
        )
    return RefusedError(code, Reply.json(429, content, headers))
