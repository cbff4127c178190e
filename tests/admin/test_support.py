"""What support can ask, see and do, whom the groups let do it, and what every change leaves in the history."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from delivery.breakers import breaker_id, ensure_breakers
from delivery.models import Breaker
from delivery.why_not import Cause, why
from devstack.vendors.client import Sandbox
from followers import clock
from followers.models import Endpoint, Follow, Follower, ServiceKey
from followers.mongo import collection
from followers.preferences import DEFAULT, parse
from followers.preferences_words import in_words
from notifications import admin_outcomes, admin_tables
from notifications.admin_outcomes import outcomes_by_channel
from notifications.models import Notification, TradeEvent, Update
from tests.admin.builders import ADDRESS, EVENT_ID, MASKED, World, build_event, build_world
from tests.admin.scenes import NUMBER, follower_scene, make_groups, member
from tests.admin.test_actions import run
from tests.admin.test_pages import text, url
from tests.pipeline.test_updates import fan_out as fan_out_updates
from tests.pipeline.world import deliver_all, entries, make_follower, make_trader, states

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def support(client: Client) -> Client:
    client.force_login(member("Support"))
    return client


@pytest.fixture
def world() -> World:
    return build_world()


# --- A follower's page ------------------------------------------------------------------------------------------------
def test_one_page_says_everything_about_a_follower(support: Client) -> None:
    page = text(support, url(Follower, "change", follower_scene().pk))
    for words in (
        "BUY MRF (OPEN)",
        "smaller than the smallest quantity",  # A whole alert, skipped.
        "SMS: It was not delivered. The provider is in trouble.",
        "SMS: It was not sent. It is the follower&#x27;s quiet hours.",
        "Wait a few minutes, and retry what is still valid.",  # What can be done about it.
        "Unregistered",  # Why an address is off.
        "Critical alerts only: Discord.",
        "T-4",
        "Deactivate…",
        "Reactivate…",
    ):
        assert words in page, words
    assert MASKED in page
    assert ADDRESS not in page
    assert NUMBER not in page


def test_a_follower_is_found_by_the_whole_id_or_its_beginning(support: Client) -> None:
    follower = follower_scene()
    for term in ("F-17", "F-1"):
        assert url(Follower, "change", follower.pk) in text(support, url(Follower, "changelist"), {"q": term})


def test_the_page_answers_what_became_of_a_trade(support: Client) -> None:
    page = text(support, url(Follower, "change", follower_scene().pk), {"trade": "E-INFY"})
    assert 'id="answer"' in page
    assert "<p>SMS: It was not delivered. The provider is in trouble.</p>" in page


@pytest.mark.parametrize(
    ("event", "follow", "cause"),
    [
        ({}, {}, Cause.UNDER_WAY),
        ({"state": "failed"}, {}, Cause.FAN_OUT_FAILED),
        ({"state": "expired"}, {}, Cause.TOO_OLD),
        ({"state": "done"}, {}, Cause.MISSING),
        ({"state": "done", "alerts_pruned_at": True}, {}, Cause.REMOVED),
        ({"trader": None}, {}, Cause.UNKNOWN_TRADER),
        ({"state": "done"}, {"since": timedelta(hours=1)}, Cause.FOLLOWED_LATER),
        ({"state": "done"}, {"ended_at": -timedelta(hours=1)}, Cause.FOLLOWED_NO_MORE),
        ({"state": "done"}, None, Cause.NEVER_FOLLOWED),
    ],
)
def test_why_there_is_no_alert(world: World, event: Any, follow: Any, cause: Cause) -> None:
    now = clock.now()
    fields: dict[str, Any] = {name: now if value is True else value for name, value in event.items()}
    build_event(fields.pop("trader", world.trader), "E-2", **fields)
    if follow is None:
        Follow.objects.all().delete()
    else:
        Follow.objects.update(**{"since": now - timedelta(days=1)} | {name: now + gap for name, gap in follow.items()})
    assert why(world.follower, "E-2").cause is cause


def test_an_alert_is_found_by_event_correlation_and_its_own_id(world: World) -> None:
    alert = world.notification
    for term in (EVENT_ID, "c-1"):
        assert why(world.follower, term).event == world.event.pk
    assert why(world.follower, str(alert.pk)).event == world.event.pk
    assert why(world.follower, "E-nothing").cause is Cause.NO_TRADE


def test_preferences_are_told_in_words() -> None:
    assert in_words(DEFAULT) == ["Nothing special: every alert, on every channel, at any hour."]
    wishes = parse({
        "channels": {"sms": "off"}, "muted_traders": ["T-9"], "sms_at_night": False,
        "quiet_hours": {"start": "22:00", "end": "07:00", "days": ["sat", "sun"]},
        "min_value": {"amount": "500", "currency": "INR"},
    })  # fmt: skip
    assert in_words(wishes) == [
        "Switched off: SMS.",
        "Muted: T-9; their exits come all the same.",
        "Quiet hours: 22:00 to 07:00, Sat, Sun, in their own time zone.",
        "No SMS at night.",
        "Exits come at any hour.",
        "Entries only if their order is worth at least 500 INR.",
    ]


# --- Switching endpoints ----------------------------------------------------------------------------------------------
def test_an_endpoint_is_switched_with_a_reason_and_back_to_the_follower(support: Client, world: World) -> None:
    switch = reverse("admin:followers_endpoint_switch", args=[world.endpoint.pk])
    back = url(Follower, "change", world.follower.pk)
    assert "Nothing more is sent to this address" in text(support, switch, {"back": back})
    response = support.post(switch, {"reason": "lost phone", "back": back})
    assert response["Location"] == back
    assert not Endpoint.objects.get(pk=world.endpoint.pk).active
    support.post(switch, {"reason": "found it"})
    assert Endpoint.objects.get(pk=world.endpoint.pk).active
    log = LogEntry.objects.filter(object_id=str(world.endpoint.pk)).order_by("pk")
    assert [(e.user.get_username(), e.change_message) for e in log] == [
        ("mira", "Deactivated: lost phone"), ("mira", "Activated: found it"),
    ]  # fmt: skip


def test_what_was_to_be_deactivated_is_not_switched_on_because_a_vendor_was_faster(
    support: Client, world: World
) -> None:
    switch = reverse("admin:followers_endpoint_switch", args=[world.endpoint.pk])
    assert 'name="wanted" value="inactive"' in text(support, switch)
    Endpoint.objects.filter(pk=world.endpoint.pk).update(active=False, deactivated_reason="BadDeviceToken")
    support.post(switch, {"reason": "lost phone", "wanted": "inactive"})
    endpoint = Endpoint.objects.get(pk=world.endpoint.pk)
    assert (endpoint.active, endpoint.deactivated_reason) == (False, "lost phone")


def test_a_switch_needs_a_reason_and_leads_to_no_other_site(support: Client, world: World) -> None:
    switch = reverse("admin:followers_endpoint_switch", args=[world.endpoint.pk])
    assert support.post(switch, {"reason": " "}).status_code == 200
    assert Endpoint.objects.get(pk=world.endpoint.pk).active
    away = support.post(switch, {"reason": "x", "back": "https://evil.example/"})
    assert away["Location"] == url(Endpoint, "change", world.endpoint.pk)


def test_without_the_permission_nothing_is_switched(client: Client, world: World, django_user_model: Any) -> None:
    viewer = django_user_model.objects.create_user("viewer", password="x", is_staff=True)
    viewer.user_permissions.add(*Permission.objects.filter(codename__in=["view_endpoint", "view_follower"]))
    client.force_login(viewer)
    assert client.post(reverse("admin:followers_endpoint_switch", args=[world.endpoint.pk])).status_code == 403
    assert "Deactivate…" not in text(client, url(Follower, "change", world.follower.pk))


# --- A test alert -----------------------------------------------------------------------------------------------------
def test_a_test_alert_goes_to_one_follower_and_stands_in_the_history(
    support: Client, transactional_db: None, vendors: Sandbox
) -> None:
    trader = make_trader()
    follower, other = make_follower(trader, "fcm", "sms"), make_follower(trader, "fcm")
    ask = reverse("admin:followers_follower_test_alert", args=[follower.pk])
    page = url(Follower, "change", follower.pk)
    assert ask in text(support, page)
    assert "Send a test alert" in text(support, ask)

    response = support.post(ask, {"reason": "hears nothing since Monday"})
    fan_out_updates()
    deliver_all()

    assert response["Location"] == page
    update = Update.objects.get()
    assert (update.is_test, update.published_by, update.follower_ids) == (True, "mira", [follower.pk])
    (alert,) = collection(Notification).find({"event_id": update.pk})
    assert (alert["follower_id"], states(alert)) == (follower.pk, {"in_app": "sent", "fcm": "sent", "sms": "sent"})
    assert [entry["payload"]["test"] for entry in entries(follower)] == ["true"]
    assert entries(other) == []
    log = LogEntry.objects.get(object_id=str(follower.pk))
    assert (log.user.get_username(), log.change_message) == ("mira", "Sent a test alert: hears nothing since Monday")
    told = text(support, page)
    assert "A test alert is on its way" in told
    assert told.count(url(Update, "change", update.pk)) == 2  # In the message, and among the last alerts.
    assert "what became of it" not in text(support, page)


def test_a_test_alert_needs_a_reason_and_the_permission(support: Client, world: World, django_user_model: Any) -> None:
    ask = reverse("admin:followers_follower_test_alert", args=[world.follower.pk])
    assert support.post(ask, {"reason": " "}).status_code == 200
    gone = reverse("admin:followers_follower_test_alert", args=[ObjectId()])
    assert support.post(gone, {"reason": "x"}).status_code == 404
    viewer = django_user_model.objects.create_user("viewer", password="x", is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_follower"))
    support.force_login(viewer)
    assert support.post(ask, {"reason": "x"}).status_code == 403
    assert ask not in text(support, url(Follower, "change", world.follower.pk))
    assert not Update.objects.exists()


# --- A trade's page ---------------------------------------------------------------------------------------------------
def test_a_trade_shows_its_progress_and_its_deliveries_by_channel(
    support: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    TradeEvent.objects.filter(pk=world.event.pk).update(shards=4, shards_done=[0, 2], alerts_written=1200)
    counted: list[ObjectId] = []
    count = admin_tables.outcome_counts

    def noted(event_id: ObjectId) -> dict[str, int]:
        counted.append(event_id)
        return count(event_id)

    monkeypatch.setattr(admin_tables, "outcome_counts", noted)
    page = text(support, url(TradeEvent, "change", world.event.pk))
    assert counted == [world.event.pk]  # Once: of a large trade it takes a while.
    assert "2 of 4 shards done" in page
    assert "1,200 alerts written" in page
    found = outcomes_by_channel(world.event)
    assert found.counts == {("in_app", "sent"): 1, ("fcm", "queued"): 1}
    assert not found.is_estimate


def test_a_large_trade_is_projected_and_its_rare_states_are_exact(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_outcomes, "READ_PER_STATE", 10)
    alert = collection(Notification).find_one({"_id": world.notification.pk})
    assert alert is not None
    sent = [{**alert["deliveries"][1], "state": "sent"}]
    collection(Notification).insert_many(
        {**alert, "_id": type(alert["_id"])(), "state": "delivered", "deliveries": sent} for _ in range(40)
    )
    found = outcomes_by_channel(world.event)
    assert found.is_estimate
    assert (found.counts["fcm", "sent"], found.counts["fcm", "queued"]) == (40, 1)


# --- Groups and history -----------------------------------------------------------------------------------------------
def test_both_groups_are_made_where_there_is_nothing_yet_and_again() -> None:
    Permission.objects.all().delete()
    Group.objects.all().delete()
    try:
        for _ in range(2):
            make_groups()
            held = {g.name: set(g.permissions.values_list("codename", flat=True)) for g in Group.objects.all()}
            assert set(held) == {"Support", "Operator"}
            changing = {name: {p for p in codes if not p.startswith("view_")} for name, codes in held.items()}
            assert changing["Support"] == {"work_on_reviews", "switch_endpoint", "send_test_alert"}
            assert changing["Operator"] - changing["Support"] == {
                "change_breaker", "change_tradeevent", "change_rejectedevent", "change_update", "add_proofrun",
            }  # fmt: skip
            assert held["Operator"] > held["Support"]
            assert {"view_operations", "view_update"} <= held["Support"]
    finally:
        call_command("migrate", verbosity=0)  # Makes the permissions that other tests look for.


def test_a_forced_breaker_and_a_revoked_key_are_in_the_history(admin_client: Client) -> None:
    ensure_breakers({"sms": "AC1"})
    breaker = Breaker.objects.get(pk=breaker_id("sms", "AC1"))
    admin_client.post(url(Breaker, "change", breaker.pk), {"forced": "open", "note": "maintenance"})
    key = ServiceKey.objects.create(name="engine", prefix="abc", key_hash="x")
    run(admin_client, ServiceKey, "revoke", key, reason="leaked")
    log = {e.object_id: e.change_message for e in LogEntry.objects.all()}
    assert log == {str(breaker.pk): "Forced open: maintenance", str(key.pk): "Revoked: leaked"}
