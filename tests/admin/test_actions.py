"""What a person can do from the admin: endpoints off and on, a fan-out run again, rejected messages replayed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from delivery.models import Batch
from delivery.operations import rerun_fan_out
from delivery.statements import due_batches, shard_batch_id
from followers import clock
from followers.models import Endpoint, Follower
from notifications.models import RejectedEvent, TradeEvent
from tests.admin.builders import ADDRESS, World, build_event, build_rejected, build_world
from tests.notifications.builders import message

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def world() -> World:
    return build_world()


def run(client: Client, model: type, action: str, *rows: Any, **fields: str) -> list[str]:
    """Runs an action of a list on these rows; returns what the next page says."""
    options = model._meta  # type: ignore[attr-defined]
    path = reverse(f"admin:{options.app_label}_{options.model_name}_changelist")
    data = {"action": action, "_selected_action": [str(row.pk) for row in rows], **fields}
    response = client.post(path, data, follow=True)
    assert response.status_code == 200
    return [str(m) for m in response.context["messages"]]


# --- Endpoints -------------------------------------------------------------------------------------------------------
def test_an_endpoint_is_deactivated_and_activated_with_a_reason(admin_client: Client, world: World) -> None:
    run(admin_client, Endpoint, "deactivate", world.endpoint, reason="lost phone")
    world.endpoint.refresh_from_db()
    assert (world.endpoint.active, world.endpoint.deactivated_reason) == (False, "lost phone")
    assert world.endpoint.deactivated_at is not None

    run(admin_client, Endpoint, "activate", world.endpoint, reason="found it")
    world.endpoint.refresh_from_db()
    assert (world.endpoint.active, world.endpoint.deactivated_reason) == (True, "")
    assert world.endpoint.deactivated_at is None
    log = LogEntry.objects.filter(object_id=str(world.endpoint.pk)).order_by("action_time")
    assert [entry.change_message for entry in log] == ["Deactivated: lost phone", "Activated: found it"]
    assert not any(ADDRESS in entry.object_repr for entry in log)


def test_staff_deactivate_for_their_own_reason_what_a_vendor_called_dead(admin_client: Client, world: World) -> None:
    Endpoint.objects.filter(pk=world.endpoint.pk).update(active=False, deactivated_reason="BadDeviceToken")
    run(admin_client, Endpoint, "deactivate", world.endpoint, reason="its owner asked")
    world.endpoint.refresh_from_db()
    assert (world.endpoint.active, world.endpoint.deactivated_reason) == (False, "its owner asked")
    assert LogEntry.objects.get(object_id=str(world.endpoint.pk)).change_message == "Deactivated: its owner asked"


@pytest.mark.parametrize("action", ["deactivate", "activate"])
def test_without_a_reason_nothing_changes(admin_client: Client, world: World, action: str) -> None:
    Endpoint.objects.filter(pk=world.endpoint.pk).update(active=action == "deactivate")
    said = run(admin_client, Endpoint, action, world.endpoint, reason=" ")
    world.endpoint.refresh_from_db()
    assert world.endpoint.active is (action == "deactivate")
    assert said[0].startswith("Say why")


def add_endpoint(client: Client, follower: Follower, address: str) -> Any:
    data = {"follower": str(follower.pk), "channel": "sms", "address": address, "environment": "production"}
    return client.post(reverse("admin:followers_endpoint_add"), data, follow=True)


def test_an_endpoint_is_added_in_its_one_spelling(admin_client: Client, world: World) -> None:
    page = add_endpoint(admin_client, world.follower, "+1 (415) 555-0100").content.decode()
    assert Endpoint.objects.get(channel="sms").address == "+14155550100"
    assert "+14155550100" not in page


@pytest.mark.parametrize(("address", "complaint"), [("5550100", "E.164"), ("+1 415 555 0100", "registered already")])
def test_a_bad_or_taken_address_is_refused(admin_client: Client, world: World, address: str, complaint: str) -> None:
    Endpoint.objects.create(follower=world.follower, channel="sms", address="+14155550100")
    response = add_endpoint(admin_client, world.follower, address)
    assert complaint in response.content.decode()
    assert Endpoint.objects.filter(channel="sms").count() == 1


def test_a_changed_endpoint_keeps_its_address(admin_client: Client, world: World) -> None:
    path = reverse("admin:followers_endpoint_change", args=[world.endpoint.pk])
    admin_client.post(path, {"platform": "ios", "app": "com.example", "environment": "sandbox"})
    world.endpoint.refresh_from_db()
    assert (world.endpoint.platform, world.endpoint.environment) == ("ios", "sandbox")
    assert world.endpoint.address == ADDRESS


# --- Fan-out ---------------------------------------------------------------------------------------------------------
def given_up(shard: int, event: TradeEvent, **fields: Any) -> Batch:
    return Batch.objects.create(**{
        "id": shard_batch_id(event.external_id, shard), "kind": "fan_out", "priority": "high", "event": event.pk,
        "shard": shard, "created_at": clock.now(), "failures": 15, "error": "boom", **fields,
    })  # fmt: skip


def test_a_failed_fan_out_runs_again_without_its_finished_shards(admin_client: Client, world: World) -> None:
    now = clock.now()
    event = build_event(world.trader, "E-9", state="failed", shards=4, shards_done=[0])
    done = given_up(0, event, finished_at=now)
    failed = given_up(1, event)
    held = given_up(2, event, token="t", worker="w", lease_until=now + timedelta(seconds=30))  # Shard 3 is gone.

    said = run(admin_client, TradeEvent, "run_again", event)

    event.refresh_from_db()
    assert event.state == "pending"
    due = {b["_id"]: b for b in due_batches("high", clock.now() + timedelta(seconds=1), 100) if b["event"] == event.pk}
    assert set(due) == {failed.pk, shard_batch_id("E-9", 3)}
    assert all(b["token"] is None and b["failures"] == 1 for b in due.values())
    done.refresh_from_db()
    held.refresh_from_db()
    assert done.finished_at is not None
    assert held.token == "t"
    assert said == ["E-9: 2 shards run again within seconds."]


@pytest.mark.parametrize("state", ["done", "expired"])
def test_an_event_that_is_over_is_left_alone(world: World, state: str) -> None:
    event = build_event(world.trader, "E-9", state=state)
    assert rerun_fan_out(event.pk) == 0
    event.refresh_from_db()
    assert event.state == state
    assert not Batch.objects.filter(pk=shard_batch_id("E-9", 0)).exists()


def test_only_failed_events_are_run_again(admin_client: Client, world: World) -> None:
    assert run(admin_client, TradeEvent, "run_again", world.event) == ["None of the chosen trade events has failed."]


# --- Rejected messages -----------------------------------------------------------------------------------------------
def test_rejected_messages_are_replayed(admin_client: Client, world: World) -> None:
    good = build_rejected(2, message(), code="internal_error")
    said = run(admin_client, RejectedEvent, "replay", world.rejected, good)
    good.refresh_from_db()
    world.rejected.refresh_from_db()
    assert good.replayed_at is not None
    assert world.rejected.replayed_at is None
    assert said == ["1 taken in as events, 1 are still rejected."]


def test_what_was_replayed_is_not_replayed_again(admin_client: Client, world: World) -> None:
    RejectedEvent.objects.update(replayed_at=clock.now())
    assert run(admin_client, RejectedEvent, "replay", world.rejected) == [
        "All of the chosen messages were replayed before."
    ]


def test_actions_need_the_right_to_change(client: Client, world: World, django_user_model: Any) -> None:
    from django.contrib.auth.models import Permission

    viewer = django_user_model.objects.create_user("viewer", password="x", is_staff=True)
    for codename in ("view_tradeevent", "view_rejectedevent", "view_endpoint"):
        viewer.user_permissions.add(Permission.objects.get(codename=codename))
    client.force_login(viewer)
    event = build_event(world.trader, "E-9", state="failed")
    run(client, TradeEvent, "run_again", event)
    run(client, RejectedEvent, "replay", build_rejected(2, message()))
    run(client, Endpoint, "deactivate", world.endpoint, reason="x")
    event.refresh_from_db()
    world.endpoint.refresh_from_db()
    assert event.state == "failed"
    assert not RejectedEvent.objects.exclude(replayed_at=None).exists()
    assert world.endpoint.active
