"""Pages by key, newest first: (created_at, _id) of the last row, so that what arrives meanwhile shifts nothing."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId
from rest_framework.request import Request
from rest_framework.utils.urls import replace_query_param

from followers.api.codes import ErrorCode
from followers.api.errors import ProblemError
from followers.clock import as_utc
from followers.mongo import Position

Document = dict[str, Any]

CURSOR_PATTERN = "^AA[AB][A-Za-z0-9_-]{23}[AEIMQUYcgkosw048]$"
"""20 bytes in base64, the first eight of them milliseconds since 1970: what `encode` writes until the year 6429."""

DEFAULT_LIMIT = 10
MAX_LIMIT = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def encode(row: Document) -> str:
    """The cursor of the page after this row."""
    millis = (as_utc(row["created_at"]) - _EPOCH) // timedelta(milliseconds=1)
    return base64.urlsafe_b64encode(millis.to_bytes(8, "big") + row["_id"].binary).decode().rstrip("=")


def decode(text: str) -> Position:
    """Raises ProblemError (`invalid_cursor`)."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        if len(raw) != 20:
            raise ValueError("wrong length")
        return _EPOCH + timedelta(milliseconds=int.from_bytes(raw[:8], "big")), ObjectId(raw[8:])
    except (ValueError, binascii.Error, OverflowError):
        raise ProblemError(ErrorCode.INVALID_CURSOR) from None


def limit_of(request: Request) -> int:
    """`?limit=`, 10 by default, 100 at most. Raises ProblemError (`invalid`)."""
    text = request.query_params.get("limit", str(DEFAULT_LIMIT))
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= MAX_LIMIT):
        raise ProblemError(ErrorCode.INVALID, f"limit is a number from 1 to {MAX_LIMIT}.")
    return int(text)


def position_of(request: Request) -> Position | None:
    text = request.query_params.get("cursor")
    return decode(text) if text is not None else None


def page(request: Request, rows: list[Document], limit: int, results: list[Any]) -> Document:
    """The body of a page. `rows` holds one more than `limit` where there is a next page; `results` shows them."""
    return {"next": _next(request, rows[limit - 1]) if len(rows) > limit else None, "results": results[:limit]}


def _next(request: Request, last: Document) -> str:
    """The address of the page after this row, with whatever else the request asked for."""
    return replace_query_param(request.build_absolute_uri(), "cursor", encode(last))
