"""Each list's query, as the admin builds it, is answered by an index: no collection scan, and no sort of everything."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bson import ObjectId
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test import Client, RequestFactory
from django.urls import resolve, reverse
from pymongo.errors import OperationFailure

from bench.visits import in_words, statements_of
from delivery.models import Batch, ReviewItem
from followers import clock
from followers.indexes import create_index
from followers.models import Endpoint, Follow, Follower, Trader
from followers.mongo import collection
from notifications.admin import first_to_wake
from notifications.admin_tables import outcome_counts
from notifications.models import InAppEntry, Notification, RejectedEvent, TradeEvent
from notifications.reviews import open_reviews
from notifications.statements import derive
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
        (Notification, {"event__id__exact": "{event}"}, "event_id_1_state_1__id_-1"),
        (Notification, {"event__id__exact": "{event}", "state": "delivered"}, "event_id_1_state_1__id_-1"),
        (Notification, {"q": "F-1"}, "follower_id_1_created_at_-1__id_-1"),
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


@pytest.mark.parametrize("model", [Follow, Endpoint, Notification, InAppEntry, TradeEvent, ReviewItem])
def test_no_statement_of_a_list_or_a_page_reads_everybody(model: Any, admin_client: Client) -> None:
    """The related rows, too: as MongoDB itself saw them."""
    world = build_world()
    fill_bucket(world)
    row = {Follow: world.follow, Endpoint: world.endpoint, InAppEntry: world.entry, TradeEvent: world.event}
    pk = row.get(model, world.notification).pk
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}"

    def look() -> None:
        assert admin_client.get(reverse(f"{name}_changelist")).status_code == 200
        page = admin_client.get(reverse(f"{name}_change", args=[pk])).content.decode()
        assert "F-1" in page or model is TradeEvent

    seen = [in_words(entry) for entry in statements_of(look)]
    assert any("IXSCAN" in words for words in seen)
    assert not [words for words in seen if "COLLSCAN" in words]


# --- The review bucket ------------------------------------------------------------------------------------------------
def fill_bucket(world: World) -> None:
    """Many open items of other people, and the world's own: failed on FCM."""
    document = collection(Notification).find_one({"_id": world.notification.pk})
    assert document is not None
    ours = {**document["deliveries"][1], "state": "failed", "error_code": "http_503", "next_attempt_at": None}
    theirs = {**ours, "channel": "sms", "error_code": "21612", "attempt_log": []}
    others = {"event_id": ObjectId(), "trader_id": ObjectId(), "follower_id": ObjectId(), "deliveries": [theirs]}
    collection(Notification).insert_many({**document, **others, "_id": ObjectId()} for _ in range(300))
    collection(Notification).update_one({"_id": world.notification.pk}, {"$set": {"deliveries": [ours]}})
    collection(Notification).update_many({}, derive())
    somebody = {"_id": {"$ne": world.notification.pk}}
    collection(Notification).update_many(somebody, {"$set": {"review.assignee": "ben"}})
    assert open_reviews() == 301


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ({}, "review.open_1_review.opened_at_-1__id_-1"),
        ({"state": "resolved"}, "review.open_1_"),
        ({"state": "all"}, "review.open_1_review.opened_at_-1__id_-1"),
        ({"age": "hour"}, "review.open_1_review.opened_at_-1__id_-1"),
        ({"age": "week"}, "review.open_1_review.opened_at_-1__id_-1"),
        ({"channel": "fcm"}, "review.open_1_review.channels_1_review.opened_at_-1__id_-1"),
        ({"code": "fcm:http_503"}, "review.open_1_review.codes_1_review.opened_at_-1__id_-1"),
        ({"channel": "fcm", "code": "fcm:http_503"}, "review.open_1_review.c"),
        ({"trader": "T-17"}, "review.open_1_trader_id_1_review.opened_at_-1__id_-1"),
        ({"assignee": "nobody"}, "review.open_1_review.assignee_1_review.opened_at_-1__id_-1"),
        ({"q": "http_503"}, "review.open_1_review.codes_1_review.opened_at_-1__id_-1"),
    ],
)
def test_the_review_bucket_walks_an_index_in_its_own_order(query: dict[str, str], index: str) -> None:
    fill_bucket(build_world())
    plan = winning_plan(ReviewItem, query)
    assert "COLLSCAN" not in plan
    assert index in plan
    assert '"SORT"' not in plan  # SORT_MERGE joins what is in order already.


@pytest.mark.parametrize(
    ("query", "index"), [({"q": "F-1"}, "follower_id_1_created_at_-1__id_-1"), ({"q": "{alert}"}, "_id_")]
)
def test_a_search_in_the_review_bucket_sorts_one_persons_alerts_at_most(query: dict[str, str], index: str) -> None:
    world = build_world()
    fill_bucket(world)
    plan = winning_plan(
        ReviewItem, {name: v.replace("{alert}", str(world.notification.pk)) for name, v in query.items()}
    )
    assert "COLLSCAN" not in plan
    assert index in plan


def test_open_reviews_are_counted_from_an_index() -> None:
    fill_bucket(build_world())
    pipeline = [{"$match": {"review.open": True}}, {"$group": {"_id": 1, "n": {"$sum": 1}}}]  # As count_documents does.
    command = {"aggregate": "notifications_notification", "pipeline": pipeline, "cursor": {}}
    database: Any = connection
    explained = database.database.command({"explain": command, "verbosity": "queryPlanner"})
    plan = str(_plans(explained))
    assert "review.open_1_" in plan
    assert "COLLSCAN" not in plan


@pytest.mark.parametrize("model", [ReviewItem, Endpoint, User])
def test_an_objects_history_is_read_by_its_index_and_without_a_join(model: type) -> None:
    kind = ContentType.objects.get_for_model(model, for_concrete_model=False)
    # As django.contrib.admin.options builds it.
    entries = LogEntry.objects.filter(object_id="x", content_type=kind).select_related().order_by("action_time")
    request = RequestFactory().get(reverse("admin:index"))
    page: Any = admin.site._registry[model]
    explained = json.loads(page.get_paginator(request, entries, 100).object_list.explain())
    plan = json.dumps([_plans(explained), _sort_stages(explained)])
    assert "object_id_1_action_time_-1" in plan
    assert '"SORT"' not in plan
    assert "$lookup" not in json.dumps(explained)


def test_what_was_decided_is_found_by_the_item() -> None:
    database: Any = connection
    find = {"find": "django_admin_log", "filter": {"object_id": "x"}, "sort": {"action_time": -1}, "limit": 50}
    plan = str(_plans(database.database.command({"explain": find, "verbosity": "queryPlanner"})))
    assert "object_id_1_action_time_-1" in plan
    assert "SORT" not in plan


def test_pending_alerts_are_found_by_their_wake_up() -> None:
    world = build_world()
    add_others(world)
    assert first_to_wake() == [world.notification.pk]
    collection(Notification).drop_index("priority_1_wake_at_1")
    try:
        with pytest.raises(OperationFailure, match="hint"):  # It relies on that index, and on no other.
            first_to_wake()
    finally:
        create_index(
            connection.schema_editor(), "notifications_notification", [("priority", 1), ("wake_at", 1)], **PARTIAL
        )


def test_outcomes_are_counted_from_the_index_alone() -> None:
    world = build_world()
    pipeline = [{"$match": {"event_id": world.event.pk}}, {"$group": {"_id": "$state", "count": {"$sum": 1}}}]
    command = {
        "aggregate": "notifications_notification", "pipeline": pipeline, "cursor": {},
        "hint": {"event_id": 1, "state": 1, "_id": -1},
    }  # fmt: skip
    database: Any = connection
    explained = database.database.command({"explain": command, "verbosity": "queryPlanner"})
    assert "FETCH" not in str(_plans(explained))
    assert outcome_counts(world.event.pk) == {"pending": 1}
