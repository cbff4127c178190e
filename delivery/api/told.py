"""A follower's calls on what became of their alerts, on every channel and in plain words."""

from __future__ import annotations

from typing import Any

from bson import ObjectId
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from delivery.api import told_serializers as serializers
from delivery.follower_words import BY_REASON, NOT_SENT_STATES, told
from followers import clock
from followers.api import cursors
from followers.api.codes import ErrorCode
from followers.api.errors import ProblemError
from followers.api.schema import ALERT_ID, PAGED, answered, problems
from followers.mongo import Position, collection, durably, older_than
from notifications import inbox
from notifications.api.examples import ENTRY, PAYLOAD
from notifications.api.views import ENTRY_ID, FollowerView
from notifications.choices import Reason
from notifications.explained import explained
from notifications.models import Notification
from notifications.rendering import content_of

Document = dict[str, Any]

DELIVERY = {
    "channel": "fcm", "label": "Firebase push (FCM)", "state": "delivered", "reason": "", "words": "It arrived.",
    "sent_at": "2026-11-21T09:15:00.402Z", "delivered_at": "2026-11-21T09:15:01.180Z",
}  # fmt: skip
ALERT: Document = {
    "id": ALERT_ID, "kind": "trade_alert", "created_at": ENTRY["created_at"], "expires_at": ENTRY["expires_at"],
    "title": PAYLOAD["title"], "body": PAYLOAD["body"], "payload": PAYLOAD, "in_inbox": True,
    "explanation": {
        "summary": "The trader bought 50. Your portfolio is a tenth of the trader's, so your share is 5.",
        "steps": [
            {"label": "The trader's quantity", "value": "50"},
            {"label": "Your portfolio to the trader's", "value": "× 0.1"},
            {"label": "Your quantity", "value": "5"},
        ],
    },
    "deliveries": [DELIVERY],
}  # fmt: skip
NOT_SENT: Document = {
    "id": ALERT_ID, "created_at": ENTRY["created_at"], "title": PAYLOAD["title"], "why": BY_REASON[Reason.QUIET_HOURS],
    "deliveries": [{**DELIVERY, "state": "skipped", "reason": "quiet_hours", "words": BY_REASON[Reason.QUIET_HOURS],
                    "sent_at": None, "delivered_at": None}],
}  # fmt: skip
NEWEST_OF_FOLLOWER = [("follower_id", 1), ("created_at", -1), ("_id", -1)]


class MyAlertView(FollowerView):
    @extend_schema(
        operation_id="inbox_entry",
        tags=["Inbox"],
        summary="Show an alert",
        description="Why this quantity, in words and step by step by the follower's own figures, and what became of "
        "the alert on each channel. Also of one that has left the inbox, or was never in it.",
        parameters=[ENTRY_ID],
        responses={200: serializers.MyAlertSerializer, **problems(404)},
        examples=[answered("A trade", ALERT)],
    )
    def get(self, request: Request, entry_id: str) -> Response:
        me = request.user.follower_id
        query = {"_id": ObjectId(entry_id), "follower_id": me}
        alert = durably(lambda: collection(Notification).find_one(query))
        if alert is None:
            raise ProblemError(ErrorCode.NOT_FOUND)
        content = content_of(alert)
        return Response(
            {
                "id": str(alert["_id"]),
                "kind": alert["kind"],
                "created_at": clock.as_utc(alert["created_at"]),
                "expires_at": clock.as_utc(alert["expires_at"]),
                "title": content.title,
                "body": content.body,
                "payload": content.payload,
                "in_inbox": bool(inbox.entries(me, [alert["_id"]], clock.now())),
                "explanation": explained(alert),
                "deliveries": told(alert["deliveries"]),
            }
        )


class NotSentView(FollowerView):
    @extend_schema(
        operation_id="not_sent",
        tags=["Follower"],
        summary="List what was not sent to me",
        description="And why; the newest first. For a page where a person finds out what their own settings, or a "
        "device that is gone, have kept from them.",
        parameters=[*PAGED],
        responses={200: serializers.NotSentPageSerializer, **problems(400)},
        examples=[answered("Quiet hours", {"next": None, "results": [NOT_SENT]})],
    )
    def get(self, request: Request) -> Response:
        limit = cursors.limit_of(request)
        rows = not_sent(request.user.follower_id, cursors.position_of(request), limit + 1)
        return Response(cursors.page(request, rows, limit, [_not_sent(row) for row in rows]))


def not_sent(follower_id: ObjectId, after: Position | None, limit: int) -> list[Document]:
    """A follower's alerts of which something did not reach them.

    Index: notifications_notification (follower_id, created_at, _id); it reads one follower's alerts and no others.
    """
    query: Document = {
        "follower_id": follower_id,
        "$or": [
            {"deliveries.state": {"$in": [state.value for state in NOT_SENT_STATES]}},
            {"sizing.reason": {"$gt": ""}},
        ],
    }
    wanted = {"$and": [query, older_than(after)]}

    def read() -> list[Document]:
        found = collection(Notification).find(wanted, hint=NEWEST_OF_FOLLOWER)
        return list(found.sort([("created_at", -1), ("_id", -1)]).limit(limit))

    return durably(read)


def _not_sent(alert: Document) -> Document:
    unsent = [d for d in alert["deliveries"] if d["state"] in NOT_SENT_STATES]
    reasons = {d["error_code"] for d in unsent} if len(unsent) == len(alert["deliveries"]) else set()
    code = (alert["sizing"] or {}).get("reason") or (reasons.pop() if len(reasons) == 1 else "")
    return {
        "id": str(alert["_id"]),
        "created_at": clock.as_utc(alert["created_at"]),
        "title": content_of(alert).title,
        "why": BY_REASON.get(code, ""),
        "deliveries": told(unsent),
    }
