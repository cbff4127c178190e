"""The services' look-up of alerts: one with its deliveries and its timeline, and lists of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from bson import ObjectId
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from followers.api import cursors
from followers.api.codes import ErrorCode
from followers.api.errors import ProblemError
from followers.api.schema import ALERT_ID, PAGED, answered, parameter, path_id, problems
from followers.api.views import ServiceView
from followers.choices import Scope
from followers.clock import as_utc
from followers.models import Follower, Trader
from followers.upserts import known_ids
from notifications import lookup
from notifications.api import alert_serializers as serializers
from notifications.choices import AckEvent, NotificationState
from notifications.lookup import Addresses, Wanted
from notifications.rendering import plain
from notifications.statements import event_id

Document = dict[str, Any]

EXAMPLE: Document = {
    "id": ALERT_ID, "kind": "trade_alert", "event_id": "01JD0000000000000000000001", "trader_id": "T-17",
    "follower_id": "F-1", "symbol": "RELIANCE", "side": "BUY", "action": "OPEN", "price": "2945.5", "currency": "INR",
    "priority": "high", "state": "delivered", "superseded_by": None, "correlation_id": "c-1",
    "executed_at": "2026-11-21T09:15:00.123Z", "created_at": "2026-11-21T09:15:00.310Z",
    "expires_at": "2026-11-21T09:20:00.123Z",
    "sizing": {"suggested_qty": "5", "ratio": "0.1", "reason": None, "exit_fraction": None, "is_estimate": False,
               "capped": False},
    "deliveries": [
        {"channel": "in_app", "state": "delivered", "in_progress": False, "endpoint_id": None, "address": None,
         "attempts": 0, "error_code": None, "error_message": None, "provider_message_id": None,
         "next_attempt_at": None, "sent_at": "2026-11-21T09:15:00.310Z",
         "delivered_at": "2026-11-21T09:15:00.402Z",
         "acks": {"received": "2026-11-21T09:15:00.402Z", "seen": None, "opened": None}},
    ],
}  # fmt: skip


class AlertsView(ServiceView):
    scope = Scope.NOTIFICATIONS_READ

    @extend_schema(
        operation_id="notifications_list",
        tags=["Services"],
        summary="List alerts",
        description="The newest first; those of one event in the order of their ids. Whoever is asked for and is not "
        "stored has no alerts. The key needs the scope `notifications:read`.",
        parameters=[
            parameter("follower_id", "The follower's external id.", "F-1"),
            parameter("event_id", "The trade's event id.", "01JD0000000000000000000001"),
            parameter("trader_id", "The trader's external id.", "T-17"),
            parameter(
                "state",
                "`pending`, `delivered` and `skipped` only together with `follower_id` or `event_id`.",
                "pending",
                enum=NotificationState.values,
            ),
            *PAGED,
        ],
        responses={200: serializers.AlertPageSerializer, **problems(400)},
        examples=[answered("A page", {"next": None, "results": [EXAMPLE]})],
    )
    def get(self, request: Request) -> Response:
        limit = cursors.limit_of(request)
        after = cursors.position_of(request)
        wanted = _wanted(request)
        rows = lookup.page(wanted, after, limit + 1) if wanted is not None else []
        return Response(cursors.page(request, rows, limit, _shown(rows[:limit])))


def _wanted(request: Request) -> Wanted | None:
    """What the query asks for; None = of somebody who is not stored. Raises ProblemError (`invalid`)."""
    given = {name: request.query_params.get(name) for name in ("follower_id", "trader_id", "event_id", "state")}
    state = given["state"]
    if state is not None and state not in NotificationState.values:
        raise ProblemError(ErrorCode.INVALID, f"state is one of {', '.join(NotificationState.values)}.")
    people: dict[str, ObjectId | None] = {"follower_id": None, "trader_id": None}
    for name, model in (("follower_id", Follower), ("trader_id", Trader)):
        external_id = given[name]
        if external_id is not None:
            people[name] = known_ids(model, [external_id]).get(external_id)
    wanted = Wanted(
        follower=people["follower_id"],
        trader=people["trader_id"],
        event=event_id(given["event_id"]) if given["event_id"] is not None else None,
        state=NotificationState(state) if state is not None else None,
    )
    if any(given[name] is not None and found is None for name, found in people.items()):
        return None
    if wanted.is_too_wide:
        raise ProblemError(ErrorCode.INVALID, f"state={state} needs follower_id or event_id beside it.")
    return wanted


class AlertView(ServiceView):
    scope = Scope.NOTIFICATIONS_READ

    @extend_schema(
        operation_id="notifications_get",
        tags=["Services"],
        summary="Look up an alert",
        description="With its deliveries and all that happened to it, in the order of time. Addresses are masked. The "
        "key needs the scope `notifications:read`.",
        parameters=[path_id("notification_id", "The alert's id.", ALERT_ID)],
        responses={200: serializers.AlertDetailSerializer, **problems(404)},
        examples=[
            answered(
                "An alert",
                {
                    **EXAMPLE,
                    "timeline": [
                        {"at": "2026-11-21T09:15:00.123Z", "what": "executed", "channel": None, "address": None,
                         "code": None, "message": None, "latency_ms": None},
                    ],
                },
            )
        ],
    )  # fmt: skip
    def get(self, request: Request, notification_id: str) -> Response:
        row = lookup.alert(ObjectId(notification_id))
        if row is None:
            raise ProblemError(ErrorCode.NOT_FOUND)
        addresses = Addresses.of(_endpoints([row]))
        return Response({**_shown([row], addresses)[0], "timeline": _timeline(row, addresses)})


# --- What is shown ---------------------------------------------------------------------------------------------------
def _endpoints(rows: Sequence[Document]) -> list[ObjectId]:
    return [d["endpoint"] for row in rows for d in row["deliveries"] if d.get("endpoint")]


def _shown(rows: Sequence[Document], addresses: Addresses | None = None) -> list[Document]:
    followers = lookup.names(Follower, (row.get("follower_id") for row in rows))
    traders = lookup.names(Trader, (row.get("trader_id") for row in rows))
    addresses = addresses or Addresses.of(_endpoints(rows))
    return [
        {
            "id": str(row["_id"]),
            "kind": row["kind"],
            "event_id": row["event_key"] or None,
            "trader_id": traders.get(row["trader_id"]),
            "follower_id": followers.get(row["follower_id"]),
            **{name: row[name] for name in ("symbol", "side", "action", "currency", "priority", "state")},
            "price": plain(row["price"]) or None,
            "superseded_by": row["superseded_by"] or None,
            "correlation_id": row["correlation_id"],
            **{name: _time(row[name]) for name in ("executed_at", "created_at", "expires_at")},
            "sizing": _sizing(row["sizing"]),
            "deliveries": [_delivery(d, addresses) for d in row["deliveries"]],
        }
        for row in rows
    ]


def _sizing(sizing: Document | None) -> Document | None:
    """Without the figures it was made from: a follower's app explains those to the follower."""
    if sizing is None:
        return None
    return {
        **{name: plain(sizing[name]) or None for name in ("suggested_qty", "ratio", "exit_fraction")},
        "reason": sizing["reason"] or None,
        "is_estimate": sizing["is_estimate"],
        "capped": sizing["capped"],
    }


def _delivery(delivery: Document, addresses: Addresses) -> Document:
    endpoint = delivery["endpoint"]
    return {
        "channel": delivery["channel"],
        "state": delivery["state"],
        "in_progress": delivery["state"] == "queued" and delivery["batch"] is not None,
        "endpoint_id": str(endpoint) if endpoint else None,
        "address": addresses.shown(endpoint),
        "attempts": delivery["attempts"],
        "error_code": delivery["error_code"] or None,
        "error_message": addresses.kept_out_of(delivery["error_message"], endpoint) or None,
        "provider_message_id": delivery["provider_message_id"] or None,
        **{name: _time(delivery[name]) for name in ("next_attempt_at", "sent_at", "delivered_at")},
        "acks": {event: _time(at) for event, at in _acks(delivery).items()},
    }


def _acks(delivery: Document) -> Document:
    """Event → when the app first said so, or None."""
    stored = delivery.get("acks") or {}
    return {event: stored.get(event) for event in AckEvent.values}


def _timeline(row: Document, addresses: Addresses) -> list[Document]:
    """All that happened, in the order of time."""
    trade = lookup.event_times(row["event_id"]) if row["event_id"] else None
    entry = lookup.inbox_entry(row["_id"])
    steps = [
        _step(row["executed_at"], "executed"),
        _step(trade["received_at"] if trade else None, "received"),
        _step(row["created_at"], "stored"),
        _step(entry["read_at"] if entry else None, "read", "in_app"),
        _step(entry["archived_at"] if entry else None, "archived", "in_app"),
    ]
    for delivery in row["deliveries"]:
        channel, endpoint = delivery["channel"], delivery["endpoint"]
        address = addresses.shown(endpoint)
        steps += [
            _step(
                attempt["at"],
                f"attempt_{attempt['outcome']}",
                channel,
                address,
                code=attempt["code"] or None,
                message=addresses.kept_out_of(attempt["message"], endpoint) or None,
                latency_ms=attempt["latency_ms"],
            )
            for attempt in delivery["attempt_log"]
        ]
        if not delivery["attempt_log"]:
            steps.append(_step(delivery["sent_at"], "sent", channel, address))
        steps.append(_step(delivery["delivered_at"], "delivered", channel, address))
        steps += [_step(at, f"ack_{event}", channel, address) for event, at in _acks(delivery).items()]
    return sorted((step for step in steps if step["at"] is not None), key=lambda step: step["at"])


def _step(
    at: datetime | None, what: str, channel: str | None = None, address: str | None = None, **said: Any
) -> Document:
    nothing = {"code": None, "message": None, "latency_ms": None}
    return {"at": _time(at), "what": what, "channel": channel, "address": address, **nothing, **said}


def _time(at: datetime | None) -> datetime | None:
    return None if at is None else as_utc(at)
