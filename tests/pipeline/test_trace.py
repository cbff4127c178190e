"""manage.py trace: what support sees of an event and of one alert."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from devstack.vendors.client import Sandbox
from followers.models import Endpoint
from tests.pipeline import world

pytestmark = pytest.mark.django_db(transaction=True)


def trace(identifier: str) -> str:
    out = StringIO()
    call_command("trace", identifier, stdout=out, no_color=True)
    return out.getvalue()


def test_event_correlation_and_notification_id_show_their_path(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm", "sms")
    world.make_follower(trader, portfolio="1")
    event = world.trade(trader)
    world.fan_out(event)
    world.deliver_all()
    row = world.alert(event, follower)

    by_event = trace(event["eventId"])
    assert "taken in from Kafka and stored" in by_event
    assert "1  fcm sent" in by_event
    assert "1  alert skipped (below_min_qty)" in by_event
    assert trace(row["correlation_id"]) == by_event

    by_alert = trace(str(row["_id"]))
    assert follower.external_id in by_alert
    steps = [line for line in by_alert.splitlines() if " ms" in line]
    assert steps == sorted(steps, key=lambda line: line.split()[0])
    assert any("sent" in line and "Firebase push" in line for line in steps)


def test_no_address_is_shown_whole(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "sms", "discord")
    event = world.trade(trader)
    world.fan_out(event)
    world.deliver_all()

    shown = trace(str(world.alert(event, follower)["_id"]))

    for endpoint in Endpoint.objects.all():
        assert endpoint.address not in shown


def test_unknown_id_ends_in_one_readable_line() -> None:
    with pytest.raises(CommandError, match="'nothing-like-it' is stored"):
        trace("nothing-like-it")
