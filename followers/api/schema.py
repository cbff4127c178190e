"""What the schema says of every call's errors; the statuses are the ones that the call can really give."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework import serializers

from followers.api.errors import MEDIA_TYPE

NO_BODY = OpenApiResponse(description="Done.")
PAGED = (
    OpenApiParameter("limit", int, description="1 to 100; 10 by default."),
    OpenApiParameter("cursor", str, description="From `next` of the page before."),
)
"""What a list in pages takes (followers/api/cursors.py)."""

EVERY_CALL = (401, 403, 406, 429, 500, 503)
BODY = (400, 413, 415)
"""A call that reads a body."""

POSTED = (*BODY, 409)
"""A POST: its Idempotency-Key may be in conflict."""


class ProblemSerializer(serializers.Serializer[Any]):
    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    code = serializers.CharField()
    errors = serializers.ListField(child=serializers.DictField(child=serializers.CharField()), required=False)


def problems(*statuses: int) -> dict[Any, Any]:
    """The error responses of a call: `statuses`, and those that every call can give."""
    return {(status, MEDIA_TYPE): ProblemSerializer for status in sorted({*EVERY_CALL, *statuses})}
