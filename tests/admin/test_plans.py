"""Each list's query, as the admin builds it, is answered by an index: no collection scan, and no sort of everything."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bson import ObjectId
from django.contrib import admin
from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.test import RequestFactory
from django.urls import resolve, reverse
from pymongo.errors import OperationFailure

from delivery.models import Batch
from followers import clock
from followers.indexes import create_index
from followers.models import Endpoint, Follow, Follower, Trader
from followers.mongo import collection
from notifications.admin import newest_pending
from notifications.admin_tables import outcome_counts
from notifications.models import InAppEntry, Notification, RejectedEvent, TradeEvent
from tests.admin.builders import EVENT_ID, World, build_world

pytestmark = pytest.mark.django_db(transaction=True)

PARTIAL: dict[str, Any] = {"partialFilterExpression": {"wake_at": {"$type": "date"}}}


def add_others(world: World) -> None:
    """Newer rows of other people and trades, so that an index is worth more than a walk through the newest."""
    for model, row, fields in (
        (Notification, world.notification, {"state": "delivered", "wake_at": None}),
        (InAppEntry, world.entry, {}),
        (Batch, world.batch, {"finished_at": clock.now(), "next_look_at": None}),
        (Endpoint, world.endpoint, {"channel": "apns"}),
    ):
        document = collection(model).find_one({"_id": row.pk})
        assert document is not None
        collection(model).insert_many(
            {
                **document,
                "_id": ObjectId(),
                "event_id": ObjectId(),
                "follower_id": ObjectId(),
                "address_hash": str(n),
                **fields,
            }
            for n in range(300)
        )


class _Everybody(AnonymousUser):
    is_staff = is_active = True  # type: ignore[assignment]

    def has_perm(self, *args: Any) -> bool:  # type: ignore[override]
        return True


def winning_plan(model: type, query: dict[str, str]) -> str:
    """The plan of the list's page query, as JSON."""
    options = model._meta  # type: ignore[attr-defined]
    path = reverse(f"admin:{options.app_label}_{options.model_name}_changelist")
    request = RequestFactory().get(path, query)
    request.user = _Everybody()
    request.resolver_match = resolve(path)
    page = admin.site._registry[model].get_changelist_instance(request)
    rows = page.get_queryset(request)[:50]
    explained = json.loads(rows.explain())
    return json.dumps([_plans(explained), _sort_stages(explained)])


def _plans(node: Any) -> list[Any]:
    """Every winningPlan in an explain, wherever the server version puts it."""
    if isinstance(node, dict):
        found = [node["winningPlan"]] if "winningPlan" in node else []
        return found + [p for key, value in node.items() if key != "winningPlan" for p in _plans(value)]
    return [p for item in node for p in _plans(item)] if isinstance(node, list) else []


def _sort_stages(explained: dict[str, Any]) -> list[dict[str, str]]:
    """Sorts that the aggregation does itself, outside the plan: these read everything that was found."""
    return [{"stage": "SORT"} for stage in explained.get("stages", []) if "$sort" in stage]


@pytest.mark.parametrize(
    "model", [Trader, Follower, Follow, Endpoint, TradeEvent, RejectedEvent, Notification, InAppEntry, Batch]
)
def test_a_whole_list_walks_an_index(model: type) -> None:
    build_world()
    plan = winning_plan(model, {})
    assert "IXSCAN" in plan
    assert "COLLSCAN" not in plan
    assert '"SORT"' not in plan


@pytest.mark.parametrize(
    ("model", "query", "index"),
    [
        (Follow, {"trader__id__exact": "{trader}"}, "trader_id"),
        (Endpoint, {"channel": "fcm"}, "channel_1__id_-1"),
        (Endpoint, {"active": "0"}, "active_1_channel_1__id_-1"),
        (TradeEvent, {"state": "failed"}, "state_1_received_at_-1__id_-1"),
        (TradeEvent, {"q": EVENT_ID}, "_id_"),
        (RejectedEvent, {"code": "bad_json"}, "code_1__id_-1"),
        (RejectedEvent, {"replayed": "no"}, "replayed_at_1__id_-1"),
        (Notification, {"state": "failed"}, "state_1__id_-1"),
        (Notification, {"state": "pending"}, "_id_"),
        (Notification, {"state": "delivered"}, "_id_"),
        (Notification, {"priority": "critical"}, "_id_"),
        (Notification, {"event__id__exact": "{event}", "state": "delivered"}, "event_id_1_state_1"),
        (Notification, {"q": "F-1"}, "follower_id_1_created_at_-1"),
        (InAppEntry, {"q": "F-1"}, "follower_id_1_created_at_-1__id_-1"),
        (Batch, {"state": "open"}, "finished_at_1"),
        (Trader, {"q": "T-1"}, "external_id"),
    ],
)
def test_a_filter_or_a_search_uses_its_index(model: type, query: dict[str, str], index: str) -> None:
    world: World = build_world()
    add_others(world)
    ids = {"{trader}": str(world.trader.pk), "{event}": str(world.event.pk)}
    plan = winning_plan(model, {name: ids.get(value, value) for name, value in query.items()})
    assert "COLLSCAN" not in plan
    assert index in plan


def test_pending_alerts_are_found_by_their_wake_up() -> None:
    world = build_world()
    add_others(world)
    assert newest_pending() == [world.notification.pk]
    collection(Notification).drop_index("priority_1_wake_at_1")
    try:
        with pytest.raises(OperationFailure, match="hint"):  # It relies on that index, and on no other.
            newest_pending()
    finally:
        create_index(
            connection.schema_editor(), "notifications_notification", [("priority", 1), ("wake_at", 1)], **PARTIAL
        )


def test_outcomes_are_counted_from_the_index_alone() -> None:
    world = build_world()
    pipeline = [{"$match": {"event_id": world.event.pk}}, {"$group": {"_id": "$state", "count": {"$sum": 1}}}]
    command = {
        "aggregate": "notifications_notification", "pipeline": pipeline, "cursor": {},
        "hint": {"event_id": 1, "state": 1},
    }  # fmt: skip
    database: Any = connection
    explained = database.database.command({"explain": command, "verbosity": "queryPlanner"})
    assert "FETCH" not in str(_plans(explained))
    assert outcome_counts(world.event.pk) == {"pending": 1}
