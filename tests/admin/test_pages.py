"""Every page of the admin opens on real rows, shows no whole address, and what is for reading only stays so."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import reverse

from delivery.models import Batch
from followers.models import Endpoint, Follow, Follower, Trader
from notifications.models import InAppEntry, Notification, RejectedEvent, TradeEvent
from tests.admin.builders import ADDRESS, EVENT_ID, MASKED, World, build_world

pytestmark = pytest.mark.django_db(transaction=True)

PAGES = {
    "trader": Trader,
    "follower": Follower,
    "follow": Follow,
    "endpoint": Endpoint,
    "community": Endpoint,
    "event": TradeEvent,
    "notification": Notification,
    "entry": InAppEntry,
    "rejected": RejectedEvent,
    "batch": Batch,
}
READ_ONLY = (TradeEvent, RejectedEvent, Notification, InAppEntry, Batch)


@pytest.fixture
def world() -> World:
    return build_world()


def url(model: Any, page: str, *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


def text(client: Client, path: str, query: dict[str, str] | None = None) -> str:
    response = client.get(path, query or {})
    assert response.status_code == 200, path
    return response.content.decode()


@pytest.mark.parametrize("name", PAGES)
def test_list_and_detail_open_and_mask_addresses(admin_client: Client, world: World, name: str) -> None:
    model, row = PAGES[name], getattr(world, name)
    listed = text(admin_client, url(model, "changelist"))
    assert str(row.pk) in listed
    detail = text(admin_client, url(model, "change", row.pk))
    for page in (listed, detail):
        assert ADDRESS not in page
        assert "secret-webhook-token" not in page


@pytest.mark.parametrize("name", ["endpoint", "follower", "notification"])
def test_an_address_is_shown_masked(admin_client: Client, world: World, name: str) -> None:
    row = getattr(world, name)
    assert MASKED in text(admin_client, url(PAGES[name], "change", row.pk))


@pytest.mark.parametrize("model", READ_ONLY)
def test_what_the_pipeline_wrote_can_be_neither_added_nor_changed_nor_deleted(
    admin_client: Client, world: World, model: type
) -> None:
    row = model.objects.first()  # type: ignore[attr-defined]
    assert admin_client.get(url(model, "add")).status_code == 403
    assert admin_client.post(url(model, "change", row.pk), {}).status_code == 403
    assert admin_client.post(url(model, "delete", row.pk), {"post": "yes"}).status_code == 403
    assert model.objects.filter(pk=row.pk).exists()  # type: ignore[attr-defined]


def test_an_alert_explains_its_sizing_and_its_attempts(admin_client: Client, world: World) -> None:
    page = text(admin_client, url(Notification, "change", world.notification.pk))
    assert "50 × 10,000 / 100,000 × 1, rounded down to steps of 1; the ratio is 0.1." in page
    assert "Result: 5 at 2,945.5 INR, worth 14,727.5 INR." in page
    assert "UNAVAILABLE" in page
    assert "31.4 ms" in page
    assert url(TradeEvent, "change", world.event.pk) in page
    assert url(Follower, "change", world.follower.pk) in page


def test_an_event_counts_its_outcomes_and_leads_to_its_alerts(admin_client: Client, world: World) -> None:
    page = text(admin_client, url(TradeEvent, "change", world.event.pk))
    query = f"{url(Notification, 'changelist')}?event__id__exact={world.event.pk}"
    assert f"{query}&amp;state=pending" in page
    assert str(world.notification.pk) in text(admin_client, query)


def test_a_rejected_message_is_shown_with_replacements(admin_client: Client, world: World) -> None:
    page = text(admin_client, url(RejectedEvent, "change", world.rejected.pk))
    assert "&quot;eventId&quot;: �" in page


@pytest.mark.parametrize(
    ("model", "term", "finds"),
    [
        (Trader, "T-1", True),
        (Trader, "-17", False),
        (Follower, "F-1", True),
        (Follow, "F-1", True),
        (Follow, "T-17", True),
        (Follow, "F-2", False),
        (Endpoint, "F-1", True),
        (Endpoint, "F-2", False),
        (TradeEvent, EVENT_ID, True),
        (TradeEvent, "c-1", True),
        (TradeEvent, "T-17", True),
        (TradeEvent, "T-1", False),
        (Notification, "F-1", True),
        (Notification, EVENT_ID, True),
        (Notification, "F-2", False),
        (InAppEntry, "F-1", True),
        (InAppEntry, "F-2", False),
    ],
)
def test_a_search_looks_ids_up(admin_client: Client, world: World, model: type, term: str, finds: bool) -> None:
    response = admin_client.get(url(model, "changelist"), {"q": term})
    assert response.status_code == 200
    assert bool(len(response.context["cl"].result_list)) is finds


@pytest.mark.parametrize(
    ("model", "query", "finds"),
    [
        (Notification, {"state": "pending"}, True),
        (Notification, {"state": "failed"}, False),
        (Notification, {"state": "delivered"}, False),
        (Notification, {"priority": "high"}, True),
        (Notification, {"priority": "normal"}, False),
        (Notification, {"state": "pending", "priority": "high"}, True),
        (TradeEvent, {"state": "pending"}, True),
        (TradeEvent, {"state": "failed"}, False),
        (RejectedEvent, {"code": "bad_utf8", "replayed": "no"}, True),
        (RejectedEvent, {"replayed": "yes"}, False),
        (Endpoint, {"channel": "fcm", "active": "1"}, True),
        (Endpoint, {"active": "0"}, False),
        (Batch, {"state": "open"}, True),
        (Batch, {"state": "finished"}, False),
        (Batch, {"state": "failed"}, False),
    ],
)
def test_a_filter_narrows_the_list(
    admin_client: Client, world: World, model: type, query: dict[str, str], finds: bool
) -> None:
    response = admin_client.get(url(model, "changelist"), query)
    assert response.status_code == 200
    assert bool(len(response.context["cl"].result_list)) is finds


def test_an_address_whose_key_is_gone_does_not_fail_the_list(admin_client: Client, world: World, settings: Any) -> None:
    settings.ENDPOINT_ENCRYPTION_KEYS = [b"\x01" * 32]
    assert "unreadable" in text(admin_client, url(Endpoint, "changelist"))
    response = admin_client.get(url(Endpoint, "change", world.endpoint.pk), follow=True)
    assert "ENDPOINT_ENCRYPTION_KEYS" in response.content.decode()
    assert "unreadable" in text(admin_client, url(Follower, "change", world.follower.pk))


def test_the_front_page_and_the_staff_pages_open(admin_client: Client, admin_user: Any) -> None:
    front = text(admin_client, reverse("admin:index"))
    assert "NotifyHub" in front
    assert reverse("admin:delivery_batch_changelist") in front
    text(admin_client, reverse("admin:auth_user_changelist"))
    text(admin_client, reverse("admin:auth_user_change", args=[admin_user.pk]))


def test_staff_without_rights_see_nothing(client: Client, world: World, django_user_model: Any) -> None:
    client.force_login(django_user_model.objects.create_user("visitor", password="x", is_staff=True))
    for model in PAGES.values():
        assert client.get(url(model, "changelist")).status_code == 403


def test_every_list_follows_an_index(admin_client: Client) -> None:
    """No list may sort by a column or join a collection: both read everything."""
    for model in set(PAGES.values()):
        page = admin.site._registry[model]
        assert page.sortable_by == ()
        assert page.list_select_related == ()
        assert page.show_full_result_count is False
