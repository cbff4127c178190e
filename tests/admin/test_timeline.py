"""The pages of a trade and of an alert tell the same story as `manage.py trace`."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from django.utils.html import escape, strip_tags

from delivery import admin_timeline
from devstack.vendors.client import Sandbox
from followers.models import Endpoint
from notifications.statements import event_id
from tests.pipeline import world

pytestmark = pytest.mark.django_db(transaction=True)


def traced(identifier: str) -> list[tuple[str, str]]:
    """(gap, what) of each step that the command prints."""
    out = StringIO()
    call_command("trace", identifier, stdout=out, no_color=True)
    return re.findall(r"^  [\d:.]+ +(\+[\d,]+ ms)?  (.+)$", out.getvalue(), re.MULTILINE)


def test_both_pages_show_the_steps_with_the_time_between_them(admin_client: Client, vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm", "sms")
    event = world.trade(trader)
    world.fan_out(event)
    world.deliver_all()
    row = world.alert(event, follower)
    pages = {
        event["eventId"]: reverse("admin:notifications_tradeevent_change", args=[event_id(event["eventId"])]),
        str(row["_id"]): reverse("admin:notifications_notification_change", args=[row["_id"]]),
    }

    for identifier, url in pages.items():
        page = admin_client.get(url).content.decode()
        shown = " ".join(strip_tags(page.replace("<", " <")).split())
        steps = traced(identifier)
        assert len(steps) >= 4
        for gap, what in steps:
            assert " ".join(f"{gap} {escape(what)}".split()) in shown
        for endpoint in Endpoint.objects.all():
            assert endpoint.address not in page


def test_a_large_trades_page_looks_at_some_of_its_alerts_and_says_so(
    admin_client: Client, vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_timeline, "ALERTS_READ", 2)
    trader = world.make_trader()
    events = []
    for followers in (2, 3):
        while len(Endpoint.objects.all()) < followers:
            world.make_follower(trader, "fcm")
        events.append(world.trade(trader))
        world.fan_out(events[-1])
    world.deliver_all()
    small, large = (
        admin_client.get(
            reverse("admin:notifications_tradeevent_change", args=[event_id(event["eventId"])])
        ).content.decode()
        for event in events
    )

    assert "last vendor accepted" in small
    assert "alerts that were looked at" not in small
    assert "last vendor accepted, of 2 alerts that were looked at" in large
