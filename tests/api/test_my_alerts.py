"""What became of my alerts, and why: for the follower, in plain words."""

from __future__ import annotations

from typing import Any

import pytest

from delivery.follower_words import BY_REASON, BY_STATE, words
from devstack.vendors.client import Sandbox
from followers.choices import PUSH_CHANNELS, VENDOR_CHANNELS
from followers.mongo import collection
from notifications.choices import DeliveryState, Reason
from notifications.models import Notification
from tests.api.conftest import as_follower, code_of
from tests.pipeline import world

pytestmark = pytest.mark.django_db(transaction=True)


def detail(follower: Any, alert: dict[str, Any]) -> Any:
    return as_follower(follower).get(f"/api/v1/inbox/{alert['_id']}/")


def test_a_quantity_is_explained_without_the_traders_portfolio(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm", portfolio="10000")
    event = world.trade(trader)
    world.fan_out(event)

    told = detail(follower, world.alert(event, follower)).json()

    assert told["explanation"]["summary"] == (
        "The trader bought 50. Your portfolio is 0.1 times the trader's, so your share is 5."
    )
    steps = {step["label"]: step["value"] for step in told["explanation"]["steps"]}
    assert (steps["The trader's quantity"], steps["Your quantity"]) == ("50", "5")
    assert "100000" not in str(told)
    assert told["in_inbox"]
    assert {d["channel"]: d["words"] for d in told["deliveries"]} == {
        "in_app": "It was sent.",
        "fcm": "It is on its way.",
    }


def test_an_exit_is_explained_by_its_share(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader)
    event = world.trade(trader, action="REDUCE", side="SELL", quantity="20", positionBefore="50", positionAfter="30")
    world.fan_out(event)

    summary = detail(follower, world.alert(event, follower)).json()["explanation"]["summary"]

    assert summary.startswith("The trader gave up 40 % of the position: sell 40 % of what you hold.")


def test_nobody_sees_another_persons_alert(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower, other = world.make_follower(trader), world.make_follower(trader)
    event = world.trade(trader)
    world.fan_out(event)

    assert code_of(detail(other, world.alert(event, follower)), 404) == "not_found"
    assert code_of(as_follower(other).get(f"/api/v1/inbox/{'0' * 24}/"), 404) == "not_found"


def test_what_was_not_sent_says_why(vendors: Sandbox) -> None:
    trader = world.make_trader()
    small = world.make_follower(trader, portfolio="1")
    muting = world.make_follower(trader, "fcm")
    muting.preferences = {"muted_traders": [trader.external_id]}
    muting.save()
    glad = world.make_follower(trader, "fcm")
    world.fan_out(world.trade(trader))

    def of(follower: Any) -> list[str]:
        return [row["why"] for row in as_follower(follower).get("/api/v1/not-sent/").json()["results"]]

    assert of(small) == [BY_REASON[Reason.BELOW_MIN_QTY]]
    assert of(muting) == [BY_REASON[Reason.MUTED]]
    assert of(glad) == []


def test_what_was_not_sent_comes_in_pages_by_the_index(vendors: Sandbox) -> None:
    trader = world.make_trader()
    small = world.make_follower(trader, portfolio="1")
    for _ in range(5):
        world.fan_out(world.trade(trader))

    address, seen = "/api/v1/not-sent/?limit=2", []
    while address:
        page = as_follower(small).get(address).json()
        seen += [row["id"] for row in page["results"]]
        address = page["next"]

    stored = [str(row["_id"]) for row in collection(Notification).find().sort([("created_at", -1), ("_id", -1)])]
    assert seen == stored


def test_what_a_device_refused_has_no_reason_for_the_whole(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm")
    world.fan_out(trade := world.trade(trader))
    failed = {"deliveries.$[push].state": "failed", "deliveries.$[push].error_code": "UNREGISTERED"}
    collection(Notification).update_one(
        {"_id": world.alert(trade, follower)["_id"]}, {"$set": failed}, array_filters=[{"push.channel": "fcm"}]
    )

    (row,) = as_follower(follower).get("/api/v1/not-sent/").json()["results"]

    assert row["why"] == ""
    assert [(d["channel"], d["state"], d["reason"]) for d in row["deliveries"]] == [("fcm", "failed", "")]
    assert "UNREGISTERED" not in str(row)


@pytest.mark.parametrize("channel", [c.value for c in VENDOR_CHANNELS])
def test_only_what_failed_on_a_device_asks_to_open_the_app(channel: str) -> None:
    said = words({"channel": channel, "state": "failed", "error_code": "x"})

    assert said.startswith("The provider did not deliver it.")
    assert ("Open the app" in said) is (channel in PUSH_CHANNELS)


def test_what_waits_says_for_whose_hours() -> None:
    quiet, legal = (
        words({"channel": "sms", "state": "queued", "error_code": reason.value})
        for reason in (Reason.QUIET_HOURS, Reason.SMS_LEGAL_HOURS)
    )

    assert "your quiet hours" in quiet
    assert "quiet hours" not in legal
    assert "SMS may be sent" in legal


def test_every_reason_and_state_has_words_for_the_follower() -> None:
    told_otherwise = {"follower_erased", "lease_lost", "crashed_in_send", "no_answer", "attempts_exhausted"}
    assert set(BY_REASON) == {reason.value for reason in Reason} - told_otherwise
    assert set(BY_STATE) == {state.value for state in DeliveryState}
