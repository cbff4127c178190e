"""No log line holds a full token, phone number, webhook URL or credential, however it came there."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

HIDDEN = "…"

KEPT_WHOLE = frozenset({"correlation_id", "event_id", "logger", "level", "span_id", "time", "trace_id"})
"""What one searches the logs for; it is not ours to shorten, and none of it is an address."""

SECRET_NAMES = re.compile(
    r"(?:^|_)(?:address|authorization|cookie|credentials?|jwt|key|password|phone|secret|ticket|token|webhook)s?$", re.I
)
"""Fields whose value is hidden whatever it looks like."""

CREDENTIALS = "token|ticket|secret|password|api_?key|signature|authorization"

PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # A webhook's address: whoever knows it may post.
    (re.compile(r"(/webhooks/\d+/)[\w%.~-]+"), rf"\1{HIDDEN}"),
    # https://user:password@host, mongodb://…
    (re.compile(r"(\w://)[^\s/@:]+:[^\s@]+@"), rf"\1{HIDDEN}@"),
    (re.compile(r"\b(bearer|basic|api-key|key)([ =:]+)[^\s\"',;]{8,}", re.I), rf"\1\2{HIDDEN}"),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), HIDDEN),
    # In a query string, a form or a header.
    (re.compile(rf"\b([\w-]*(?:{CREDENTIALS}))([\"']?[=:] ?[\"']?)[^\s&\"',;}}]+", re.I), rf"\1\2{HIDDEN}"),
    # E.164, also percent-encoded: country code and last two digits tell enough.
    (re.compile(r"(\+|%2B)(\d{1,2})\d{4,11}(\d{2})(?!\d)", re.I), rf"\1\2{HIDDEN}\3"),
    # A UUID, as OneSignal's subscriptions are named by; both ends are enough to recognise one by.
    (
        re.compile(r"(?<![\w-])([0-9a-f]{8})(?:-[0-9a-f]{4}){3}-[0-9a-f]{8}([0-9a-f]{4})(?![\w-])", re.I),
        rf"\1{HIDDEN}\2",
    ),
    # A device's token: long, and of letters with digits among them. Our own ids are shorter.
    (re.compile(r"(?<![\w:-])(?=(?:[A-Za-z_:-]*\d){4})([\w:-]{4})[\w:-]{34,}([\w:-]{2})(?![\w:-])"), rf"\1{HIDDEN}\2"),
)


def masked(text: str) -> str:
    """The text without what must not be read in it."""
    for pattern, replacement in PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def mask(logger: Any, method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor; the last one before the line is rendered, so that nothing passes it by."""
    return {name: value if name in KEPT_WHOLE else _masked(name, value) for name, value in event_dict.items()}


def _masked(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _masked(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked(name, inner) for inner in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return HIDDEN if value and SECRET_NAMES.search(name) else masked(str(value))
