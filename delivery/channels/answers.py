"""Reading a vendor's answer: what all the tables have in common."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias

import orjson

from delivery.channels.base import Message, Outcome, Result

Verdict: TypeAlias = tuple[Outcome, str]
"""What an answer means for us, and the reason in words for support staff."""

MAX_MESSAGE = 500
_URL = re.compile(r"https?://\S+")
_NUMBER = re.compile(r"\+?\d(?:[\s().-]{0,2}\d){6,}")
_TOKEN = re.compile(r"(?=[\w:-]*\d)[\w:-]{16,}")


def by_status(status: int, *, after_5xx: Outcome = Outcome.RETRY) -> Verdict:
    """For a code that is in no table: the class that its HTTP status says."""
    if status in (401, 403):
        return Outcome.MISCONFIGURED, "The vendor refused our credentials"
    if status == 429:
        return Outcome.THROTTLED, "The vendor asks us to wait"
    if 400 <= status < 500:
        return Outcome.REFUSED, "The vendor refused the message"
    if status >= 500:
        return after_5xx, "The vendor is in trouble"
    # Redirects are not followed, and no vendor documents any other status: something else answers at this address.
    return Outcome.MISCONFIGURED, "The answer is not the vendor's; is the base URL right?"


def refusal(
    verdict: Verdict,
    code: str,
    words: str,
    message: Message,
    *,
    retry_after: float | None = None,
    extra: Mapping[str, str] | None = None,
) -> Result:
    """A result that is not SENT: our reason, then the vendor's own words without addresses."""
    outcome, reason = verdict
    text = f"{reason}: {scrub(words, message.address)}" if words else reason
    return Result(outcome, code, text[:MAX_MESSAGE], retry_after_seconds=retry_after, extra=extra or {})


def accepted(provider_message_id: str, message: Message, **extra: str) -> Result:
    """SENT under the vendor's id. Without one it is in doubt: a proxy's page has a good status as well."""
    if provider_message_id:
        return Result(Outcome.SENT, provider_message_id=provider_message_id, extra=extra)
    return refusal((Outcome.UNKNOWN, "A good status without the vendor's id"), "unreadable_answer", "", message)


def json_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object; empty if it is anything else (a gateway's HTML page, for instance)."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3): a number, or a date, which counts from the answer's Date."""
    value = (headers.get("retry-after") or "").strip()
    seconds = seconds_or_none(value)
    if seconds is not None or not value:
        return seconds
    try:
        wait = parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("date") or "")
    except (TypeError, ValueError):
        return None
    return max(0.0, wait.total_seconds())


def seconds_or_none(value: object) -> float | None:
    """A finite number of seconds, at least 0; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if 0.0 <= seconds < float("inf") else None


def scrub(text: str, address: str) -> str:
    """The vendor's words without the address, and without whatever else looks like a URL, a number or a token."""
    if address:
        text = text.replace(address, "…")
    return _TOKEN.sub("…", _NUMBER.sub("…", _URL.sub("…", text)))
