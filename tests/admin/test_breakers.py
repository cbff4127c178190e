"""The pages of circuit breakers, and the gauges that show the same from outside."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import redis
from django.conf import settings as django_settings
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from delivery.breakers import breaker_id, ensure_breakers, force_breaker, forced_breakers, note_change
from delivery.choices import BreakerStatus
from delivery.guards.breaker import State, opened
from delivery.guards.shared import encoded, state_key
from delivery.models import Breaker, BreakerChange
from followers import clock
from notifications.telemetry import BREAKER_CHANGES

pytestmark = pytest.mark.django_db(transaction=True)
OPEN = opened(State(), 1_700_000_000.0, 40.0, "25 failed of 30 calls within 10 s")


@pytest.fixture
def breaker() -> Breaker:
    ensure_breakers({"fcm": "shop", "sms": "AC1"})
    return Breaker.objects.get(pk=breaker_id("fcm", "shop"))


@pytest.fixture
def is_open(breaker: Breaker) -> None:
    """FCM's breaker has opened, as the workers share it and as they noted it."""
    with redis.Redis.from_url(django_settings.REDIS_URL) as client:
        client.set(state_key("fcm:shop"), encoded(OPEN))
    note_change("fcm", "shop", State(), OPEN, "host:1")


def page(client: Client, breaker: Breaker) -> str:
    response = client.get(reverse("admin:delivery_breaker_change", args=[breaker.pk]))
    assert response.status_code == 200
    return response.content.decode()


def save(client: Client, breaker: Breaker, **fields: str) -> Any:
    return client.post(reverse("admin:delivery_breaker_change", args=[breaker.pk]), fields)


def test_the_list_shows_each_channels_state_and_reason(admin_client: Client, is_open: None) -> None:
    shown = admin_client.get(reverse("admin:delivery_breaker_changelist")).content.decode()
    assert "25 failed of 30 calls within 10 s" in shown
    assert "Firebase push (FCM)" in shown
    assert "SMS" in shown


def test_the_page_shows_its_history(admin_client: Client, breaker: Breaker, is_open: None) -> None:
    shown = page(admin_client, breaker)
    assert "host:1" in shown
    assert "14 Nov 2023 22:13:20" in shown


def test_without_redis_the_last_known_state_is_shown(
    admin_client: Client, breaker: Breaker, is_open: None, settings: Any
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    assert "25 failed of 30 calls within 10 s" in page(admin_client, breaker)


def test_staff_force_it_with_a_reason_and_everything_is_kept(admin_client: Client, breaker: Breaker) -> None:
    assert save(admin_client, breaker, forced="open", note="Vendor's maintenance").status_code == 302
    breaker.refresh_from_db()
    assert (breaker.forced, breaker.forced_by, breaker.note) == ("open", "admin", "Vendor's maintenance")
    assert breaker.forced_at is not None
    assert forced_breakers() == {"fcm:shop": BreakerStatus.OPEN}
    assert "Forced by admin: Vendor&#x27;s maintenance" in page(admin_client, breaker)

    save(admin_client, breaker, forced="", note="It is over")
    breaker.refresh_from_db()
    assert (breaker.forced, breaker.forced_by) == ("", "")
    assert not breaker.forced_at
    assert forced_breakers() == {}
    changes = [(c.status_after, c.by) for c in BreakerChange.objects.order_by("pk")]
    assert changes == [("open", "admin"), ("closed", "admin")]
    assert LogEntry.objects.filter(object_id=str(breaker.pk)).count() == 2


def test_without_a_reason_nothing_is_forced(admin_client: Client, breaker: Breaker) -> None:
    response = save(admin_client, breaker, forced="open", note=" ")
    assert b"Say why" in response.content
    assert forced_breakers() == {}


def test_whoever_may_only_look_cannot_force(client: Client, breaker: Breaker, django_user_model: Any) -> None:
    from django.contrib.auth.models import Permission

    viewer = django_user_model.objects.create_user("viewer", password="secret", is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_breaker"))
    client.force_login(viewer)
    assert "fcm" in page(client, breaker).lower()
    assert save(client, breaker, forced="open", note="because").status_code == 403
    assert forced_breakers() == {}


def test_the_metrics_show_the_same(client: Client, breaker: Breaker, is_open: None) -> None:
    shown = client.get("/metrics").content.decode()
    assert 'notifyhub_breaker_state{channel="fcm"} 2.0' in shown
    assert 'notifyhub_breaker_state{channel="sms"} 0.0' in shown
    assert 'notifyhub_queue_depth{queue="deliver_fcm_critical"}' in shown
    assert "notifyhub_review_open 0.0" in shown


def test_a_forced_breaker_shows_in_the_metrics(admin_client: Client, breaker: Breaker, is_open: None) -> None:
    save(admin_client, breaker, forced="closed", note="They say it is mended")
    assert 'notifyhub_breaker_state{channel="fcm"} 0.0' in admin_client.get("/metrics").content.decode()


def test_an_account_that_is_no_longer_used_leaves_the_metrics(client: Client, breaker: Breaker) -> None:
    assert force_breaker(breaker.pk, BreakerStatus.OPEN, "sam", "it is closed down", clock.now())
    assert 'notifyhub_breaker_state{channel="fcm"} 2.0' in client.get("/metrics").content.decode()

    ensure_breakers({"fcm": "another shop", "sms": "AC1"})

    assert 'notifyhub_breaker_state{channel="fcm"} 0.0' in client.get("/metrics").content.decode()
    ensure_breakers({"fcm": "shop", "sms": "AC1"})
    assert 'notifyhub_breaker_state{channel="fcm"} 2.0' in client.get("/metrics").content.decode()


def test_what_staff_force_is_counted_as_a_change(breaker: Breaker) -> None:
    before = [changes_to(status) for status in ("open", "closed")]
    assert force_breaker(breaker.pk, BreakerStatus.OPEN, "sam", "the vendor asked us to", clock.now())
    assert force_breaker(breaker.pk, None, "sam", "it is over", clock.now())
    assert not force_breaker(breaker.pk, None, "sam", "again", clock.now())
    assert [changes_to(status) for status in ("open", "closed")] == [before[0] + 1, before[1] + 1]


def changes_to(status: str) -> float:
    return BREAKER_CHANGES.labels("fcm", status)._value.get()


def test_metrics_leave_out_what_is_away_and_answer_all_the_same(
    client: Client, settings: Any, breaker: Breaker
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    shown = client.get("/metrics").content.decode()
    assert "notifyhub_breaker_state" not in shown
    assert "notifyhub_queue_depth" in shown


def test_what_another_release_stored_can_be_read(admin_client: Client, breaker: Breaker) -> None:
    with redis.Redis.from_url(django_settings.REDIS_URL) as client:
        client.set(state_key("fcm:shop"), orjson.dumps({"status": "half_open", "since": 1.0, "unknown": True}))
    assert "Half open" in page(admin_client, breaker)
