"""The services' calls on traders, followers, follows, endpoints and portfolio values."""

from __future__ import annotations

from typing import Any

from bson import ObjectId
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from followers import clock, statements, upserts
from followers.api import items, serializers
from followers.api.codes import ErrorCode
from followers.api.errors import ProblemError
from followers.api.fields import CONTROL
from followers.api.schema import (
    ENDPOINT_ID,
    NO_BODY,
    POSTED,
    answered,
    asked,
    parameter,
    path_external_id,
    path_id,
    problems,
)
from followers.api.views import ServiceView
from followers.choices import Scope
from followers.members import BadValueError, read_text
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


BULK = (
    "Up to 1,000 items a call. The answer is 200 with a result for each item, in their order: `created`, `updated`, "
    "`unchanged`, or `error` with a `code` and a `detail`; a bad item spoils no other. A field that is left out leaves "
    "what is stored, so that repeating a call changes nothing. The key needs the scope `audience:write`."
)


def _bulk(name: str, summary: str, words: str, body: Any, example: dict[str, Any], answer: dict[str, Any]) -> Any:
    """The schema of a bulk call; `words` say what is particular to its items."""
    shown = {"index": 0, "external_id": None, "id": None, "status": "created", "code": None, "detail": None, **answer}
    return extend_schema_view(
        post=extend_schema(
            operation_id=f"{name}_upsert",
            tags=["Services"],
            summary=summary,
            description=f"{words} {BULK}",
            request=body,
            responses={200: serializers.ItemAnswers, **problems(*POSTED)},
            examples=[asked("One item", {"items": [example]}), answered("Its answer", {"results": [shown]})],
        )
    )


@_bulk(
    "traders",
    "Store traders",
    "Traders by your own ids. `portfolio_value` is what a follower's share of a trade is measured by.",
    serializers.TraderItems,
    {"external_id": "T-17", "name": "Asha", "portfolio_value": "100000", "currency": "INR"},
    {"external_id": "T-17", "id": "6561f0aa3c1d2e4f5a6b7c8d"},
)
class TradersView(BulkView):
    kind = items.TRADERS


@_bulk(
    "followers",
    "Store followers",
    "Followers by your own ids. Times in their alerts and quiet hours are by `timezone`.",
    serializers.FollowerItems,
    {"external_id": "F-1", "portfolio_value": "10000", "currency": "INR", "timezone": "Asia/Kolkata"},
    {"external_id": "F-1", "id": "6561f0aa3c1d2e4f5a6b7c8e"},
)
class FollowersView(BulkView):
    kind = items.FOLLOWERS


@_bulk(
    "follows",
    "Store who follows whom",
    "A follow that had ended begins anew. A suggested quantity is the trader's, times the follower's portfolio (or "
    "`allocation`) to the trader's, times `multiplier`, and worth at most `max_notional`.",
    serializers.FollowItems,
    {"trader_id": "T-17", "follower_id": "F-1", "multiplier": "1", "allocation": "5000"},
    {"external_id": "F-1", "id": "6561f0aa3c1d2e4f5a6b7c8f"},
)
class FollowsView(BulkView):
    kind = items.FOLLOWS


@_bulk(
    "endpoints",
    "Store addresses",
    "Where a follower is reached, or a trader's community channel on Discord. An address belongs to whoever registered "
    "it last, and one that was deactivated comes back by being registered again.",
    serializers.EndpointItems,
    {"follower_id": "F-1", "channel": "sms", "address": "+14155550100"},
    {"external_id": "F-1", "id": "6561f0aa3c1d2e4f5a6b7c90"},
)
class EndpointsView(BulkView):
    kind = items.ENDPOINTS


@_bulk(
    "portfolios",
    "Store portfolio values",
    "Of traders and followers who are stored; the next trade is sized by them. A value with `as_of` never replaces one "
    "as of a later time.",
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
        summary="End a follow",
        description="Trades from now on are not told to the follower. What has ended stays so, until it is stored "
        "again. The key needs the scope `audience:write`.",
        parameters=[
            path_external_id("trader_id", "The trader's external id.", "T-17"),
            path_external_id("follower_id", "The follower's external id.", "F-1"),
        ],
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
        summary="Deactivate an address",
        description="Nothing is sent to it any more, until it is registered again. Its id stands in the answer to the "
        "call that stored it. The key needs the scope `audience:write`.",
        parameters=[
            path_id("endpoint_id", "The address's id, ours.", ENDPOINT_ID),
            parameter("reason", "For support to read.", "sold", maxLength=200, pattern=f"^[^{CONTROL}]*$"),
        ],
        responses={204: NO_BODY, **problems(400, 404)},
    )
    def delete(self, request: Request, endpoint_id: str) -> Response:
        try:
            reason = read_text(request.query_params, "reason", 200) or "removed by the service"
        except BadValueError as error:
            raise ValidationError({"reason": [str(error)]}) from error
        oid = ObjectId(endpoint_id)
        found = statements.addresses([oid]).get(oid)
        if found is None:
            raise ProblemError(ErrorCode.NOT_FOUND)
        statements.switch_off_endpoint(oid, found["registered_at"], reason, clock.now())
        return Response(status=204)
