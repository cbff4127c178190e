"""General updates over REST, and a follower's test alert."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers as drf
from rest_framework.request import Request
from rest_framework.response import Response

from delivery.api import serializers
from delivery.updates import Draft, UnknownTraderError, UpdateConflictError, publish_update, send_test_alert
from followers import erasures
from followers.api.codes import ErrorCode
from followers.api.errors import ProblemError
from followers.api.schema import POSTED, POSTED_EMPTY, answered, asked, path_external_id, problems
from followers.api.views import ServiceView
from followers.choices import Scope
from followers.clock import as_utc
from followers.models import Follower
from notifications.admin_tables import outcome_counts
from notifications.api.views import FollowerView
from notifications.choices import NotificationState
from notifications.update_events import stored_update, update_id

Document = dict[str, Any]

WORDS = {"id": "2026-11-24-1", "title": "Markets close early", "text": "At 14:00."}
UPDATE: Document = {
    "id": WORDS["id"], "state": "pending", "published_at": "2026-11-24T08:00:00Z",
    "expires_at": "2026-11-25T08:00:00Z", "correlation_id": "c-2", "unknown_follower_ids": [], "shards": 1,
    "shards_done": 0, "alerts": {**dict.fromkeys(NotificationState.values, 0), "pending": 41, "delivered": 120},
}  # fmt: skip
TEST = {"id": "test-0b0f2a52-5d0c-4c7f-8a41-1a3fd6e5d1a7", "expires_at": "2026-11-25T08:00:00Z"}


class UpdatesView(ServiceView):
    scope = Scope.UPDATES_WRITE

    @extend_schema(
        operation_id="updates_publish",
        tags=["Services"],
        summary="Publish a general update",
        description="To a trader's followers (`trader_id`; their community channels get it too), or to named ones "
        "(`follower_ids`). The `id` is yours: the same again is answered by 200 and changes nothing, another text "
        "under it is a conflict. Preferences hold. The key needs the scope `updates:write`.",
        request=serializers.UpdateSerializer,
        responses={
            200: serializers.StoredUpdateSerializer,
            201: serializers.StoredUpdateSerializer,
            **problems(*POSTED),
        },
        examples=[
            asked("To T-17's followers", {**WORDS, "trader_id": "T-17"}),
            asked("To two followers", {**WORDS, "id": "2026-11-24-2", "follower_ids": ["F-1", "F-2"]}),
            answered("Stored", UPDATE, 200, 201),
        ],
    )
    def post(self, request: Request) -> Response:
        given = serializers.UpdateSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        fields = given.validated_data
        draft = Draft(
            external_id=fields["id"],
            title=fields["title"],
            text=fields["text"],
            trader=fields.get("trader_id", ""),
            followers=fields.get("follower_ids", ()),
            published_by=request.user.key.name,
        )
        try:
            published = publish_update(draft)
        except UnknownTraderError as error:
            raise drf.ValidationError({"trader_id": "No trader has this id."}, code="unknown") from error
        except UpdateConflictError as error:
            raise ProblemError(ErrorCode.UPDATE_CONFLICT) from error
        return Response(shown(published.update), 201 if published.is_new else 200)


class UpdateView(ServiceView):
    scope = Scope.UPDATES_WRITE

    @extend_schema(
        operation_id="updates_retrieve",
        tags=["Services"],
        summary="Look up a general update",
        description="How far it has come: its alerts by state. The key needs the scope `updates:write`.",
        parameters=[
            path_external_id("external_id", "Your id of the update.", WORDS["id"], f"^{serializers.UPDATE_ID}$")
        ],
        responses={200: serializers.StoredUpdateSerializer, **problems(404)},
        examples=[answered("Done", {**UPDATE, "state": "done", "shards_done": 1})],
    )
    def get(self, request: Request, external_id: str) -> Response:
        update = stored_update(update_id(external_id))
        if update is None:
            raise ProblemError(ErrorCode.NOT_FOUND)
        return Response(shown(update))


class TestAlertView(FollowerView):
    @extend_schema(
        operation_id="test_alert_send",
        tags=["Inbox"],
        summary="Send me a test",
        description="On every channel that the follower has not switched off. In the inbox its payload has "
        "`update_id`, this answer's `id`, and `test`.",
        request=None,
        responses={201: serializers.TestAlertSerializer, **problems(404, *POSTED_EMPTY)},
        examples=[answered("On its way", TEST, 201)],
    )
    def post(self, request: Request) -> Response:
        follower = Follower.objects.filter(pk=request.user.follower_id).first()
        if follower is None:
            raise ProblemError(ErrorCode.NOT_FOUND)
        if follower.external_id == erasures.nameless(follower.pk):
            raise ProblemError(ErrorCode.FOLLOWER_UNKNOWN)
        update = send_test_alert(follower).update
        return Response({"id": update["external_id"], "expires_at": as_utc(update["expires_at"])}, 201)


def shown(update: Document) -> Document:
    """A stored update with the progress of its fan-out, and its alerts by state."""
    counts = outcome_counts(update["_id"])
    return {
        "id": update["external_id"],
        "state": update["state"],
        "published_at": as_utc(update["received_at"]),
        "expires_at": as_utc(update["expires_at"]),
        "correlation_id": update["correlation_id"],
        "unknown_follower_ids": update["unknown_followers"],
        "shards": update["shards"],
        "shards_done": len(update["shards_done"]),
        "alerts": {state.value: counts.get(state.value, 0) for state in NotificationState},
    }
