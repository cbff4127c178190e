"""The services' calls on traders, followers, follows, endpoints and portfolio values."""

from __future__ import annotations

from typing import Any

from bson import ObjectId
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema, extend_schema_view
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from followers import clock, statements, upserts
from followers.api import items, serializers
from followers.api.codes import ErrorCode
from followers.api.errors import ProblemError
from followers.api.schema import NO_BODY, POSTED, problems
from followers.api.views import ServiceView
from followers.choices import Scope
from followers.models import Follower, Trader


class BulkView(ServiceView):
    """POST of up to 1,000 items of a subclass's `kind`."""

    scope = Scope.AUDIENCE_WRITE
    kind: items.Kind

    def post(self, request: Request) -> Response:
        given = request.data.get("items") if isinstance(request.data, dict) else None
        if not isinstance(given, list) or not 1 <= len(given) <= serializers.MAX_ITEMS:
            raise ValidationError({"items": [f"A list of 1 to {serializers.MAX_ITEMS:,} items is needed."]})
        return Response({"results": items.carry_out(given, self.kind)})


def _bulk(name: str, summary: str, body: Any, example: dict[str, Any], answer: dict[str, Any]) -> Any:
    """The schema of a bulk call."""
    shown = {"index": 0, "external_id": None, "id": None, "status": "created", "code": None, "detail": None, **answer}
    return extend_schema_view(
        post=extend_schema(
            operation_id=f"{name}_upsert",
            tags=["Services"],
            summary=summary,
            request=body,
            responses={200: serializers.ItemAnswers, **problems(*POSTED)},
            examples=[
                OpenApiExample("One item", {"items": [example]}, request_only=True),
                OpenApiExample("Its answer", {"results": [shown]}, response_only=True, status_codes=["200"]),
            ],
        )
    )


@_bulk(
    "traders",
    "Traders, by external id",
    serializers.TraderItems,
    {"external_id": "T-17", "name": "Asha", "portfolio_value": "100000", "currency": "INR"},
    {"external_id": "T-17", "id": "6561f0aa3c1d2e4f5a6b7c8d"},
)
class TradersView(BulkView):
    kind = items.TRADERS


@_bulk(
    "followers",
    "Followers, by external id",
    serializers.FollowerItems,
    {"external_id": "F-1", "portfolio_value": "10000", "currency": "INR", "timezone": "Asia/Kolkata"},
    {"external_id": "F-1", "id": "6561f0aa3c1d2e4f5a6b7c8e"},
)
class FollowersView(BulkView):
    kind = items.FOLLOWERS


@_bulk(
    "follows",
    "Who follows whom; one that had ended begins anew",
    serializers.FollowItems,
    {"trader_id": "T-17", "follower_id": "F-1", "multiplier": "1", "allocation": "5000"},
    {"external_id": "F-1", "id": "6561f0aa3c1d2e4f5a6b7c8f"},
)
class FollowsView(BulkView):
    kind = items.FOLLOWS


@_bulk(
    "endpoints",
    "Addresses; one that somebody else registers leaves its first owner, one that was deactivated comes back",
    serializers.EndpointItems,
    {"follower_id": "F-1", "channel": "sms", "address": "+14155550100"},
    {"external_id": "F-1", "id": "6561f0aa3c1d2e4f5a6b7c90"},
)
class EndpointsView(BulkView):
    kind = items.ENDPOINTS


@_bulk(
    "portfolios",
    "Portfolio values of traders and followers who are stored",
    serializers.PortfolioItems,
    {"follower_id": "F-1", "portfolio_value": "10250.75", "as_of": "2026-11-21T09:15:00Z"},
    {"external_id": "F-1", "id": "6561f0aa3c1d2e4f5a6b7c8e", "status": "updated"},
)
class PortfoliosView(BulkView):
    kind = items.PORTFOLIOS


class FollowView(ServiceView):
    scope = Scope.AUDIENCE_WRITE

    @extend_schema(
        operation_id="follows_end",
        tags=["Services"],
        summary="Ends a follow; what has ended stays so",
        responses={204: NO_BODY, **problems(404)},
    )
    def delete(self, request: Request, trader_id: str, follower_id: str) -> Response:
        traders = upserts.known_ids(Trader, [trader_id])
        followers = upserts.known_ids(Follower, [follower_id])
        if not (traders and followers):
            raise ProblemError(ErrorCode.NOT_FOUND)
        if not upserts.end_follow(traders[trader_id], followers[follower_id], clock.now()):
            raise ProblemError(ErrorCode.NOT_FOUND)
        return Response(status=204)


class EndpointView(ServiceView):
    scope = Scope.AUDIENCE_WRITE

    @extend_schema(
        operation_id="endpoints_deactivate",
        tags=["Services"],
        summary="Nothing is sent to the address any more, until it is registered again",
        parameters=[OpenApiParameter("reason", str, description="At most 200 characters, for support to read.")],
        responses={204: NO_BODY, **problems(400, 404)},
    )
    def delete(self, request: Request, endpoint_id: str) -> Response:
        reason = request.query_params.get("reason", "removed by the service")
        if len(reason) > 200 or not reason.isprintable():
            raise ValidationError({"reason": ["At most 200 printable characters."]})
        oid = ObjectId(endpoint_id)
        found = statements.addresses([oid]).get(oid)
        if found is None:
            raise ProblemError(ErrorCode.NOT_FOUND)
        if found["active"]:
            statements.deactivate_endpoint(oid, found["registered_at"], reason, clock.now())
        return Response(status=204)
