"""The page of the proof: a click runs it, its result is green or red, and each gap leads to its pages."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from delivery import admin_proof
from delivery.models import ProofRun
from delivery.proof import Limits
from followers.mongo import collection
from notifications.models import Notification
from notifications.statements import event_id
from tests.pipeline import world

pytestmark = pytest.mark.django_db(transaction=True)
LIST = "/admin/delivery/proofrun/"
PROVE = "/admin/delivery/proofrun/prove/"


def fan_out(followers: int = 2) -> tuple[dict[str, Any], list[Any]]:
    trader = world.make_trader()
    people = [world.make_follower(trader) for _ in range(followers)]
    event = world.trade(trader)
    world.fan_out(event)
    return event, people


def click(client: Client, hours: str = "24") -> str:
    response = client.post(PROVE, {"hours": hours}, follow=True)
    assert response.status_code == 200
    return response.content.decode()


def test_a_click_proves_the_last_day_and_the_page_remembers(admin_client: Client, admin_user: Any) -> None:
    fan_out()
    assert "Nothing was proved yet." in admin_client.get(LIST).content.decode()

    page = click(admin_client)

    assert "Proved: nobody was forgotten." in page
    assert "2 surely owed, 2 of them found" in page
    assert "bg-green-100" in page
    listed = admin_client.get(LIST).content.decode()
    assert f"by {admin_user.username}" in listed
    assert "nobody was forgotten" in listed


def test_a_gap_is_red_and_leads_to_its_trade_and_follower(admin_client: Client) -> None:
    event, people = fan_out()
    lost = world.alert(event, people[0])["_id"]
    collection(Notification).delete_one({"_id": lost})

    page = click(admin_client)

    assert "Not proved: 1 missing." in page
    assert people[0].external_id in page
    assert reverse("admin:notifications_tradeevent_change", args=[event_id(event["eventId"])]) in page
    assert reverse("admin:followers_follower_change", args=[people[0].pk]) in page
    assert reverse("admin:notifications_notification_change", args=[lost]) not in page  # There is no such page.
    assert "1 missing" in admin_client.get(LIST).content.decode()


def test_an_alert_that_is_wrong_leads_to_its_page(admin_client: Client) -> None:
    event, people = fan_out()
    row = world.alert(event, people[0])
    collection(Notification).update_one({"_id": row["_id"]}, {"$set": {"state": "failed"}})

    assert reverse("admin:notifications_notification_change", args=[row["_id"]]) in click(admin_client)


def test_what_a_page_cannot_look_at_in_time_is_said(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    fan_out()
    monkeypatch.setattr(admin_proof, "PAGE_LIMITS", Limits(alerts=1))

    page = click(admin_client)

    assert "Nothing was looked at." in page
    assert "manage.py prove --since " in page
    assert "bg-orange-100" in page


def test_only_a_post_of_a_known_period_runs_it(admin_client: Client) -> None:
    assert admin_client.get(PROVE).status_code == 405
    assert "Choose one of the periods." in click(admin_client, hours="100000")
    assert not ProofRun.objects.exists()


def test_a_run_can_be_neither_added_nor_changed_nor_deleted_by_hand(admin_client: Client) -> None:
    click(admin_client)
    run = ProofRun.objects.get()
    for page, args in (("add", []), ("change", [run.pk]), ("delete", [run.pk])):
        url = reverse(f"admin:delivery_proofrun_{page}", args=args)
        assert admin_client.post(url, {"post": "yes"}).status_code == 403
    assert ProofRun.objects.filter(pk=run.pk).exists()


@pytest.mark.parametrize(
    ("permissions", "sees", "runs"),
    [((), False, False), (("view_proofrun",), True, False), (("view_proofrun", "add_proofrun"), True, True)],
)
def test_staff_need_the_permission(
    client: Client, django_user_model: Any, permissions: tuple[str, ...], sees: bool, runs: bool
) -> None:
    user = django_user_model.objects.create_user("support", password="x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client.force_login(user)
    listed = client.get(LIST)
    assert (listed.status_code == 200) is sees
    assert (PROVE in listed.content.decode()) is runs
    assert (client.post(PROVE, {"hours": "24"}).status_code == 302) is runs
    assert ProofRun.objects.exists() is runs


def test_visitors_are_sent_to_the_login(client: Client) -> None:
    response = client.post(PROVE, {"hours": "24"})
    assert response.status_code == 302
    assert "login" in response.headers["Location"]
    assert not ProofRun.objects.exists()
