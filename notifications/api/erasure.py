"""The services' call that erases a follower."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from followers.api.codes import ErrorCode
from followers.api.errors import ProblemError
from followers.api.schema import answered, path_external_id, problems
from followers.api.views import ServiceView
from followers.choices import Scope
from followers.clock import as_utc
from notifications import live
from notifications.erasure import erase

COUNTED = ("endpoints", "follows", "inbox_entries", "cancelled", "pseudonymised", "removed")


class ErasureSerializer(serializers.Serializer[Any]):
    erased_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField()
    keeps_notifications = serializers.BooleanField(help_text="ERASURE_KEEPS_NOTIFICATIONS: alerts stay, nameless.")
    endpoints = serializers.IntegerField()
    follows = serializers.IntegerField()
    inbox_entries = serializers.IntegerField()
    cancelled = serializers.IntegerField(help_text="Alerts with a delivery that was not sent yet.")
    pseudonymised = serializers.IntegerField(help_text="Alerts that stay under a name that says nothing.")
    removed = serializers.IntegerField(help_text="Alerts that were deleted.")


EXAMPLE = {
    "erased_at": "2026-11-21T09:15:00Z", "finished_at": "2026-11-21T09:15:01Z", "keeps_notifications": True,
    "endpoints": 2, "follows": 3, "inbox_entries": 41, "cancelled": 1, "pseudonymised": 120, "removed": 0,
}  # fmt: skip


class FollowerEraseView(ServiceView):
    scope = Scope.FOLLOWERS_ERASE

    @extend_schema(
        operation_id="followers_erase",
        tags=["Services"],
        summary="Erase a follower",
        description="Addresses, follows and inbox go, and what is unsent is cancelled. Alerts stay without a name, or "
        "go as well, as the server is set up. What a worker is sending at that moment still arrives: call again a "
        "minute later, and what it left goes too; the report adds up. The follower's app is told "
        "`follower_unknown` from the next second on, and its sockets are closed. The key needs the scope "
        "`followers:erase`.",
        parameters=[path_external_id("external_id", "The follower's external id.", "F-1", "^.{1,128}$")],
        responses={200: ErasureSerializer, **problems(404)},
        examples=[answered("A report", EXAMPLE)],
    )
    def delete(self, request: Request, external_id: str) -> Response:
        erasure = erase(external_id)
        if erasure is None:
            raise ProblemError(ErrorCode.NOT_FOUND)
        live.push_end(erasure["_id"])
        times = {name: as_utc(erasure[name]) for name in ("erased_at", "finished_at")}
        counts = {name: erasure["counts"].get(name, 0) for name in COUNTED}
        return Response({**times, "keeps_notifications": erasure["keeps_notifications"], **counts})
