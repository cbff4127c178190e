"""Receipts: what they change and what they never change, before and after our own record, and across a crash."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId

from delivery import dispatcher, statements
from delivery.channels.base import Outcome
from delivery.channels.receipts import Receipt, Reference
from delivery.lease import claim
from delivery.outcomes import never_started
from delivery.receipts import Noted, note, settle
from delivery.statements import Patch
from devstack.vendors.client import Sandbox
from followers import clock
from followers.choices import Channel
from followers.models import Endpoint
from followers.mongo import collection
from notifications.choices import DeliveryState, Reason
from notifications.models import Notification
from notifications.statements import change_deliveries, ended, mark_superseded
from tests.pipeline import world

pytestmark = pytest.mark.django_db(transaction=True)
Document = dict[str, Any]

SID = "SM" + "1" * 32
ON_ITS_WAY = Receipt(Outcome.SENT, "sent", provider_message_id=SID)
ARRIVED = Receipt(Outcome.DELIVERED, "delivered", provider_message_id=SID)
LOST = Receipt(Outcome.REFUSED, "undelivered", "30007", "The carrier filtered the message", SID)
UNREACHED = Receipt(Outcome.RETRY, "undelivered", "30003", "The phone could not be reached", SID)
GONE = Receipt(Outcome.DEAD, "undelivered", "30005", "The number is unknown or no longer in use", SID)
SUSPENDED = Receipt(Outcome.MISCONFIGURED, "failed", "30002", "Our account is suspended", SID)
RECEIPTS = {"sent": ON_ITS_WAY, "delivered": ARRIVED, "lost": LOST, "unreached": UNREACHED, "gone": GONE}


class Case:
    """One alert with one delivery, in a batch of its own that a worker may claim."""

    def __init__(self, channel: str = "sms", **details: Any) -> None:
        self.channel = Channel(channel)
        self.trader = world.make_trader()
        self.follower = world.make_follower(self.trader, channel)
        self.event = world.trade(self.trader, **details)
        world.fan_out(self.event)
        self.id = self.row["_id"]
        self.batch = world.batch(self.delivery["batch"])
        self.reference = Reference(self.id, self.delivery["endpoint"], self.batch["_id"])

    @property
    def row(self) -> Document:
        return world.alert(self.event, self.follower)

    @property
    def delivery(self) -> Document:
        return world.delivery(self.row, self.channel)

    def put(self, **fields: Any) -> None:
        """Sets fields of the stored delivery."""
        pipeline = change_deliveries({"$eq": ["$$d.channel", self.channel.value]}, fields)
        collection(Notification).update_one({"_id": self.id}, pipeline)

    def note(self, receipt: Receipt, reference: Reference | None = None) -> Noted:
        return note(reference or self.reference, self.channel, receipt, clock.now())

    def record(self, patch: Patch) -> None:
        statements.record(self.batch["_id"], [patch])

    def sent_patch(self, sid: str = SID) -> Patch:
        at = clock.now()
        fields = {
            **ended(DeliveryState.SENT),
            "last_attempt_at": at,
            "sent_at": at,
            "provider_message_id": sid,
            "error_code": "",
            "error_message": "",
        }
        return Patch(self.id, fields, 1, attempt("sent"))

    def unknown_patch(self) -> Patch:
        fields = {**ended(DeliveryState.UNKNOWN, Reason.NO_ANSWER), "last_attempt_at": clock.now()}
        return Patch(self.id, fields, 1, attempt("unknown"))


def attempt(outcome: str) -> Document:
    return {"at": clock.now(), "outcome": outcome, "code": "", "message": "", "latency_ms": 1.0}


def outcomes(delivery: Document) -> list[str]:
    return [entry["outcome"] for entry in delivery["attempt_log"]]


# --- The table: every state, every receipt ----------------------------------------------------------------------------
STAYS = ("delivered", "failed", "expired", "skipped", "cancelled")
EXPECTED: dict[tuple[str, str], str] = {
    **{(state, receipt): state for state in STAYS for receipt in RECEIPTS},
    ("in batch", "sent"): "sent",
    ("in batch", "delivered"): "delivered",
    ("in batch", "lost"): "failed",
    ("in batch", "unreached"): "queued",
    ("in batch", "gone"): "failed",
    ("waiting", "sent"): "queued",  # It can only speak of an earlier attempt.
    ("waiting", "delivered"): "delivered",
    ("waiting", "lost"): "queued",
    ("waiting", "unreached"): "queued",
    ("waiting", "gone"): "queued",
    ("unknown", "sent"): "sent",
    ("unknown", "delivered"): "delivered",
    ("unknown", "lost"): "failed",
    ("unknown", "unreached"): "failed",  # Known now; but what was in doubt is not sent again by itself.
    ("unknown", "gone"): "failed",
    ("sent", "sent"): "sent",
    ("sent", "delivered"): "delivered",
    ("sent", "lost"): "failed",
    ("sent", "unreached"): "queued",
    ("sent", "gone"): "failed",
}
SUMMARY = {
    "sent": "delivered", "delivered": "delivered", "failed": "failed", "unknown": "failed", "queued": "pending",
    "expired": "expired", "skipped": "skipped", "cancelled": "cancelled",
}  # fmt: skip


def put_into(case: Case, state: str) -> None:
    if state == "in batch":
        return
    waiting = state == "waiting"
    case.put(
        state="queued" if waiting else state,
        batch=None,
        attempts=1,
        next_attempt_at=clock.now() + timedelta(seconds=60) if waiting else None,
        provider_message_id=SID if state == "sent" else "",
    )


@pytest.mark.parametrize(("state", "word"), EXPECTED)
def test_every_receipt_in_every_state(vendors: Sandbox, state: str, word: str) -> None:
    case = Case()
    put_into(case, state)
    before = case.delivery

    noted = case.note(RECEIPTS[word])

    after, row = case.delivery, case.row
    expected = EXPECTED[state, word]
    moved = (state, word) in {("in batch", "unreached"), ("sent", "unreached")} or expected != before["state"]
    assert (after["state"], noted) == (expected, Noted.CHANGED if moved else Noted.NOTHING_NEW)
    if not moved:
        assert after == before
        return
    assert row["state"] == SUMMARY[expected]
    assert (row["wake_at"] is not None) == (expected == "queued")
    assert after["provider_message_id"] == SID
    assert (after["delivered_at"] is not None) == (expected == "delivered")
    assert outcomes(after)[-1] == ("dead" if word == "gone" else "receipt")
    entry = after["attempt_log"][-1]
    assert "receipt" in entry["message"]
    if expected in {"failed", "queued"}:
        assert (after["error_code"], entry["code"]) == (RECEIPTS[word].code,) * 2
        assert after["error_message"] == RECEIPTS[word].message
    else:
        assert (after["error_code"], entry["code"]) == ("", RECEIPTS[word].status)


@pytest.mark.parametrize(("state", "word"), EXPECTED)
def test_receipt_told_again_changes_nothing(vendors: Sandbox, state: str, word: str) -> None:
    case = Case()
    put_into(case, state)
    case.note(RECEIPTS[word])
    before = case.row

    assert case.note(RECEIPTS[word]) is Noted.NOTHING_NEW
    assert case.row == before


@pytest.mark.parametrize(
    ("words", "state"),
    [
        (("delivered", "sent"), "delivered"),
        (("delivered", "lost"), "delivered"),
        (("lost", "sent"), "failed"),
        (("lost", "delivered"), "failed"),
        (("sent", "delivered", "sent"), "delivered"),
    ],
)
def test_late_receipt_takes_nothing_back(vendors: Sandbox, words: tuple[str, ...], state: str) -> None:
    case = Case()
    put_into(case, "sent")
    for word in words:
        case.note(RECEIPTS[word])
    assert case.delivery["state"] == state


def test_receipt_for_nobody(vendors: Sandbox) -> None:
    case = Case()
    nobody = replace(case.reference, notification=ObjectId())
    other = replace(case.reference, endpoint=ObjectId())
    before = case.row

    assert {settle(r, Channel.SMS, GONE, clock.now()) for r in (nobody, other)} == {Noted.NO_SUCH_DELIVERY}
    assert note(case.reference, Channel.ONESIGNAL, ARRIVED, clock.now()) is Noted.NO_SUCH_DELIVERY
    assert case.row == before


# --- Before our own record --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("word", "state"), [("sent", "sent"), ("delivered", "delivered"), ("lost", "failed")])
def test_record_adds_the_attempt_to_a_receipt_that_was_quicker(vendors: Sandbox, word: str, state: str) -> None:
    case = Case()
    claim(case.batch["_id"], 30)
    case.note(RECEIPTS[word])
    told = case.delivery
    assert told["batch"] == case.batch["_id"]

    patch = case.sent_patch()
    case.record(patch)

    after = case.delivery
    assert (after["state"], after["batch"], after["attempts"]) == (state, None, 1)
    assert (after["error_code"], after["error_message"]) == (told["error_code"], told["error_message"])
    assert after["delivered_at"] == told["delivered_at"]
    assert after["sent_at"] == after["last_attempt_at"] == patch.fields["sent_at"].replace(tzinfo=None)
    assert outcomes(after) == ["receipt", "sent"]
    assert case.row["state"] == SUMMARY[state]


@pytest.mark.parametrize(("word", "state"), [("sent", "sent"), ("delivered", "delivered"), ("lost", "failed")])
def test_both_orders_end_alike(vendors: Sandbox, word: str, state: str) -> None:
    first, second = Case(), Case()
    first.note(RECEIPTS[word])
    first.record(first.sent_patch())
    second.record(second.sent_patch())
    second.note(RECEIPTS[word])

    facts = ("state", "batch", "attempts", "provider_message_id", "error_code", "error_message", "next_attempt_at")
    assert {name: first.delivery[name] for name in facts} == {name: second.delivery[name] for name in facts}
    assert first.delivery["state"] == state


def test_record_of_no_answer_does_not_undo_a_receipt(vendors: Sandbox) -> None:
    case = Case()
    claim(case.batch["_id"], 30)
    case.note(ARRIVED)
    case.record(case.unknown_patch())

    after = case.delivery
    assert (after["state"], after["error_code"], after["attempts"]) == ("delivered", "", 1)
    assert after["provider_message_id"] == SID


def test_batch_that_started_nothing_lets_go_of_what_a_receipt_ended(vendors: Sandbox) -> None:
    case = Case()
    claim(case.batch["_id"], 30)
    case.note(ARRIVED)
    case.record(never_started(case.row, clock.now()))
    assert (case.delivery["state"], case.delivery["batch"], case.row["wake_at"]) == ("delivered", None, None)


def test_what_a_receipt_ended_is_not_sent_by_the_batch_that_holds_it(vendors: Sandbox) -> None:
    case = Case()
    case.note(ARRIVED)

    world.deliver_all()

    assert vendors.stats("twilio")["requests"] == 0
    assert (case.delivery["state"], case.delivery["batch"], case.delivery["attempts"]) == ("delivered", None, 0)
    assert world.batch(case.batch["_id"])["finished_at"] is not None


def test_undelivered_before_the_record_is_queued_again_and_counted_once(vendors: Sandbox) -> None:
    case = Case()
    claim(case.batch["_id"], 30)
    case.note(UNREACHED)
    told = case.delivery
    assert (told["state"], told["batch"], told["attempts"], told["error_code"]) == ("queued", None, 1, "30003")

    case.record(case.sent_patch())

    assert case.delivery == told


def test_undelivered_after_an_early_sent_is_queued_again_and_counted_once(vendors: Sandbox) -> None:
    case = Case()
    claim(case.batch["_id"], 30)
    case.note(ON_ITS_WAY)
    case.note(UNREACHED)
    case.record(case.sent_patch())
    assert (case.delivery["state"], case.delivery["attempts"]) == ("queued", 1)


# --- Sent again -------------------------------------------------------------------------------------------------------
def test_undelivered_sms_is_sent_again_and_only_the_newest_message_counts(vendors: Sandbox) -> None:
    case = Case()
    world.deliver_all()
    first = case.delivery["provider_message_id"]

    assert case.note(replace(UNREACHED, provider_message_id=first)) is Noted.CHANGED
    waiting = case.delivery
    wait = (waiting["next_attempt_at"] - waiting["attempt_log"][-1]["at"]).total_seconds()
    assert (waiting["state"], waiting["attempts"]) == ("queued", 1)
    assert 1 <= wait <= 3  # base + uniform(0, base·2).

    world.sweep(after_seconds=4)
    again = case.delivery["batch"]
    assert again not in {None, case.reference.batch}
    # Twilio repeats itself while the second SMS is on its way: that is no news of the second one.
    assert case.note(replace(UNREACHED, provider_message_id=first)) is Noted.NOTHING_NEW
    world.deliver_all()

    after = case.delivery
    assert (after["state"], after["attempts"]) == ("sent", 2)
    assert after["provider_message_id"] != first
    assert outcomes(after) == ["sent", "receipt", "sent"]
    assert case.note(replace(LOST, provider_message_id=first)) is Noted.NOTHING_NEW
    second = replace(ARRIVED, provider_message_id=after["provider_message_id"])
    assert case.note(second, replace(case.reference, batch=again)) is Noted.CHANGED
    assert vendors.stats("twilio")["accepted"] == 2


def test_undelivered_sms_fails_once_its_attempts_are_used_up(vendors: Sandbox, settings: Any) -> None:
    policies = settings.CHANNEL_POLICIES
    settings.CHANNEL_POLICIES = {**policies, "sms": replace(policies["sms"], max_attempts=1)}
    case = Case()
    case.record(case.sent_patch())
    case.note(UNREACHED)
    assert (case.delivery["state"], case.delivery["error_code"], case.row["wake_at"]) == ("failed", "30003", None)


def test_undelivered_sms_fails_where_a_repeat_would_come_too_late(vendors: Sandbox) -> None:
    case = Case()
    case.record(case.sent_patch())
    soon = clock.now() + timedelta(milliseconds=900)  # A retry waits a second at least.
    collection(Notification).update_one({"_id": case.id}, {"$set": {"expires_at": soon}})
    case.note(UNREACHED)
    assert (case.delivery["state"], case.delivery["error_code"]) == ("failed", "30003")


def test_undelivered_entry_is_not_sent_again_after_its_exit(vendors: Sandbox) -> None:
    case = Case()
    case.record(case.sent_patch())
    world.fan_out(world.trade(case.trader, action="CLOSE", side="SELL"))
    case.note(UNREACHED)

    world.sweep(after_seconds=4)
    world.deliver_all()

    assert (case.delivery["state"], case.delivery["error_code"]) == ("cancelled", "superseded_by_exit")


@pytest.mark.parametrize("receipt", [LOST, ON_ITS_WAY])
def test_keyed_channel_in_doubt_is_settled_by_a_receipt_of_the_attempt_before(
    vendors: Sandbox, receipt: Receipt
) -> None:
    # A repeat under the same key would be answered with the first message's id, and nothing would be sent.
    case = Case("onesignal")
    case.record(Patch(case.id, {"batch": None, "next_attempt_at": clock.now()}, 1, attempt("unknown")))
    assert case.note(receipt) is Noted.CHANGED
    assert case.delivery["state"] == ("failed" if receipt is LOST else "sent")


# --- Addresses and the account ----------------------------------------------------------------------------------------
def test_dead_number_is_deactivated_once(vendors: Sandbox) -> None:
    case = Case()
    case.record(case.sent_patch())
    settle(case.reference, Channel.SMS, GONE, clock.now())

    endpoint = Endpoint.objects.get(pk=case.reference.endpoint)
    assert (endpoint.active, endpoint.deactivated_reason) == (False, "30005")
    first = endpoint.deactivated_at
    settle(case.reference, Channel.SMS, GONE, clock.now() + timedelta(minutes=1))
    endpoint.refresh_from_db()
    assert endpoint.deactivated_at == first


def test_number_that_was_registered_again_since_stays(vendors: Sandbox) -> None:
    case = Case()
    case.record(case.sent_patch())
    Endpoint.objects.filter(pk=case.reference.endpoint).update(registered_at=clock.now() + timedelta(seconds=1))
    settle(case.reference, Channel.SMS, GONE, clock.now())
    assert Endpoint.objects.get(pk=case.reference.endpoint).active
    assert case.delivery["state"] == "failed"


def test_device_that_got_it_and_left_keeps_its_delivered_and_is_given_up(vendors: Sandbox) -> None:
    case = Case("onesignal")
    case.record(case.sent_patch())
    settle(case.reference, Channel.ONESIGNAL, ARRIVED, clock.now())
    left = Receipt(Outcome.DEAD, "message.push.unsubscribed", "unsubscribed", "The subscription has ended", SID)
    settle(case.reference, Channel.ONESIGNAL, left, clock.now())
    assert case.delivery["state"] == "delivered"
    assert not Endpoint.objects.get(pk=case.reference.endpoint).active


def test_suspended_account_is_an_error_in_the_log(vendors: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    case = Case()
    case.record(case.sent_patch())
    settle(case.reference, Channel.SMS, SUSPENDED, clock.now())
    assert (case.delivery["state"], case.delivery["error_code"]) == ("failed", "30002")
    assert [record.levelname for record in caplog.records if "account" in record.getMessage()] == ["ERROR"]


def test_vendors_words_are_never_read_as_an_expression(vendors: Sandbox) -> None:
    case = Case()
    case.record(case.sent_patch("$deliveries"))
    odd = Receipt(Outcome.REFUSED, "$$ROOT", "$_id", "$$NOW {$add}", "$deliveries")
    assert case.note(odd) is Noted.CHANGED
    after = case.delivery
    assert (after["error_code"], after["error_message"], after["provider_message_id"]) == (
        "$_id",
        "$$NOW {$add}",
        "$deliveries",
    )


# --- Across a crash, and beside every other statement -----------------------------------------------------------------
@pytest.mark.parametrize("channel", ["sms", "onesignal"])
@pytest.mark.parametrize(("word", "state"), [("sent", "sent"), ("delivered", "delivered"), ("lost", "failed")])
def test_dead_workers_delivery_that_a_receipt_ended_is_left_alone(
    vendors: Sandbox, channel: str, word: str, state: str
) -> None:
    case = Case(channel)
    world.crash_in(case.batch["_id"])
    case.note(RECEIPTS[word])

    world.sweep()
    world.deliver_all()
    world.sweep(after_seconds=120)
    world.deliver_all()

    after = case.delivery
    assert (after["state"], after["batch"], after["attempts"], outcomes(after)) == (state, None, 1, ["receipt"])
    assert case.row["wake_at"] is None
    assert world.accepted(vendors) == 0


def test_dead_workers_undelivered_sms_is_sent_again(vendors: Sandbox) -> None:
    case = Case()
    world.crash_in(case.batch["_id"])
    case.note(UNREACHED)
    world.sweep()
    assert case.delivery["state"] == "queued"

    world.sweep(after_seconds=4)
    world.deliver_all()

    assert (case.delivery["state"], case.delivery["attempts"]) == ("sent", 2)


def test_receipt_after_the_crash_resolves_the_doubt(vendors: Sandbox) -> None:
    case = Case()
    world.crash_in(case.batch["_id"])
    world.sweep()
    assert (case.delivery["state"], case.row["state"]) == ("unknown", "failed")
    case.note(ARRIVED)
    assert (case.delivery["state"], case.row["state"]) == ("delivered", "delivered")


def test_receipt_between_the_dispatchers_look_and_its_statement(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case("onesignal")
    world.crash_in(case.batch["_id"])
    requeue = statements.requeue_rows

    def with_receipt_before(*arguments: Any) -> int:
        case.note(ARRIVED)
        return requeue(*arguments)

    monkeypatch.setattr(dispatcher.batches, "requeue_rows", with_receipt_before)
    world.sweep()
    assert (case.delivery["state"], case.delivery["batch"], case.row["wake_at"]) == ("delivered", None, None)


def test_no_other_statement_touches_what_a_receipt_ended_in_its_batch(vendors: Sandbox) -> None:
    case = Case()
    claim(case.batch["_id"], 30)
    case.note(ARRIVED)
    before = case.delivery
    now = clock.now()
    past = {"$set": {"expires_at": now - timedelta(seconds=1)}}
    collection(Notification).update_one({"_id": case.id}, past)

    statements.wait_for_batch(case.batch["_id"], [case.id], now)
    statements.expire_free_rows([case.id], now)
    mark_superseded({"_id": case.id}, "E-exit")
    assert case.delivery == before
    statements.end_rows(case.batch, DeliveryState.EXPIRED, Reason.VALIDITY_OVER, only_expired_by=now)
    assert case.delivery == {**before, "batch": None, "attempts": 1}


def test_delivery_past_its_validity_in_an_unclaimed_batch_stays_delivered(vendors: Sandbox) -> None:
    case = Case(productType="CRYPTO")
    case.note(ARRIVED)
    world.sweep(after_seconds=400)
    world.deliver_all()
    assert (case.delivery["state"], case.row["state"]) == ("delivered", "delivered")
