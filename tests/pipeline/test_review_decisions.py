"""What a person decides about an alert in the review bucket: sent again, or elsewhere, truly and never too late."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId

from delivery.outcomes import in_doubt, repeat_is_undecided
from delivery.review import Obstacle, Outlook, outlook_elsewhere, outlook_of_retry, send_again
from devstack.vendors.client import Sandbox
from followers import clock
from followers.choices import Channel
from followers.models import Endpoint, Follower
from followers.mongo import collection
from notifications import reviews
from notifications.models import Notification
from notifications.statements import derive
from tests.pipeline import world
from tests.pipeline.test_reviews import opened, refuse, told

pytestmark = pytest.mark.django_db(transaction=True)
Document = dict[str, Any]
REFUSED = "21612"
"""Twilio: the sender cannot reach this number."""


def retry(*rows: Document, note: str = "the customer called") -> Outlook:
    outlook = outlook_of_retry([row["_id"] for row in rows], clock.now())
    send_again(outlook.wanted, "ana", note, clock.now())
    return outlook


def send_elsewhere(row: Document, channel: Channel) -> Outlook:
    outlook = outlook_elsewhere([row["_id"]], [channel], clock.now())[channel]
    send_again(outlook.wanted, "ana", "try another way", clock.now())
    return outlook


def work_off() -> None:
    """dispatch_due finds what is due, and workers deliver it."""
    world.sweep(after_seconds=1)
    world.deliver_all()


def failed_sms(vendors: Sandbox, *others: str, **details: Any) -> tuple[Document, Follower]:
    """An alert whose SMS was refused; Twilio is well again."""
    refuse(vendors, "twilio", REFUSED)
    event, follower = told("sms", *others, **details)
    world.deliver_all()
    opened(event, follower)
    vendors.behave_well("twilio")
    return event, follower


def unknown_sms(vendors: Sandbox) -> tuple[Document, Follower]:
    vendors.behave("twilio", rules=[{"match": {}, "accept_then_reset": True}])
    event, follower = told("sms")
    world.deliver_all()
    opened(event, follower)
    vendors.behave_well("twilio")
    return event, follower


# --- Retry -----------------------------------------------------------------------------------------------------------
def test_a_retry_is_sent_and_the_review_resolves_itself(vendors: Sandbox) -> None:
    event, follower = failed_sms(vendors)
    outlook = retry(world.alert(event, follower))
    assert (outlook.messages, outlook.doubtful, dict(outlook.obstacles)) == (1, 0, {})

    waiting = world.alert(event, follower)
    assert (waiting["state"], waiting["review"]["open"]) == ("pending", True)
    assert waiting["wake_at"] is not None
    work_off()

    row = world.alert(event, follower)
    sent = world.delivery(row, "sms")
    assert (sent["state"], sent["attempts"], sent["error_code"]) == ("sent", 2, "")
    assert [a["outcome"] for a in sent["attempt_log"]] == ["refused", "requested", "sent"]
    assert sent["attempt_log"][1]["message"] == "ana: the customer called"
    assert (row["review"]["open"], row["review"]["resolved_by"]) == (False, "system")
    assert vendors.stats("twilio")["accepted"] == 1


def test_a_retry_that_fails_again_stays_in_the_bucket(vendors: Sandbox) -> None:
    event, follower = failed_sms(vendors)
    first = opened(event, follower)
    refuse(vendors, "twilio", "21610")
    retry(world.alert(event, follower))
    work_off()
    assert opened(event, follower)["opened_at"] == first["opened_at"]


def test_a_resolved_review_is_open_again_while_it_is_retried(vendors: Sandbox) -> None:
    event, follower = failed_sms(vendors)
    row = world.alert(event, follower)
    reviews.resolve([row["_id"]], "ben", "not worth it", clock.now())
    refuse(vendors, "twilio", REFUSED)

    retry(row)
    assert opened(event, follower)["resolved_by"] == ""
    work_off()

    assert opened(event, follower)["reason"] == "failed"


def test_an_unknown_sms_is_really_sent_again_when_a_person_says_so(vendors: Sandbox) -> None:
    event, follower = unknown_sms(vendors)
    outlook = retry(world.alert(event, follower))
    assert outlook.doubtful == 1  # The preview warns: a second message may arrive.
    work_off()
    sent = world.delivery(world.alert(event, follower), "sms")
    assert (sent["state"], [a["outcome"] for a in sent["attempt_log"]]) == ("sent", ["unknown", "requested", "sent"])
    assert vendors.stats("twilio")["accepted"] == 2


def test_a_decision_covers_the_doubt_before_it_and_none_after(vendors: Sandbox) -> None:
    event, follower = unknown_sms(vendors)
    vendors.behave("twilio", rules=[{"match": {}, "accept_then_reset": True}])
    retry(world.alert(event, follower))
    work_off()
    world.sweep(after_seconds=3_600)
    world.deliver_all()
    again = world.delivery(world.alert(event, follower), "sms")
    assert (again["state"], again["attempts"]) == ("unknown", 2)
    assert repeat_is_undecided(again)
    assert vendors.stats("twilio")["accepted"] == 2


def test_what_crashed_in_the_middle_stays_in_doubt_when_the_retry_is_not_sent(vendors: Sandbox) -> None:
    event, follower = told("sms")
    (batch,) = world.unclaimed()
    world.crash_in(batch["_id"])
    world.sweep()
    retry(world.alert(event, follower))
    asked = world.delivery(world.alert(event, follower), "sms")
    assert [a["outcome"] for a in asked["attempt_log"]] == ["unknown", "requested"]
    assert asked["attempt_log"][0]["code"] == "crashed_in_send"
    assert in_doubt(asked)
    assert not repeat_is_undecided(asked)

    Endpoint.objects.update(active=False)
    work_off()

    row = world.alert(event, follower)
    assert world.delivery(row, "sms")["state"] == "unknown"
    assert row["review"]["open"]


def test_a_retry_has_a_budget_of_its_own_and_the_counter_stays_true(vendors: Sandbox, settings: Any) -> None:
    policy = replace(
        settings.CHANNEL_POLICIES["fcm"], max_attempts=2, retry_base_seconds=0.001, retry_cap_seconds=0.001
    )
    settings.CHANNEL_POLICIES = {**settings.CHANNEL_POLICIES, "fcm": policy}
    vendors.behave("fcm", rules=[{"match": {}, "status": 500, "retry_after": 0}])
    event, follower = told("fcm")
    for _ in range(2):
        work_off()
    assert world.delivery(world.alert(event, follower), "fcm")["error_code"] == "attempts_exhausted"

    retry(world.alert(event, follower))
    work_off()
    waiting = world.delivery(world.alert(event, follower), "fcm")
    assert (waiting["state"], waiting["attempts"]) == ("queued", 3)
    work_off()
    failed = world.delivery(world.alert(event, follower), "fcm")
    assert (failed["state"], failed["attempts"], failed["error_code"]) == ("failed", 4, "attempts_exhausted")


def test_a_crash_in_a_retry_spends_the_retrys_own_budget(vendors: Sandbox, settings: Any) -> None:
    policy = replace(settings.CHANNEL_POLICIES["fcm"], max_attempts=2)
    settings.CHANNEL_POLICIES = {**settings.CHANNEL_POLICIES, "fcm": policy}
    event, follower = told("fcm")
    row = world.alert(event, follower)
    where = {"_id": row["_id"], "deliveries.channel": "fcm"}
    ended = {"state": "failed", "batch": None, "next_attempt_at": None, "attempts": 2, "error_code": "x"}
    changes = {f"deliveries.$.{name}": value for name, value in ended.items()}
    collection(Notification).update_one(where, {"$set": changes})
    collection(Notification).update_one({"_id": row["_id"]}, derive())
    retry(row)
    world.sweep(after_seconds=1)
    batch_id = world.delivery(world.alert(event, follower), "fcm")["batch"]
    world.crash_in(batch_id)
    world.sweep()
    again = world.delivery(world.alert(event, follower), "fcm")
    assert (again["state"], again["attempts"]) == ("queued", 3)


def test_what_was_asked_for_and_not_sent_stays_in_the_bucket(vendors: Sandbox) -> None:
    event, follower = failed_sms(vendors)
    retry(world.alert(event, follower))
    Endpoint.objects.update(active=False)
    work_off()
    row = world.alert(event, follower)
    assert world.delivery(row, "sms")["state"] == "skipped"
    assert (row["review"]["open"], row["review"]["reason"]) == (True, "undone")


def test_a_decision_taken_twice_at_once_sends_once(vendors: Sandbox) -> None:
    event, follower = failed_sms(vendors)
    row = world.alert(event, follower)
    outlook = outlook_of_retry([row["_id"]], clock.now())
    assert send_again(outlook.wanted, "ana", "one", clock.now()) == [row["_id"]]
    assert send_again(outlook.wanted, "ben", "two", clock.now() + timedelta(milliseconds=5)) == []
    work_off()
    assert vendors.stats("twilio")["accepted"] == 1


# --- What stands in the way ------------------------------------------------------------------------------------------
def test_expired_alerts_are_counted_and_never_queued(vendors: Sandbox) -> None:
    event, follower = failed_sms(vendors)
    row = world.alert(event, follower)
    outlook = outlook_of_retry([row["_id"]], clock.now())
    collection(Notification).update_one({}, {"$set": {"expires_at": clock.now() - timedelta(seconds=1)}})

    assert outlook_of_retry([row["_id"]], clock.now()).obstacles == {Obstacle.EXPIRED: 1}
    assert send_again(outlook.wanted, "ana", "too late", clock.now()) == []  # It expired after the preview.
    assert world.delivery(world.alert(event, follower), "sms")["state"] == "failed"


@pytest.mark.parametrize("owner", ["nobody", "somebody else"])
def test_an_address_that_is_not_the_followers_any_more_is_not_used(vendors: Sandbox, owner: str) -> None:
    event, follower = failed_sms(vendors)
    change = {"active": False} if owner == "nobody" else {"follower_id": ObjectId()}
    Endpoint.objects.update(**change)
    outlook = retry(world.alert(event, follower))
    assert (outlook.wanted, outlook.obstacles) == ({}, {Obstacle.INACTIVE: 1})


def test_the_other_obstacles_are_named(vendors: Sandbox, settings: Any) -> None:
    event, follower = failed_sms(vendors)
    row = world.alert(event, follower)

    def obstacle() -> Obstacle:
        (found,) = outlook_of_retry([row["_id"]], clock.now()).obstacles
        return found

    settings.TWILIO_ACCOUNT_SID = settings.TWILIO_AUTH_TOKEN = settings.TWILIO_FROM = ""
    assert obstacle() is Obstacle.CHANNEL_OFF
    collection(Notification).update_one({}, {"$set": {"superseded_by": "E-exit"}})
    assert obstacle() is Obstacle.SUPERSEDED
    collection(Notification).update_one({}, {"$set": {"deliveries.1.state": "queued"}})
    assert obstacle() is Obstacle.UNDER_WAY
    collection(Notification).update_one({}, {"$set": {"deliveries.1.state": "sent"}})
    assert obstacle() is Obstacle.NOTHING


def test_what_a_worker_holds_is_left_to_it_although_a_receipt_called_it_failed(vendors: Sandbox) -> None:
    event, follower = failed_sms(vendors)
    row = world.alert(event, follower)
    outlook = outlook_of_retry([row["_id"]], clock.now())
    collection(Notification).update_one({}, {"$set": {"deliveries.1.batch": ObjectId()}})
    held = world.alert(event, follower)
    assert outlook_of_retry([row["_id"]], clock.now()).obstacles == {Obstacle.UNDER_WAY: 1}
    assert outlook_elsewhere([row["_id"]], [Channel.SMS], clock.now())[Channel.SMS].obstacles == {Obstacle.UNDER_WAY: 1}
    assert send_again(outlook.wanted, "ana", "by a stale preview", clock.now()) == []
    assert world.alert(event, follower) == held


def test_only_the_addresses_that_are_left_are_used(vendors: Sandbox) -> None:
    refuse(vendors, "twilio", REFUSED)
    trader = world.make_trader()
    follower = world.make_follower(trader, "sms", "sms")
    event = world.trade(trader)
    world.fan_out(event)
    world.deliver_all()
    gone, left = Endpoint.objects.filter(follower=follower).order_by("pk")
    Endpoint.objects.filter(pk=gone.pk).update(active=False)

    row = world.alert(event, follower)
    assert retry(row).messages == 1

    states = {d["endpoint"]: d["state"] for d in world.alert(event, follower)["deliveries"]}
    assert (states[gone.pk], states[left.pk]) == ("failed", "queued")


# --- On another channel ----------------------------------------------------------------------------------------------
def test_another_channel_gets_a_delivery_of_its_own_and_settles_the_review(vendors: Sandbox) -> None:
    event, follower = failed_sms(vendors)
    world.add_endpoint("fcm", follower=follower)
    outlook = send_elsewhere(world.alert(event, follower), Channel.FCM)
    assert dict(outlook.channels) == {"fcm": 1}
    work_off()
    row = world.alert(event, follower)
    assert world.states(row) == {"in_app": "sent", "sms": "failed", "fcm": "sent"}
    assert [a["outcome"] for a in world.delivery(row, "fcm")["attempt_log"]] == ["requested", "sent"]
    assert (row["state"], row["review"]["open"], row["review"]["resolved_by"]) == ("partial", False, "system")


def test_an_address_that_was_reached_is_never_sent_to_again(vendors: Sandbox) -> None:
    event, follower = failed_sms(vendors, "fcm")
    row = world.alert(event, follower)
    outlook = send_elsewhere(row, Channel.FCM)
    assert (outlook.wanted, outlook.obstacles) == ({}, {Obstacle.REACHED: 1})

    forced = {row["_id"]: [("fcm", world.delivery(row, "fcm")["endpoint"])]}
    send_again(forced, "ana", "by a stale preview", clock.now())
    work_off()
    assert vendors.stats("fcm")["accepted"] == 1


def test_a_second_address_on_the_same_channel_counts_as_another(vendors: Sandbox) -> None:
    event, follower = failed_sms(vendors, "fcm")
    world.add_endpoint("fcm", follower=follower)
    send_elsewhere(world.alert(event, follower), Channel.FCM)
    work_off()
    assert [d["state"] for d in world.alert(event, follower)["deliveries"] if d["channel"] == "fcm"] == ["sent", "sent"]
    assert (vendors.stats("fcm")["accepted"], vendors.stats("fcm")["duplicates"]) == (2, 0)


def test_somebody_without_an_address_there_is_named(vendors: Sandbox) -> None:
    event, follower = failed_sms(vendors)
    Endpoint.objects.create(follower=follower, channel="fcm", address="inactive-token-0001", active=False)
    outlook = send_elsewhere(world.alert(event, follower), Channel.FCM)
    assert (outlook.wanted, outlook.obstacles) == ({}, {Obstacle.NO_ADDRESS: 1})


def test_a_community_post_goes_to_the_traders_other_webhook(vendors: Sandbox) -> None:
    refuse(vendors, "discord", "50006")
    trader = world.make_trader()
    world.add_endpoint("discord", trader=trader)
    event = world.trade(trader)
    world.fan_out(event)
    world.deliver_all()
    vendors.behave_well("discord")
    world.add_endpoint("discord", trader=trader)

    outlook = send_elsewhere(world.alert(event, None), Channel.DISCORD)

    assert outlook.messages == 2  # The new one, and the one that failed.
    work_off()
    row = world.alert(event, None)
    assert [d["state"] for d in row["deliveries"]] == ["sent", "sent"]
    assert not row["review"]["open"]


def test_many_alerts_are_queued_in_bounded_statements(vendors: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delivery.review.SEND_CHUNK", 2)
    refuse(vendors, "twilio", REFUSED)
    trader = world.make_trader()
    for _ in range(5):
        world.make_follower(trader, "sms")
    event = world.trade(trader)
    world.fan_out(event)
    world.deliver_all()
    vendors.behave_well("twilio")
    assert retry(*world.alerts(event)).messages == 5
    work_off()
    assert {row["state"] for row in world.alerts(event)} == {"delivered"}
    assert reviews.open_reviews() == 0
