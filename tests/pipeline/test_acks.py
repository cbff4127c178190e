"""What apps acknowledge: kept as it was said, true in every state, and exact about the device."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO
from typing import Any

import orjson
import pytest
from bson import ObjectId
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from delivery.channels.base import Outcome
from delivery.channels.receipts import Receipt
from delivery.evidence import evidence
from delivery.lease import claim
from delivery.receipts import Noted
from devstack.vendors.client import Sandbox
from followers import clock
from followers.choices import PUSH_CHANNELS, Channel
from notifications.acks import Acknowledged, acknowledge
from notifications.choices import AckEvent, DeliveryState
from notifications.frames import Ack
from tests.notifyhub.metrics import added, look
from tests.pipeline import world
from tests.pipeline.test_receipts import SUMMARY, Case, attempt, put_into

pytestmark = pytest.mark.django_db(transaction=True)
OUTCOMES = ("channel", "outcome", "error")
DELIVERIES = "notifyhub_deliveries_total"


def say(case: Case, event: AckEvent = AckEvent.RECEIVED, later: float = 0, **said: Any) -> Acknowledged:
    ack = Ack(case.id, event, **{"channel": case.channel, **said})
    return acknowledge(case.follower.pk, ack, clock.now() + timedelta(seconds=later))


# --- States -----------------------------------------------------------------------------------------------------------
BECOMES = {
    "in batch": "delivered",  # Perhaps being sent at this moment.
    "waiting": "queued",  # It was never sent: the app cannot have it.
    "unknown": "delivered",
    "sent": "delivered",
    **{state: state for state in ("delivered", "failed", "expired", "skipped", "cancelled")},
}


@pytest.mark.parametrize("event", AckEvent)
@pytest.mark.parametrize("state", BECOMES)
def test_every_event_in_every_state(vendors: Sandbox, state: str, event: AckEvent) -> None:
    case = Case("fcm")
    put_into(case, state)
    before = case.delivery

    assert say(case, event) is Acknowledged.NOTED

    after, row = case.delivery, case.row
    assert (after["state"], list(after["acks"])) == (BECOMES[state], [event.value])
    if after["state"] == before["state"]:
        assert {**after, "acks": None} == {**before, "acks": None}
        return
    assert (row["state"], row["wake_at"]) == ("delivered", None)
    assert after["delivered_at"] == after["acks"][event.value]
    assert (after["error_code"], after["batch"]) == ("", before["batch"])
    assert world.delivery(row, "in_app")["state"] == "sent"


def test_what_is_in_doubt_and_waits_to_be_repeated_has_arrived_if_the_app_says_so(vendors: Sandbox) -> None:
    case = Case("fcm")
    put_into(case, "waiting")
    case.put(attempt_log=[attempt("unknown")], error_code="timeout")

    say(case)

    assert (case.delivery["state"], case.delivery["error_code"], case.row["wake_at"]) == ("delivered", "", None)


def test_the_first_time_of_each_event_is_kept_whatever_the_order(vendors: Sandbox) -> None:
    case = Case("apns")
    put_into(case, "sent")
    for later, event in enumerate([AckEvent.OPENED, AckEvent.RECEIVED, AckEvent.OPENED, AckEvent.RECEIVED]):
        assert say(case, event, later) is Acknowledged.NOTED

    acks = case.delivery["acks"]
    assert set(acks) == {"opened", "received"}  # Nobody said that it was seen.
    assert timedelta(0) < acks["received"] - acks["opened"] < timedelta(seconds=2)
    assert case.delivery["delivered_at"] == acks["opened"]


def test_a_repeat_changes_nothing(vendors: Sandbox) -> None:
    case = Case("onesignal")
    put_into(case, "sent")
    say(case)
    before = case.row

    assert say(case, later=5) is Acknowledged.NOTED
    assert case.row == before


def test_a_failure_stays_and_keeps_its_review(vendors: Sandbox) -> None:
    case = Case("fcm")
    put_into(case, "failed")

    say(case)

    assert (case.row["state"], case.row["review"]["open"]) == ("failed", True)


def test_an_unknown_outcome_is_settled_with_its_review(vendors: Sandbox) -> None:
    case = Case("fcm")
    put_into(case, "unknown")
    assert case.row["review"]["open"]

    say(case, AckEvent.OPENED)

    assert (case.row["state"], case.row["review"]["open"]) == (SUMMARY["delivered"], False)


# --- Beside our own record and the vendor's receipts ------------------------------------------------------------------
def test_an_acknowledgement_before_our_record_ends_as_one_after_it(vendors: Sandbox) -> None:
    first, second = Case("fcm"), Case("fcm")
    for case in (first, second):
        claim(case.batch["_id"], 30)
    say(first)
    first.record(first.sent_patch())
    second.record(second.sent_patch())
    say(second)

    facts = ("state", "batch", "attempts", "provider_message_id", "error_code", "next_attempt_at")
    assert {name: first.delivery[name] for name in facts} == {name: second.delivery[name] for name in facts}
    assert (first.delivery["state"], first.delivery["attempts"]) == ("delivered", 1)
    assert first.delivery["sent_at"] == first.delivery["last_attempt_at"]


def test_a_batch_lets_go_of_what_was_acknowledged(vendors: Sandbox) -> None:
    case = Case("fcm")
    say(case)

    world.deliver_all()

    assert (case.delivery["state"], case.delivery["batch"]) == ("delivered", None)
    assert vendors.stats("fcm")["accepted"] == 0


def test_a_receipt_after_it_is_no_news_and_one_before_it_counts_alone(vendors: Sandbox) -> None:
    arrived = Receipt(Outcome.DELIVERED, "message.push.received")
    before = look()
    for acknowledged_first in (True, False):
        case = Case("onesignal")
        put_into(case, "sent")
        if acknowledged_first:
            say(case)
        assert case.note(arrived) is (Noted.NOTHING_NEW if acknowledged_first else Noted.CHANGED)
        for event in AckEvent:
            say(case, event)

    assert added(before, look(), DELIVERIES, *OUTCOMES) == {
        ("onesignal", "delivered", ""): 2, ("in_app", "sent", ""): 2,
    }  # fmt: skip


# --- Devices ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("channel", PUSH_CHANNELS)
def test_the_message_itself_says_how_to_acknowledge_it(vendors: Sandbox, channel: Channel) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, channel, channel)
    event = world.trade(trader)
    world.fan_out(event)
    world.deliver_all()
    _, message = vendors.accepted(channel)
    data = message["body"] if channel is Channel.APNS else message["body"]["data"]

    ack = Ack(ObjectId(data["notification_id"]), AckEvent.SEEN, channel, ObjectId(data["device_id"]))
    assert acknowledge(follower.pk, ack, clock.now()) is Acknowledged.NOTED

    in_app, *pushes = world.alert(event, follower)["deliveries"]
    states = {str(d["endpoint"]): d["state"] for d in pushes}
    assert states.pop(data["device_id"]) == DeliveryState.DELIVERED
    assert (set(states.values()), in_app["state"]) == ({"sent"}, "sent")


def test_without_a_device_it_is_the_only_one_or_a_question(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm", "fcm", "apns")
    event = world.trade(trader)
    world.fan_out(event)
    world.deliver_all()
    row = world.alert(event, follower)

    def say_on(channel: Channel, device: ObjectId | None = None) -> Acknowledged:
        return acknowledge(follower.pk, Ack(row["_id"], AckEvent.SEEN, channel, device), clock.now())

    assert say_on(Channel.FCM) is Acknowledged.WHICH_DEVICE
    assert say_on(Channel.ONESIGNAL) is Acknowledged.NOT_FOUND
    assert say_on(Channel.FCM, world.delivery(row, "apns")["endpoint"]) is Acknowledged.NOT_FOUND
    assert world.alert(event, follower) == row
    assert say_on(Channel.APNS) is Acknowledged.NOTED
    assert world.delivery(world.alert(event, follower), "apns")["state"] == "delivered"


def test_nobody_acknowledges_anothers_alert(vendors: Sandbox) -> None:
    case = Case("fcm")
    put_into(case, "sent")
    other, before = world.make_follower(case.trader), case.row

    for ack in (Ack(case.id), Ack(case.id, channel=Channel.FCM), Ack(case.id, channel=Channel.FCM,
                device=case.delivery["endpoint"])):  # fmt: skip
        assert acknowledge(other.pk, ack, clock.now()) is Acknowledged.NOT_FOUND
    assert case.row == before


# --- Shown ------------------------------------------------------------------------------------------------------------
def test_trace_page_and_evidence_show_what_the_app_said(admin_client: Client, vendors: Sandbox) -> None:
    case = Case("fcm")
    put_into(case, "sent")
    say(case, AckEvent.OPENED)
    acknowledge(case.follower.pk, Ack(case.id), clock.now())
    out = StringIO()

    call_command("trace", str(case.id), stdout=out, no_color=True)
    page = admin_client.get(reverse("admin:notifications_notification_change", args=[case.id])).content.decode()
    (told,) = evidence(iter([case.id]))

    assert "in_app: received, says the app" in out.getvalue()
    assert "Firebase push" in next(line for line in out.getvalue().splitlines() if "opened, says the app" in line)
    assert "opened, says the app" in page
    assert "Opened in the app" in page
    in_app, fcm = told["deliveries"]
    assert (in_app["ack_received_at"], in_app["ack_opened_at"]) == (in_app["delivered_at"], None)
    assert fcm["ack_opened_at"] == fcm["delivered_at"]
    assert orjson.dumps(told)
