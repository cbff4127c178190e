"""What followers wish for takes effect when their alerts are written, with its reason."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId

from delivery import sms_cap, wishes
from delivery.fan_out import fan_out_shard
from delivery.proof import prove
from devstack.vendors.client import Sandbox
from followers import clock
from followers.models import Follower, Trader
from followers.preferences import Hours
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
    wanted: dict[str, dict[str, Any]] = {
        "muted": {"muted_traders": [trader.external_id]},
        "below_min_value": {"min_value": {"amount": "15000", "currency": "INR"}},
    }
    follower = follower_with(trader, "fcm", **wanted[reason])  # 5 × 2945.50 = 14,727.50
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


# --- Looked at again before a send -----------------------------------------------------------------------------------
def lawless(settings: Any, hours: float = 3) -> None:
    """From now on no SMS may be sent for so long."""
    now = clock.now()
    settings.SMS_LEGAL_HOURS = (f"{now + timedelta(hours=hours):%H:%M}", f"{now - timedelta(hours=1):%H:%M}")


def older(event: dict[str, Any]) -> None:
    """As if the alerts had waited for an hour."""
    change = {"$set": {"created_at": clock.now() - timedelta(hours=1)}}
    world.collection(world.Notification).update_many({"event_key": event["eventId"]}, change)


def test_an_sms_that_legal_hours_overtook_goes_back_and_waits_and_the_push_goes_out(
    vendors: Sandbox, settings: Any
) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm", "sms")
    event = world.trade(trader, **EXIT)
    world.fan_out(event)
    lawless(settings)

    world.deliver_all()

    assert outcomes(event, follower) == {
        "in_app": ("sent", ""), "fcm": ("sent", ""), "sms": ("queued", "sms_legal_hours"),
    }  # fmt: skip
    row = world.alert(event, follower)
    sms = world.delivery(row, "sms")
    assert (sms["attempts"], sms["batch"]) == (0, None)
    assert row["wake_at"] == sms["next_attempt_at"] < row["expires_at"]
    assert prove().holds
    settings.SMS_LEGAL_HOURS = None
    assert world.sweep(after_seconds=3 * 3600).rebatched == 1
    world.deliver_all()
    assert outcomes(event, follower)["sms"] == ("sent", "")


def test_an_sms_that_is_not_valid_until_the_morning_is_skipped_at_the_send(vendors: Sandbox, settings: Any) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "sms")
    event = world.trade(trader, productType="CRYPTO", quantityStep="0.01")
    world.fan_out(event)
    lawless(settings)

    world.deliver_all()

    assert outcomes(event, follower)["sms"] == ("skipped", "sms_legal_hours")


@pytest.mark.parametrize(
    ("preferences", "outcome"),
    [
        (quiet(), ("queued", "quiet_hours")),
        ({"channels": {"fcm": "off"}}, ("skipped", "channel_off_by_follower")),
        ({}, ("sent", "")),
    ],
)
def test_what_has_waited_is_sent_by_what_its_follower_wishes_now(
    vendors: Sandbox, preferences: dict[str, Any], outcome: tuple[str, str]
) -> None:
    trader = world.make_trader()
    follower = follower_with(trader, "fcm")
    event = world.trade(trader)
    world.fan_out(event)
    older(event)
    Follower.objects.filter(pk=follower.pk).update(preferences=preferences)

    world.deliver_all()

    assert outcomes(event, follower)["fcm"] == outcome


def test_test_mode_that_was_switched_on_holds_for_what_was_queued_before(vendors: Sandbox, settings: Any) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm")
    world.add_endpoint("discord", trader=trader)
    event = world.trade(trader)
    world.fan_out(event)
    settings.NOTIFYHUB_TEST_MODE, settings.NOTIFYHUB_TEST_FOLLOWERS = True, frozenset()

    world.deliver_all()

    assert outcomes(event, follower)["fcm"] == ("skipped", "test_mode")
    assert world.delivery(world.alert(event, None), "discord")["error_code"] == "test_mode"
    assert world.accepted(vendors) == 0


# --- SMS in a day ----------------------------------------------------------------------------------------------------
@pytest.fixture
def cap(settings: Any) -> Any:
    """Two SMS a day, and a count of its own."""
    settings.SMS_DAILY_CAP, settings.QUEUE_NAMESPACE = 2, f"test-{ObjectId()}"
    return settings


def test_a_follower_gets_so_many_sms_a_day_and_exits_beyond_them(vendors: Sandbox, cap: Any) -> None:
    trader = world.make_trader()
    follower, other = world.make_follower(trader, "sms"), world.make_follower(trader)
    entries = [world.trade(trader, symbol=f"S{n}") for n in range(3)]
    leaving = world.trade(trader, symbol="S9", **EXIT)

    for event in (*entries, leaving):
        world.fan_out(event)
        world.deliver_all()

    assert [outcomes(event, follower)["sms"] for event in entries] == [
        ("sent", ""), ("sent", ""), ("skipped", "sms_daily_cap"),
    ]  # fmt: skip
    assert outcomes(leaving, follower)["sms"] == ("sent", "")
    assert len(world.entries(follower)) == len(world.entries(other)) == 4


def test_a_retry_is_counted_once(vendors: Sandbox, cap: Any) -> None:
    cap.SMS_DAILY_CAP = 1
    trader = world.make_trader()
    follower = world.make_follower(trader, "sms")
    vendors.behave("twilio", rules=[{"match": {"first_n": 1}, "code": "throttled", "retry_after": 1}])
    event = world.trade(trader)
    world.fan_out(event)
    world.deliver_all()
    assert outcomes(event, follower)["sms"][0] == "queued"

    world.collection(world.Notification).update_one(
        {"_id": world.alert(event, follower)["_id"]},
        {"$set": {"deliveries.1.next_attempt_at": clock.now(), "wake_at": clock.now()}},
    )
    vendors.behave("twilio", rules=[])
    world.sweep()
    world.deliver_all()

    assert outcomes(event, follower)["sms"] == ("sent", "")


def test_without_redis_no_sms_is_dropped(vendors: Sandbox, cap: Any) -> None:
    cap.SMS_DAILY_CAP = 1
    follower = {"_id": ObjectId(), "timezone": "Asia/Kolkata"}
    rows = [
        ({"_id": ObjectId(), "action": "OPEN", "priority": "high"}, {"endpoint": ObjectId()}, follower)
        for _ in range(2)
    ]
    now = datetime(2026, 11, 24, 18, 0, tzinfo=UTC)  # 23:30 in Kolkata.

    assert sms_cap.over_cap(rows, now) == {rows[1][0]["_id"]}
    assert sms_cap.over_cap(rows[1:], now + timedelta(hours=1)) == set()  # Their next day.
    cap.REDIS_URL = "redis://127.0.0.1:1/0"
    assert sms_cap.over_cap(rows, now) == set()


# --- What else -------------------------------------------------------------------------------------------------------
def test_nights_without_sms_hold_an_entry_and_let_an_exit_pass(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.now()
    night = Hours((now - timedelta(hours=1)).time(), (now + timedelta(hours=2)).time())
    monkeypatch.setattr(wishes, "NIGHT", night)
    trader = world.make_trader()
    follower = follower_with(trader, "fcm", "sms", sms_at_night=False)
    entry, leaving = world.trade(trader, symbol="A"), world.trade(trader, symbol="B", **EXIT)

    world.fan_out(entry, leaving)

    assert outcomes(entry, follower) == {
        "in_app": ("sent", ""),
        "fcm": ("queued", ""),
        "sms": ("queued", "quiet_hours"),
    }
    assert outcomes(leaving, follower)["sms"] == ("queued", "")


def test_a_held_alert_whose_validity_ends_before_dispatch_due_comes_expires(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = follower_with(trader, "fcm", **quiet())
    event = world.trade(trader)
    world.fan_out(event)

    assert world.sweep(after_seconds=25 * 3600).expired == 1

    assert outcomes(event, follower)["fcm"] == ("expired", "validity_over")
    assert world.alert(event, follower)["wake_at"] is None


def test_stored_preferences_that_cannot_be_read_cost_no_alert(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = follower_with(trader, "fcm", "sms", channels={"sms": "off"}, quiet_hours="all night", nonsense=1)
    event = world.trade(trader)

    world.fan_out(event)

    assert outcomes(event, follower) == {
        "in_app": ("sent", ""), "fcm": ("queued", ""), "sms": ("skipped", "channel_off_by_follower"),
    }  # fmt: skip
