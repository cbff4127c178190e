"""A follower's inbox over REST, and the minting of the token that opens it.

Every change is told to the follower's connected sockets, so that tabs and devices stay in step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from bson import ObjectId
from django.conf import settings
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from followers import clock, erasures
from followers.api import cursors
from followers.api.authentication import IsKnown
from followers.api.codes import ErrorCode
from followers.api.errors import ProblemError
from followers.api.schema import (
    ALERT_ID,
    ENDPOINT_ID,
    NO_BODY,
    PAGED,
    POSTED,
    POSTED_EMPTY,
    answered,
    asked,
    parameter,
    path_id,
    problems,
)
from followers.api.views import ApiView, ServiceView
from followers.choices import Channel, Scope
from followers.models import Follower
from notifications import acks, frames, inbox, live, tickets, tokens
from notifications.acks import Acknowledged
from notifications.api import serializers
from notifications.api.authentication import FollowerAuthentication
from notifications.api.examples import ENTRY
from notifications.choices import AckEvent

ENTRY_ID = path_id("entry_id", "The alert's id.", ALERT_ID)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""Before anything was made."""


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
        summary="List my inbox",
        description="The newest first. `payload` has what the app shows; its values are strings. What has expired, was "
        "replaced or archived is not in it.",
        parameters=[
            *PAGED,
            parameter("since", "Only what was made after it.", "2026-11-21T09:15:00Z", format="date-time"),
        ],
        responses={200: serializers.InboxPageSerializer, **problems(400)},
        examples=[answered("The only page", {"next": None, "results": [ENTRY]})],
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
        summary="Count what is unread",
        description="For a badge. Send the last answer's `ETag` as `If-None-Match`: a count that is still the same is "
        "answered by 304 without a body. An app with a socket is told, and need not ask.",
        parameters=[
            parameter("If-None-Match", "The `ETag` of an answer.", '"unread-3"', "header"),
            OpenApiParameter("ETag", str, "header", description="For If-None-Match.", response=[200, 304]),
        ],
        examples=[answered("Three", {"unread": 3})],
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
    "parameters": [ENTRY_ID],
    "request": None,
    "responses": {204: NO_BODY, **problems(404)},
}


@extend_schema_view(
    patch=extend_schema(
        operation_id="inbox_entry_read",
        summary="Mark an alert as read",
        description="A person has seen it; every device of theirs is told. One that is read stays so.",
        **_ENTRY,
    )
)
class EntryReadView(EntryChangeView):
    change = staticmethod(inbox.mark_read)
    tell = staticmethod(live.push_read)


@extend_schema_view(
    patch=extend_schema(
        operation_id="inbox_entry_unread",
        summary="Mark an alert as unread",
        description="It counts as new again, on every device. What has left the inbox cannot.",
        **_ENTRY,
    )
)
class EntryUnreadView(EntryChangeView):
    change = staticmethod(inbox.mark_unread)
    tell = staticmethod(_tell_unread)


@extend_schema_view(
    patch=extend_schema(
        operation_id="inbox_entry_archive",
        summary="Archive an alert",
        description="It leaves the inbox for good, on every device; it can still be looked at by its id.",
        **_ENTRY,
    )
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
    "description": "By their ids, or all that were made up to a time. Ids of nobody, or of somebody else, change "
    "nothing.",
    "request": serializers.ReadSerializer,
    "responses": {200: serializers.ReadCountSerializer, **problems(*POSTED)},
    "examples": [
        asked("All up to a time", {"before": "2026-11-21T09:15:00Z"}),
        asked("These", {"ids": [ALERT_ID]}),
        answered("One was changed", {"changed": 1}),
    ],
}


@extend_schema_view(
    post=extend_schema(
        operation_id="inbox_read",
        summary="Mark many as read",
        **_MANY,
    )
)
class InboxReadView(ManyChangeView):
    change = staticmethod(inbox.mark_many_read)
    tell = staticmethod(live.push_read)


@extend_schema_view(
    post=extend_schema(
        operation_id="inbox_unread",
        summary="Mark many as unread",
        **_MANY,
    )
)
class InboxUnreadView(ManyChangeView):
    change = staticmethod(inbox.mark_many_unread)
    tell = staticmethod(_tell_unread)


@extend_schema_view(
    post=extend_schema(
        operation_id="inbox_archive",
        summary="Archive many",
        **_MANY,
    )
)
class InboxArchiveView(ManyChangeView):
    change = staticmethod(inbox.archive_many)
    tell = staticmethod(_tell_archived)


class EntryAckView(FollowerView):
    @extend_schema(
        operation_id="inbox_entry_ack",
        tags=["Inbox"],
        summary="Acknowledge an alert",
        description="The app has it: its delivery becomes `delivered`. Send `received` when it is there, `seen` when "
        "it was shown, `opened` when a person opened it; each one's first time is kept. With a push channel it is told "
        "of that device's delivery; `device_id` stands in the push message.",
        parameters=[ENTRY_ID],
        request=serializers.AckSerializer,
        responses={204: NO_BODY, **problems(404, *POSTED)},
        examples=[
            asked("It was shown", {"event": "seen"}),
            asked("A push message has come", {"event": "received", "channel": "fcm", "device_id": ENDPOINT_ID}),
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
    answers_are_secret = True

    @extend_schema(
        operation_id="ws_ticket",
        tags=["Inbox"],
        summary="Get a ticket for the socket",
        description="For an app that cannot offer its token as a subprotocol: connect to `/ws/inbox/?ticket=…`. A "
        "ticket opens one socket, once, within 30 seconds.",
        request=None,
        responses={201: serializers.TicketSerializer, **problems(*POSTED_EMPTY)},
        examples=[answered("A ticket", {"ticket": "q0lI1bT5vX0", "expires_in": 30}, 201)],
    )
    def post(self, request: Request) -> Response:
        ticket = tickets.issue(request.auth)
        return Response({"ticket": ticket, "expires_in": tickets.TICKET_SECONDS}, 201)


class TokensView(ServiceView):
    scope = Scope.TOKENS_MINT
    answers_are_secret = True

    @extend_schema(
        operation_id="tokens_mint",
        tags=["Services"],
        summary="Mint a follower's token",
        description="For the app of somebody who is signed in to your platform: it sends the token with each of its "
        "own calls, and asks you for another one when it has expired. The key needs the scope `tokens:mint`.",
        request=serializers.MintSerializer,
        responses={201: serializers.TokenSerializer, **problems(404, *POSTED)},
        examples=[
            asked("For F-1", {"follower_id": "F-1"}),
            answered("A token", {"token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI2NzQyIn0.c2lnbmVk", "expires_in": 900}, 201),
        ],
    )
    def post(self, request: Request) -> Response:
        wanted = serializers.MintSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        follower = erasures.find_present(wanted.validated_data["follower_id"])
        if follower is None:
            raise ProblemError(ErrorCode.NOT_FOUND)
        return Response(
            {"token": tokens.mint(Follower(pk=follower)), "expires_in": settings.FOLLOWER_TOKEN_SECONDS}, 201
        )


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
    except ValueError:
        raise ProblemError(ErrorCode.INVALID, "since is a time such as 2026-11-21T09:15:00Z.") from None
    return max(at, EPOCH).astimezone(UTC)
