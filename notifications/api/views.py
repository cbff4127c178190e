"""A follower's inbox over REST, and the minting of the token that opens it.

Every change is told to the follower's connected sockets, so that tabs and devices stay in step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from bson import ObjectId
from django.conf import settings
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from followers import clock
from followers.api import cursors
from followers.api.authentication import IsKnown
from followers.api.codes import ErrorCode
from followers.api.errors import ProblemError
from followers.api.schema import NO_BODY, PAGED, POSTED, problems
from followers.api.views import ApiView, ServiceView
from followers.choices import Channel, Scope
from followers.models import Follower
from notifications import acks, frames, inbox, live, tickets, tokens
from notifications.acks import Acknowledged
from notifications.api import serializers
from notifications.api.authentication import FollowerAuthentication
from notifications.choices import AckEvent


class FollowerView(ApiView):
    """A call for a follower's app, about what is theirs alone."""

    authentication_classes = [FollowerAuthentication]
    permission_classes = [IsKnown]

    def per_minute(self) -> int:
        return settings.API_FOLLOWER_PER_MINUTE


class InboxView(FollowerView):
    @extend_schema(
        operation_id="inbox_list",
        tags=["Inbox"],
        summary="The inbox, newest first",
        parameters=[
            *PAGED,
            OpenApiParameter("since", datetime, description="Only what was made after it."),
        ],
        responses={200: serializers.InboxPageSerializer, **problems(400)},
    )
    def get(self, request: Request) -> Response:
        limit = cursors.limit_of(request)
        rows = inbox.page(
            request.user.follower_id, clock.now(), limit + 1, cursors.position_of(request), _since(request)
        )
        return Response(cursors.page(request, rows, limit, [shown(row) for row in rows]))


class InboxCountView(FollowerView):
    @extend_schema(
        operation_id="inbox_count",
        tags=["Inbox"],
        summary="How much is unread; with If-None-Match, whether it changed",
        parameters=[OpenApiParameter("If-None-Match", str, OpenApiParameter.HEADER)],
        responses={200: serializers.CountSerializer, 304: OpenApiResponse(description="Unchanged."), **problems()},
    )
    def get(self, request: Request) -> Response:
        count = inbox.unread_count(request.user.follower_id, clock.now())
        etag = f'"unread-{count}"'
        known = [tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")]
        if etag in known or "*" in known:
            return Response(status=304, headers={"ETag": etag})
        return Response({"unread": count}, headers={"ETag": etag})


Tell = Callable[[ObjectId, Sequence[ObjectId], datetime], None]
"""Tells a follower's sockets what became of entries at a time."""


def _tell_unread(follower: ObjectId, entries: Sequence[ObjectId], now: datetime) -> None:
    live.push_read(follower, entries, None)


def _tell_archived(follower: ObjectId, entries: Sequence[ObjectId], now: datetime) -> None:
    live.push_archived(follower, entries)


class EntryChangeView(FollowerView):
    """PATCH on one entry; `change` is one of the inbox's functions."""

    change: Callable[[ObjectId, ObjectId, datetime], bool]
    tell: Tell

    def patch(self, request: Request, entry_id: str) -> Response:
        kind, follower, entry, now = type(self), request.user.follower_id, ObjectId(entry_id), clock.now()
        if not kind.change(follower, entry, now):
            raise ProblemError(ErrorCode.NOT_FOUND)
        kind.tell(follower, [entry], now)
        return Response(status=204)


_ENTRY: dict[str, Any] = {
    "tags": ["Inbox"],
    "request": None,
    "responses": {204: NO_BODY, **problems(404)},
}


@extend_schema_view(patch=extend_schema(operation_id="inbox_entry_read", summary="unread → read", **_ENTRY))
class EntryReadView(EntryChangeView):
    change = staticmethod(inbox.mark_read)
    tell = staticmethod(live.push_read)


@extend_schema_view(patch=extend_schema(operation_id="inbox_entry_unread", summary="read → unread", **_ENTRY))
class EntryUnreadView(EntryChangeView):
    change = staticmethod(inbox.mark_unread)
    tell = staticmethod(_tell_unread)


@extend_schema_view(
    patch=extend_schema(operation_id="inbox_entry_archive", summary="Out of the inbox, for good", **_ENTRY)
)
class EntryArchiveView(EntryChangeView):
    change = staticmethod(inbox.archive)
    tell = staticmethod(_tell_archived)


class ManyChangeView(FollowerView):
    """POST on many entries, by ids or up to a time; `change` gives those that it has changed."""

    change: Callable[..., list[ObjectId]]
    tell: Tell

    def post(self, request: Request) -> Response:
        wanted = serializers.ReadSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        kind, follower, now = type(self), request.user.follower_id, clock.now()
        changed = kind.change(follower, now, **wanted.validated_data)
        if changed:
            kind.tell(follower, changed, now)
        return Response({"changed": len(changed)})


_MANY: dict[str, Any] = {
    "tags": ["Inbox"],
    "request": serializers.ReadSerializer,
    "responses": {200: serializers.ReadCountSerializer, **problems(*POSTED)},
    "examples": [OpenApiExample("All up to a time", {"before": "2026-11-21T09:15:00Z"}, request_only=True)],
}


@extend_schema_view(
    post=extend_schema(operation_id="inbox_read", summary="Marks many as read: by ids, or all up to a time", **_MANY)
)
class InboxReadView(ManyChangeView):
    change = staticmethod(inbox.mark_many_read)
    tell = staticmethod(live.push_read)


@extend_schema_view(
    post=extend_schema(operation_id="inbox_archive", summary="Archives many: by ids, or all up to a time", **_MANY)
)
class InboxArchiveView(ManyChangeView):
    change = staticmethod(inbox.archive_many)
    tell = staticmethod(_tell_archived)


PUSHED = {"event": "received", "channel": "fcm", "device_id": "6742a1c83f0e9d5b7c8a1e2f"}


class EntryAckView(FollowerView):
    @extend_schema(
        operation_id="inbox_entry_ack",
        tags=["Inbox"],
        summary="What became of the alert in the app: its delivery becomes delivered",
        description="Each event's first time is kept. With a push channel it is told of that device's delivery.",
        request=serializers.AckSerializer,
        responses={204: NO_BODY, **problems(404, *POSTED)},
        examples=[
            OpenApiExample("It was in front of a person", {"event": "seen"}, request_only=True),
            OpenApiExample("A push message has come", PUSHED, request_only=True),
        ],
    )
    def post(self, request: Request, entry_id: str) -> Response:
        given = serializers.AckSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        event, channel, device = map(given.validated_data.get, ("event", "channel", "device_id"))
        ack = frames.Ack(ObjectId(entry_id), AckEvent(event), Channel(channel), device)
        match acks.acknowledge(request.user.follower_id, ack, clock.now()):
            case Acknowledged.NOT_FOUND:
                raise ProblemError(ErrorCode.NOT_FOUND)
            case Acknowledged.WHICH_DEVICE:
                words = f"The alert went to several of your devices on {channel}; this says which."
                raise ValidationError({"device_id": [words]}, code="required")
        return Response(status=204)


class TicketView(FollowerView):
    @extend_schema(
        operation_id="ws_ticket",
        tags=["Inbox"],
        summary="A ticket for the socket, for an app that cannot offer its token as a subprotocol",
        request=None,
        responses={201: serializers.TicketSerializer, **problems()},
    )
    def post(self, request: Request) -> Response:
        ticket = tickets.issue(request.auth)
        return Response({"ticket": ticket, "expires_in": tickets.TICKET_SECONDS}, 201)


class TokensView(ServiceView):
    scope = Scope.TOKENS_MINT

    @extend_schema(
        operation_id="tokens_mint",
        tags=["Services"],
        summary="A token for one follower's app",
        request=serializers.MintSerializer,
        responses={201: serializers.TokenSerializer, **problems(404, *POSTED)},
        examples=[OpenApiExample("For F-1", {"follower_id": "F-1"}, request_only=True)],
    )
    def post(self, request: Request) -> Response:
        wanted = serializers.MintSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        follower = Follower.objects.filter(external_id=wanted.validated_data["follower_id"]).first()
        if follower is None:
            raise ProblemError(ErrorCode.NOT_FOUND)
        return Response({"token": tokens.mint(follower), "expires_in": settings.FOLLOWER_TOKEN_SECONDS}, 201)


def shown(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry in a page: what `notification.created` says of it."""
    frame = frames.created(entry)
    return {name: value for name, value in frame.items() if name != "type"}


def _since(request: Request) -> datetime | None:
    text = request.query_params.get("since")
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise ValueError("without an offset")
        return at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ProblemError(ErrorCode.INVALID, "since is a time such as 2026-11-21T09:15:00Z.") from None
