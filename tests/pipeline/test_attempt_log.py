"""What a delivery's log forgets when it gets long, and what it never forgets."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings

from delivery import statements
from delivery.attempt_log import ATTEMPTS_KEPT
from delivery.channels.base import Outcome, Result
from delivery.channels.receipts import Receipt, Reference
from delivery.outcomes import patch_for, repeat_is_undecided
from delivery.receipts import Noted, note
from devstack.vendors.client import Sandbox
from followers import clock
from followers.choices import Channel
from followers.mongo import collection
from notifications.models import Notification
from notifications.reviews import REQUESTED
from tests.pipeline import world

pytestmark = pytest.mark.django_db(transaction=True)
LONG = [Outcome.UNKNOWN, *[Outcome.THROTTLED] * (ATTEMPTS_KEPT + 1)]
"""A doubt, and then so many 429s, which spend no attempt, that the log is longer than it may be."""


def alert_on(channel: str) -> tuple[dict[str, Any], Any]:
    """A trade and the batch that holds its one alert."""
    trader = world.make_trader()
    world.make_follower(trader, channel)
    event = world.trade(trader)
    world.fan_out(event)
    (batch,) = world.unclaimed()
    return event, batch


def record(batch: Any, channel: str, *outcomes: Outcome) -> Any:
    """Attempts in that order; each leaves the delivery in its batch, so that the next one finds it. Returns it."""
    for outcome in outcomes:
        (row,) = statements.load(batch)
        delivery = statements.delivery_in(row, batch["_id"])
        policy = settings.CHANNEL_POLICIES[channel]
        patch = patch_for(row, delivery, Result(outcome, code=f"c-{outcome}"), policy, True, clock.now())
        statements.record(batch["_id"], [replace(patch, fields={**patch.fields, "batch": batch["_id"]})])
    (row,) = statements.load(batch)
    return statements.delivery_in(row, batch["_id"])


def log_of(event: dict[str, Any], channel: str) -> list[str]:
    (row,) = world.alerts(event)
    return [attempt["outcome"] for attempt in world.delivery(row, channel)["attempt_log"]]


def test_doubt_outlives_any_number_of_429s(vendors: Sandbox) -> None:
    event, batch = alert_on("fcm")
    waiting = record(batch, "fcm", *LONG)
    assert repeat_is_undecided(waiting), "Past the vendor's window for keys it may not be sent again."
    assert log_of(event, "fcm") == ["unknown", *["throttled"] * ATTEMPTS_KEPT]

    record(batch, "fcm", Outcome.REFUSED)

    (row,) = world.alerts(event)
    ended = world.delivery(row, "fcm")
    assert (ended["state"], ended["error_code"]) == ("unknown", "c-refused")
    assert log_of(event, "fcm") == ["unknown", *["throttled"] * (ATTEMPTS_KEPT - 1), "refused"]


def test_log_without_a_doubt_keeps_its_newest_entries(vendors: Sandbox) -> None:
    event, batch = alert_on("fcm")
    record(batch, "fcm", Outcome.RETRY, *LONG[1:])
    assert log_of(event, "fcm") == ["throttled"] * ATTEMPTS_KEPT


def test_persons_decision_is_kept_in_its_place(vendors: Sandbox) -> None:
    event, batch = alert_on("fcm")
    record(batch, "fcm", Outcome.UNKNOWN)
    entry = {"at": clock.now(), "outcome": REQUESTED, "code": "", "message": "sam: again", "latency_ms": None}
    collection(Notification).update_one(
        {"deliveries.batch": batch["_id"]}, {"$push": {"deliveries.$.attempt_log": entry}}
    )
    decided = record(batch, "fcm", *LONG[1:])
    assert log_of(event, "fcm") == ["unknown", REQUESTED, *["throttled"] * ATTEMPTS_KEPT]
    assert not repeat_is_undecided(decided)


def test_receipt_of_an_earlier_attempt_still_counts_after_429s(vendors: Sandbox) -> None:
    event, batch = alert_on("onesignal")
    record(batch, "onesignal", *LONG)
    (row,) = world.alerts(event)
    earlier = Reference(row["_id"], world.delivery(row, "onesignal")["endpoint"], row["_id"])
    lost = Receipt(Outcome.REFUSED, status="message.push.failed", code="failed", message="")

    assert note(earlier, Channel.ONESIGNAL, lost, clock.now()) is Noted.CHANGED

    assert log_of(event, "onesignal") == ["unknown", *["throttled"] * (ATTEMPTS_KEPT - 1), "receipt"]


def test_crash_after_429s_is_a_doubt_as_well(vendors: Sandbox) -> None:
    event, batch = alert_on("fcm")
    record(batch, "fcm", *LONG)
    statements.requeue_rows(batch, batch["ids"], clock.now() + timedelta(seconds=1), 15)
    assert log_of(event, "fcm") == ["unknown", *["throttled"] * (ATTEMPTS_KEPT - 1), "unknown"]
