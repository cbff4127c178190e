"""What followers wish for takes effect when their alerts are written, with its reason."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from delivery.fan_out import fan_out_shard
from delivery.proof import prove
from devstack.vendors.client import Sandbox
from followers import clock
from followers.models import Follower, Trader
from tests.pipeline import world

pytestmark = pytest.mark.django_db(transaction=True)
EXIT: dict[str, Any] = {"action": "CLOSE", "side": "SELL", "positionBefore": "50", "positionAfter": "0"}


def follower_with(trader: Trader, *channels: str, **preferences: Any) -> Follower:
    follower = world.make_follower(trader, *channels)
    follower.preferences = preferences
    follower.save()
    return follower


def quiet(hours_from_now: float = 2, **preferences: Any) -> dict[str, Any]:
    """Preferences whose quiet hours have begun an hour ago, in UTC."""
    now = clock.now()
    start, end = now - timedelta(hours=1), now + timedelta(hours=hours_from_now)
    return {"quiet_hours": {"start": f"{start:%H:%M}", "end": f"{end:%H:%M}"}, **preferences}


def outcomes(event: dict[str, Any], follower: Follower) -> dict[str, tuple[str, str]]:
    row = world.alert(event, follower)
    return {d["channel"]: (d["state"], d["error_code"]) for d in row["deliveries"]}


@pytest.mark.parametrize(
    ("preferences", "reason"),
    [
        ({"channels": {"fcm": "off"}}, "channel_off_by_follower"),
        ({"channels": {"fcm": "critical_only"}}, "critical_only"),
    ],
)
def test_a_channel_that_is_off_is_skipped_and_the_others_are_not(
    vendors: Sandbox, preferences: dict[str, Any], reason: str
) -> None:
    trader = world.make_trader()
    follower = follower_with(trader, "fcm", "sms", **preferences)
    event = world.trade(trader)

    world.fan_out(event)

    assert outcomes(event, follower) == {"in_app": ("sent", ""), "fcm": ("skipped", reason), "sms": ("queued", "")}
    assert len(world.entries(follower)) == 1


def test_exits_pass_critical_only_but_not_a_channel_that_is_off(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = follower_with(trader, "fcm", "sms", channels={"fcm": "critical_only", "sms": "off"})
    event = world.trade(trader, **EXIT)

    world.fan_out(event)

    assert outcomes(event, follower)["fcm"] == ("queued", "")
    assert outcomes(event, follower)["sms"] == ("skipped", "channel_off_by_follower")


@pytest.mark.parametrize("reason", ["muted", "below_min_value"])
def test_what_is_not_wanted_at_all_is_stored_and_is_in_no_inbox(vendors: Sandbox, reason: str) -> None:
    trader = world.make_trader()
    wishes: dict[str, dict[str, Any]] = {
        "muted": {"muted_traders": [trader.external_id]},
        "below_min_value": {"min_value": {"amount": "15000", "currency": "INR"}},
    }
    follower = follower_with(trader, "fcm", **wishes[reason])  # 5 × 2945.50 = 14,727.50
    entry, leaving = world.trade(trader), world.trade(trader, **EXIT)

    world.fan_out(entry)

    assert outcomes(entry, follower) == {"in_app": ("skipped", reason), "fcm": ("skipped", reason)}
    assert world.alert(entry, follower)["state"] == "skipped"
    assert world.entries(follower) == []
    world.fan_out(leaving)
    assert outcomes(leaving, follower) == {"in_app": ("sent", ""), "fcm": ("queued", "")}


def test_exits_are_muted_only_for_whoever_says_so(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = follower_with(trader, "fcm", muted_traders=[trader.external_id], mute_exits=True)
    event = world.trade(trader, **EXIT)

    world.fan_out(event)

    assert outcomes(event, follower)["fcm"] == ("skipped", "muted")


def test_quiet_hours_hold_an_alert_until_they_end_and_dispatch_due_sends_it(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = follower_with(trader, "fcm", **quiet())
    event = world.trade(trader)

    world.fan_out(event)

    assert outcomes(event, follower) == {"in_app": ("sent", ""), "fcm": ("queued", "quiet_hours")}
    row = world.alert(event, follower)
    assert world.unclaimed() == []
    assert row["wake_at"] == world.delivery(row, "fcm")["next_attempt_at"] < row["expires_at"]
    assert prove().holds
    assert world.sweep().rebatched == 0
    assert world.sweep(after_seconds=2 * 3600).rebatched == 1
    world.deliver_all()
    assert outcomes(event, follower)["fcm"] == ("sent", "")


def test_an_alert_that_is_not_valid_until_the_end_of_quiet_hours_is_skipped(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = follower_with(trader, "fcm", **quiet())
    event = world.trade(trader, productType="CRYPTO", quantityStep="0.01")

    world.fan_out(event)

    assert outcomes(event, follower)["fcm"] == ("skipped", "quiet_hours")


@pytest.mark.parametrize(("choice", "code"), [({}, ""), ({"quiet_exits": True}, "quiet_hours")])
def test_exits_pass_quiet_hours_unless_the_follower_says_otherwise(
    vendors: Sandbox, choice: dict[str, bool], code: str
) -> None:
    trader = world.make_trader()
    follower = follower_with(trader, "fcm", **quiet(**choice))
    event = world.trade(trader, **EXIT)

    world.fan_out(event)

    assert outcomes(event, follower)["fcm"] == ("queued", code)


def test_an_exit_withdraws_what_quiet_hours_hold(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = follower_with(trader, "fcm", **quiet())
    entry = world.trade(trader, executed_at=clock.now() - timedelta(seconds=5))
    world.fan_out(entry)

    world.fan_out(world.trade(trader, **EXIT))

    assert outcomes(entry, follower)["fcm"] == ("cancelled", "superseded_by_exit")


def test_legal_hours_hold_even_an_exit_by_sms(vendors: Sandbox, settings: Any) -> None:
    now = datetime.now(UTC)
    settings.SMS_LEGAL_HOURS = (f"{now + timedelta(hours=3):%H:%M}", f"{now - timedelta(hours=1):%H:%M}")
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm", "sms")
    event = world.trade(trader, **EXIT)

    world.fan_out(event)

    assert outcomes(event, follower)["sms"] == ("queued", "sms_legal_hours")
    assert outcomes(event, follower)["fcm"] == ("queued", "")


def test_test_mode_sends_only_to_those_who_are_named(vendors: Sandbox, settings: Any) -> None:
    trader = world.make_trader()
    tester, other = world.make_follower(trader, "fcm"), world.make_follower(trader, "fcm")
    world.add_endpoint("discord", trader=trader)
    settings.NOTIFYHUB_TEST_MODE, settings.NOTIFYHUB_TEST_FOLLOWERS = True, frozenset({tester.external_id})
    event = world.trade(trader)

    world.fan_out(event)

    assert outcomes(event, tester)["fcm"] == ("queued", "")
    assert outcomes(event, other) == {"in_app": ("sent", ""), "fcm": ("skipped", "test_mode")}
    assert world.delivery(world.alert(event, None), "discord")["error_code"] == "test_mode"


def test_a_shard_that_runs_again_goes_by_what_was_wished_for_at_first(vendors: Sandbox) -> None:
    trader = world.make_trader()
    muting = follower_with(trader, "fcm", muted_traders=[trader.external_id])
    other = follower_with(trader, "fcm")
    event = world.trade(trader)
    (shard,) = world.take_in_trades(event)
    fan_out_shard(shard["_id"])
    before = world.alerts(event)

    Follower.objects.filter(pk=muting.pk).update(preferences={})
    Follower.objects.filter(pk=other.pk).update(preferences={"muted_traders": [trader.external_id]})
    world.collection(world.InAppEntry).delete_many({})  # The first run died before it wrote them.
    world.collection(world.Batch).update_one(
        {"_id": shard["_id"]},
        {"$set": {"finished_at": None, "token": None, "next_look_at": clock.now(), "failures": 1}},
    )
    assert fan_out_shard(shard["_id"]) is not None

    assert world.alerts(event) == before
    assert (len(world.entries(muting)), len(world.entries(other))) == (0, 1)
