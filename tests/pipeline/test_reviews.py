"""The review bucket: an alert enters it when a person is needed, and only then."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId

from devstack.vendors.client import Sandbox
from followers import clock
from followers.models import Endpoint, Follower
from followers.mongo import collection, durably
from followers.statements import deactivate_endpoint
from notifications import reviews
from notifications.acks import acknowledge
from notifications.choices import DeliveryState, Reason
from notifications.frames import Ack
from notifications.models import Notification
from notifications.statements import change_deliveries, derive, ended
from tests.pipeline import world

pytestmark = pytest.mark.django_db(transaction=True)
Document = dict[str, Any]


def told(*channels: str, **details: Any) -> tuple[Document, Follower]:
    """A trade, and a follower whose alert about it is fanned out."""
    trader = world.make_trader()
    follower = world.make_follower(trader, *channels)
    event = world.trade(trader, **details)
    world.fan_out(event)
    return event, follower


def refuse(vendors: Sandbox, vendor: str, code: str) -> None:
    vendors.behave(vendor, rules=[{"match": {}, "code": code}])


def review(event: Document, follower: Follower | None) -> Document | None:
    return world.alert(event, follower)["review"]


def opened(event: Document, follower: Follower | None) -> Document:
    found = review(event, follower)
    assert found is not None
    assert found["open"]
    return found


def end(event: Document, follower: Follower, channel: str, state: DeliveryState, **fields: Any) -> None:
    """As a statement of the pipeline would end one delivery."""
    pipeline = change_deliveries({"$eq": ["$$d.channel", channel]}, {**ended(state, Reason.NO_ANSWER), **fields})
    row = world.alert(event, follower)
    durably(lambda: collection(Notification).update_one({"_id": row["_id"]}, pipeline))


# --- Opening ---------------------------------------------------------------------------------------------------------
def test_what_arrived_needs_nobody(vendors: Sandbox) -> None:
    event, follower = told("fcm", "sms")
    world.deliver_all()
    assert review(event, follower) is None


def test_a_refusal_opens_a_review_even_though_another_channel_arrived(vendors: Sandbox) -> None:
    refuse(vendors, "twilio", code="21612")
    event, follower = told("fcm", "sms")
    world.deliver_all()
    found = opened(event, follower)
    assert (found["reason"], found["channels"], found["assignee"], found["resolved_at"]) == (
        "failed",
        ["sms"],
        "",
        None,
    )
    assert found["codes"] == ["sms:21612"]


def test_an_unknown_outcome_opens_a_review_while_others_are_still_under_way(vendors: Sandbox) -> None:
    vendors.behave("twilio", rules=[{"match": {}, "accept_then_reset": True}])
    vendors.behave("fcm", rules=[{"match": {}, "status": 503}])
    event, follower = told("sms", "fcm")
    world.deliver_all()
    assert world.alert(event, follower)["state"] == "pending"
    found = opened(event, follower)
    assert (found["reason"], found["channels"], found["codes"]) == ("unknown", ["sms"], ["sms:connection_lost"])


def test_a_crash_in_the_middle_of_an_sms_opens_a_review(vendors: Sandbox) -> None:
    event, follower = told("sms")
    (batch,) = world.unclaimed()
    world.crash_in(batch["_id"])
    world.sweep()
    assert opened(event, follower)["codes"] == ["sms:crashed_in_send"]


def test_an_expired_alert_is_no_work(vendors: Sandbox) -> None:
    vendors.behave("fcm", rules=[{"match": {}, "status": 503}])
    event, follower = told("fcm")
    world.deliver_all()
    world.sweep(after_seconds=90_000)
    row = world.alert(event, follower)
    assert (row["state"], row["review"]) == ("expired", None)


def test_a_dead_address_is_noise_once_something_else_arrived(vendors: Sandbox) -> None:
    refuse(vendors, "fcm", code="dead")
    event, follower = told("fcm", "sms")
    world.deliver_all()
    row = world.alert(event, follower)
    assert (world.states(row)["fcm"], world.states(row)["sms"], row["review"]) == ("failed", "sent", None)


def test_a_dead_address_is_told_by_a_receipt_that_overtook_the_record_of_its_attempt(vendors: Sandbox) -> None:
    event, follower = told("sms", "fcm")
    end(event, follower, "fcm", DeliveryState.SENT)
    entry = {"at": clock.now(), "code": "30005", "message": "", "latency_ms": None}
    log = [{**entry, "outcome": "dead"}, {**entry, "outcome": "sent", "code": ""}]
    end(event, follower, "sms", DeliveryState.FAILED, error_code="30005", attempt_log=log)
    assert review(event, follower) is None


def test_a_dead_address_waits_for_the_others_before_it_needs_anybody(vendors: Sandbox) -> None:
    refuse(vendors, "fcm", code="dead")
    vendors.behave("onesignal", rules=[{"match": {}, "status": 503}])
    event, follower = told("fcm", "onesignal")
    world.deliver_all()
    assert review(event, follower) is None

    end(event, follower, "onesignal", DeliveryState.EXPIRED)

    found = opened(event, follower)
    assert (found["reason"], found["channels"]) == ("unreached", ["fcm"])


def test_an_unread_inbox_entry_is_nobody_reached_and_a_read_one_settles_it(vendors: Sandbox) -> None:
    refuse(vendors, "fcm", code="dead")
    event, follower = told("fcm")
    world.deliver_all()
    opened(event, follower)

    acknowledge(follower.pk, Ack(world.alert(event, follower)["_id"]), clock.now())

    found = review(event, follower)
    assert found is not None
    assert (found["open"], found["resolved_by"], found["note"]) == (False, "system", reviews.SETTLED_NOTE)
    assert found["resolved_at"] is not None


def test_a_dead_community_webhook_needs_somebody(vendors: Sandbox) -> None:
    refuse(vendors, "discord", code="dead")
    trader = world.make_trader()
    world.add_endpoint("discord", trader=trader)
    event = world.trade(trader)
    world.fan_out(event)
    world.deliver_all()
    assert opened(event, None)["reason"] == "unreached"


def test_attempts_that_ran_out_are_found_by_the_last_attempts_code_too(vendors: Sandbox) -> None:
    event, follower = told("fcm")
    log = [{"at": clock.now(), "outcome": "retry", "code": "http_503", "message": "", "latency_ms": 1.0}]
    end(event, follower, "fcm", DeliveryState.FAILED, error_code="attempts_exhausted", attempt_log=log)
    assert opened(event, follower)["codes"] == ["fcm:attempts_exhausted", "fcm:http_503"]


def test_rows_from_before_the_bucket_are_opened_by_the_next_change(vendors: Sandbox) -> None:
    event, follower = told("fcm")
    row = world.alert(event, follower)
    collection(Notification).update_one({"_id": row["_id"]}, {"$unset": {"review": ""}})
    end(event, follower, "fcm", DeliveryState.FAILED)
    opened(event, follower)


# --- Once, and no more -----------------------------------------------------------------------------------------------
def test_an_open_review_keeps_its_time_and_its_assignee_when_more_fails(vendors: Sandbox) -> None:
    event, follower = told("fcm", "sms")
    end(event, follower, "fcm", DeliveryState.FAILED)
    first = opened(event, follower)
    reviews.assign([world.alert(event, follower)["_id"]], "ana")

    end(event, follower, "sms", DeliveryState.UNKNOWN)

    found = opened(event, follower)
    assert (found["opened_at"], found["assignee"]) == (first["opened_at"], "ana")
    assert (found["reason"], found["channels"]) == ("unknown", ["fcm", "sms"])


def test_a_resolved_review_stays_resolved_until_something_new_fails(vendors: Sandbox) -> None:
    event, follower = told("fcm", "sms", "apns")
    end(event, follower, "fcm", DeliveryState.FAILED)
    row = world.alert(event, follower)
    now = clock.now()
    assert reviews.resolve([row["_id"]], "ana", "$called them", now) == [row["_id"]]
    assert reviews.resolve([row["_id"]], "ben", "me too", now) == []

    end(event, follower, "apns", DeliveryState.SENT)
    found = review(event, follower)
    assert found is not None
    assert (found["open"], found["resolved_by"], found["note"]) == (False, "ana", "$called them")

    end(event, follower, "sms", DeliveryState.UNKNOWN)
    found = opened(event, follower)
    assert (found["resolved_at"], found["resolved_by"], found["note"]) == (None, "", "$called them")


def test_the_rule_changes_nothing_when_it_is_applied_again(vendors: Sandbox) -> None:
    event, follower = told("fcm", "sms")
    end(event, follower, "fcm", DeliveryState.FAILED)
    before = world.alert(event, follower)
    collection(Notification).update_many({}, derive())
    assert world.alert(event, follower) == before


def test_open_reviews_are_counted_by_their_index_alone(vendors: Sandbox) -> None:
    for _ in range(2):
        event, follower = told("fcm")
        end(event, follower, "fcm", DeliveryState.FAILED)
    told("fcm")
    assert reviews.open_reviews() == 2
    reviews.resolve([world.alert(event, follower)["_id"]], "ana", "done", clock.now())
    assert reviews.open_reviews() == 1


def test_resolve_and_assign_touch_open_reviews_only(vendors: Sandbox) -> None:
    event, follower = told("fcm")
    row = world.alert(event, follower)
    assert reviews.resolve([row["_id"], ObjectId()], "ana", "x", clock.now()) == []
    assert reviews.assign([row["_id"]], "ana") == []
    assert world.alert(event, follower) == row


# --- Dead endpoints --------------------------------------------------------------------------------------------------
def test_a_dead_token_is_deactivated_once_with_its_first_reason_and_time(vendors: Sandbox) -> None:
    refuse(vendors, "fcm", code="dead")
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm")
    world.fan_out(world.trade(trader), world.trade(trader))
    endpoint = Endpoint.objects.get(follower=follower)
    registered = collection(Endpoint).find_one({"_id": endpoint.pk})["registered_at"]  # type: ignore[index]
    world.deliver_once()
    endpoint.refresh_from_db()
    assert (endpoint.active, endpoint.deactivated_reason) == (False, "UNREGISTERED")

    assert not deactivate_endpoint(endpoint.pk, registered, "another", clock.now() + timedelta(hours=1))
    again = Endpoint.objects.get(pk=endpoint.pk)
    assert (again.deactivated_at, again.deactivated_reason) == (endpoint.deactivated_at, "UNREGISTERED")


def test_a_token_that_was_registered_again_outlives_an_older_dead_answer(vendors: Sandbox) -> None:
    _event, follower = told("fcm")
    endpoint = Endpoint.objects.get(follower=follower)
    before = endpoint.registered_at
    Endpoint.objects.filter(pk=endpoint.pk).update(registered_at=before + timedelta(seconds=1))
    assert not deactivate_endpoint(endpoint.pk, before, "UNREGISTERED", clock.now())
    endpoint.refresh_from_db()
    assert endpoint.active
