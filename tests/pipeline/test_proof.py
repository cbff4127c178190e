"""The proof: a healthy system proves, and each kind of gap made by hand is named, and nothing else."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId

from delivery import proof as proof_module
from delivery.choices import Gap
from delivery.models import Batch
from delivery.proof import Proof, prove
from delivery.proof_findings import NAMED
from delivery.statements import shard_batch_id
from devstack.vendors.client import Sandbox
from followers import clock
from followers.models import Endpoint, Follow, Follower, follower_bucket
from followers.mongo import collection, database, quick
from notifications.choices import FanOutState
from notifications.models import Notification, TradeEvent
from notifications.statements import community_of, event_id, notification_id, notification_ids
from tests.pipeline import world

pytestmark = pytest.mark.django_db(transaction=True)
Document = dict[str, Any]


@pytest.fixture(autouse=True)
def _second_look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof_module, "SECOND_LOOK_SECONDS", 0.0)


def gaps(proof: Proof) -> dict[str, int]:
    return {gap.value: count for gap, count in proof.tally.gaps.items()}


def only_finding(proof: Proof, gap: Gap) -> Document:
    """The one thing that is missing."""
    assert gaps(proof) == {gap.value: 1}, proof.tally.named()
    (finding,) = proof.as_json()["findings"]
    return finding


def change_alert(row: Document, **fields: Any) -> None:
    collection(Notification).update_one({"_id": row["_id"]}, {"$set": fields})


def fanned_out(*channels: str, followers: int = 3) -> tuple[Document, list[Follower]]:
    """A trade whose alerts are stored and not yet sent."""
    trader = world.make_trader()
    people = [world.make_follower(trader, *channels) for _ in range(followers)]
    event = world.trade(trader)
    world.fan_out(event)
    return event, people


def long_ago() -> Any:
    return clock.now() - timedelta(days=1)


# --- Healthy ---------------------------------------------------------------------------------------------------------
def test_what_failed_or_is_unknown_has_come_to_an_end_and_proves(vendors: Sandbox) -> None:
    vendors.behave("twilio", rules=[{"match": {}, "accept_then_reset": True}])
    vendors.behave("fcm", rules=[{"match": {}, "code": "dead"}])
    event, _ = fanned_out("sms", "fcm")
    world.deliver_all()
    assert {row["review"]["open"] for row in world.alerts(event)} == {True}

    assert gaps(prove()) == {}


def test_a_healthy_run_through_the_pipeline_proves(vendors: Sandbox) -> None:
    trader = world.make_trader()
    for channels in (("fcm", "sms"), ("apns",), ("discord_dm", "onesignal"), ()):
        world.make_follower(trader, *channels)
    world.make_follower(trader, "fcm", portfolio="1")  # Skipped for its size, and still told nothing.
    world.add_endpoint("discord", trader=trader, registered_at=long_ago())
    world.fan_out(world.trade(trader), world.trade(trader, symbol="TCS"))

    before = prove()
    world.deliver_all()
    after = prove()

    assert before.holds, before.tally.named()
    assert before.tally.under_way == 12
    assert after.holds, after.tally.named()
    assert after.as_json()["alerts"] == {"owed": 12, "found": 12, "stored": 12}
    assert after.as_json()["events"]["done"] == 2
    assert after.as_json()["deliveries"]["discord"] == {"sent": 4}
    assert after.tally.under_way == 0
    assert not after.cut_short


def test_an_empty_database_proves() -> None:
    assert prove().holds


# --- Alerts ----------------------------------------------------------------------------------------------------------
def test_a_deleted_alert_is_named_and_only_it(vendors: Sandbox) -> None:
    event, people = fanned_out("fcm")
    world.deliver_all()
    row = world.alert(event, people[1])
    collection(Notification).delete_one({"_id": row["_id"]})

    finding = only_finding(prove(), Gap.ALERT_MISSING)

    assert finding["notification"] == str(row["_id"])
    assert finding["follower"] == str(people[1].pk)
    assert people[1].external_id in finding["text"]
    assert event["eventId"] in finding["text"]


@pytest.mark.slow
def test_one_alert_of_a_hundred_thousand_is_named() -> None:
    trader = world.make_trader()
    crowd = add_followers(trader.pk, 100_000)
    event = world.trade(trader)
    world.take_in_trades(event)
    stored = world.stored_event(event)
    # Fanned out by hand: the pipeline takes half a minute for so many.
    ids = notification_ids(stored["executed_at"], stored["external_id"], crowd)
    add_alerts(stored, ids, crowd)
    done = {"state": "done", "shards_done": list(range(stored["shards"])), "fanned_out_at": clock.now()}
    collection(TradeEvent).update_one({"_id": stored["_id"]}, {"$set": done})
    assert prove().as_json()["alerts"] == {"owed": 100_000, "found": 100_000, "stored": 100_000}

    collection(Notification).delete_one({"_id": ids[77_777]})

    assert only_finding(prove(), Gap.ALERT_MISSING)["notification"] == str(ids[77_777])


def add_followers(trader: ObjectId, count: int) -> list[ObjectId]:
    crowd = [ObjectId() for _ in range(count)]
    since = long_ago()
    for start in range(0, count, 10_000):
        part = crowd[start : start + 10_000]
        quick(Follower).insert_many([{"_id": f, "external_id": str(f)} for f in part], ordered=False)
        quick(Follow).insert_many(
            [
                {
                    "trader_id": trader, "follower_id": f, "since": since, "ended_at": None,
                    "bucket": follower_bucket(f),
                }
                for f in part
            ],
            ordered=False,
        )  # fmt: skip
    return crowd


def add_alerts(event: Document, ids: list[ObjectId], crowd: list[ObjectId]) -> None:
    common = {"event_id": event["_id"], "event_key": event["external_id"], "state": "delivered", "wake_at": None}
    deliveries = [{"channel": "in_app", "state": "sent"}, {"channel": "fcm", "state": "sent"}]
    for start in range(0, len(ids), 10_000):
        pairs = zip(ids[start : start + 10_000], crowd[start : start + 10_000], strict=True)
        rows = [{"_id": i, "follower_id": f, "deliveries": deliveries, **common} for i, f in pairs]
        quick(Notification).insert_many(rows, ordered=False)


def test_an_alert_that_was_written_is_missed_also_of_one_who_had_just_begun_to_follow() -> None:
    trader = world.make_trader()
    world.make_follower(trader)
    late = world.make_follower(trader, since=clock.now() - timedelta(seconds=1))
    event = world.trade(trader)
    world.fan_out(event)
    collection(Notification).delete_one({"_id": world.alert(event, late)["_id"]})

    assert only_finding(prove(), Gap.ALERT_MISSING)["follower"] == str(late.pk)


@pytest.mark.parametrize("leaves", ["ends", "began anew", "erased"])
def test_an_alert_that_was_written_is_missed_also_of_one_who_has_left_since(leaves: str) -> None:
    event, people = fanned_out()
    gone = world.alert(event, people[0])["_id"]
    follow = Follow.objects.filter(follower=people[0])
    if leaves == "erased":
        people[0].delete()
    else:
        follow.update(**({"ended_at": clock.now()} if leaves == "ends" else {"since": clock.now()}))
    assert prove().holds

    collection(Notification).delete_one({"_id": gone})

    finding = prove().as_json()["findings"][0]
    assert finding["event_id"] == event["eventId"]
    assert finding["gap"] in {Gap.ALERTS_GONE, Gap.ALERT_MISSING}  # By name where only one can be meant.
    assert len(prove().as_json()["findings"]) == 1


def test_whose_alerts_are_gone_is_not_guessed() -> None:
    trader = world.make_trader()
    new = [world.make_follower(trader, since=clock.now() - timedelta(seconds=1)) for _ in range(2)]
    event = world.trade(trader)
    world.fan_out(event)
    for follower in new:
        collection(Notification).delete_one({"_id": world.alert(event, follower)["_id"]})
    # As if the fan-out had seen only one of them, and nobody knows which.
    collection(TradeEvent).update_one({"_id": event_id(event["eventId"])}, {"$set": {"alerts_written": 1}})

    assert only_finding(prove(), Gap.ALERTS_GONE)["event_id"] == event["eventId"]


def test_a_follow_that_the_fan_out_cannot_reach_is_named() -> None:
    trader = world.make_trader()
    lost = world.make_follower(trader)
    Follow.objects.filter(follower=lost).update(bucket=999)
    world.fan_out(world.trade(trader))

    assert only_finding(prove(), Gap.ALERT_MISSING)["follower"] == str(lost.pk)


def test_a_missing_community_post_is_named(vendors: Sandbox) -> None:
    trader = world.make_trader()
    world.make_follower(trader)
    world.add_endpoint("discord", trader=trader, registered_at=long_ago())
    event = world.trade(trader)
    world.fan_out(event)
    collection(Notification).delete_one({"follower_id": None})

    finding = only_finding(prove(), Gap.POST_MISSING)

    stored = world.stored_event(event)
    expected = notification_id(stored["executed_at"], event["eventId"], community_of(trader.pk))
    assert finding["notification"] == str(expected)


# --- Trades ----------------------------------------------------------------------------------------------------------
def change_event(event: Document, **fields: Any) -> None:
    collection(TradeEvent).update_one({"_id": event_id(event["eventId"])}, {"$set": fields})


@pytest.mark.parametrize(
    "harm",
    [
        lambda batch: collection(Batch).delete_one({"_id": batch}),
        lambda batch: collection(Batch).update_one({"_id": batch}, {"$set": {"next_look_at": None}}),
        lambda batch: collection(Batch).update_one({"_id": batch}, {"$set": {"finished_at": clock.now()}}),
        lambda batch: collection(Batch).update_one({"_id": batch}, {"$set": {"priority": "urgent"}}),
    ],
    ids=["deleted", "no next look", "finished", "not swept"],
)
def test_a_shard_that_nobody_has_in_hand_is_named(harm: Any) -> None:
    trader = world.make_trader()
    world.make_follower(trader)
    event, healthy = world.trade(trader), world.trade(trader, symbol="TCS")
    world.take_in_trades(event, healthy)
    assert prove().holds

    harm(shard_batch_id(event["eventId"], 0))

    assert only_finding(prove(), Gap.SHARD_LOST)["event_id"] == event["eventId"]


def test_a_failed_event_is_named_with_its_shards_error(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.SHARD_MAX_FAILURES = 1
    trader = world.make_trader()
    world.make_follower(trader)
    event = world.trade(trader)

    def fail(*args: Any) -> None:
        raise RuntimeError("the sizing of this one is broken")

    monkeypatch.setattr("delivery.fan_out.writer_for", fail)
    world.fan_out(event)

    assert "the sizing of this one is broken" in only_finding(prove(), Gap.EVENT_FAILED)["text"]


@pytest.mark.parametrize(
    "lie",
    [{"shards_done": []}, {"state": "expired"}, {"state": "pending"}, {"state": "finished"}],
    ids=["done without its shard", "expired while valid", "pending with its shard done", "no such state"],
)
def test_an_event_that_contradicts_itself_is_named(lie: Document) -> None:
    event, _ = fanned_out()
    change_event(event, **lie)

    assert only_finding(prove(), Gap.EVENT_STATE)["event_id"] == event["eventId"]


# --- Deliveries ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda batch: collection(Batch).delete_one({"_id": batch}), "is gone"),
        (lambda batch: change_batch(batch, finished_at=clock.now(), next_look_at=None), "is finished"),
        (lambda batch: change_batch(batch, next_look_at=None), "nobody will look at"),
        (lambda batch: change_batch(batch, ids=[]), "does not hold it"),
        (lambda batch: change_batch(batch, kind="fan_out"), "is not swept"),
    ],
    ids=["deleted", "finished", "no next look", "without it", "of another kind"],
)
def test_a_queued_delivery_whose_batch_will_not_send_it_is_named(vendors: Sandbox, harm: Any, words: str) -> None:
    event, people = fanned_out("fcm", "sms", followers=1)
    row = world.alert(event, people[0])
    batch = world.delivery(row, "sms")["batch"]
    assert prove().holds

    harm(batch)

    finding = only_finding(prove(), Gap.BATCH_LOST)
    assert finding["notification"] == str(row["_id"])
    assert finding["batch"] == str(batch)
    assert "sms" in finding["text"]
    assert words in finding["text"]


def change_batch(batch: ObjectId, **fields: Any) -> None:
    collection(Batch).update_one({"_id": batch}, {"$set": fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"wake_at": None},
        {"wake_at": clock.now() + timedelta(days=30)},
        {"deliveries.1.next_attempt_at": None},
        {"priority": "urgent"},
    ],
    ids=["cleared", "moved", "one delivery without a time", "not swept"],
)
def test_an_unfinished_alert_without_its_wake_up_is_named(vendors: Sandbox, fields: Document) -> None:
    event, people = fanned_out("fcm", "sms")
    row = world.alert(event, people[2])
    change_alert(row, **fields)

    assert only_finding(prove(), Gap.NEVER_WAKES)["notification"] == str(row["_id"])


def test_a_finished_alert_that_wakes_for_nothing_is_named(vendors: Sandbox) -> None:
    event, people = fanned_out("fcm")
    world.deliver_all()
    row = world.alert(event, people[0])
    change_alert(row, wake_at=clock.now())

    assert only_finding(prove(), Gap.NEVER_WAKES)["notification"] == str(row["_id"])


@pytest.mark.parametrize(
    "fields",
    [{"state": "failed"}, {"state": "pending"}, {"deliveries.1.state": "failed"}, {"deliveries.1.state": "posted"}],
    ids=["failed", "pending", "its delivery failed", "no such state"],
)
def test_an_alert_whose_state_does_not_follow_from_its_deliveries_is_named(vendors: Sandbox, fields: Document) -> None:
    event, people = fanned_out("fcm")
    world.deliver_all()
    row = world.alert(event, people[0])
    change_alert(row, **fields)

    assert only_finding(prove(), Gap.STATE_WRONG)["notification"] == str(row["_id"])


def test_an_alert_of_no_trade_is_looked_at_too(vendors: Sandbox) -> None:
    event, people = fanned_out("fcm")
    row = world.alert(event, people[0])
    orphan = {**row, "_id": ObjectId(), "kind": "update", "event_id": None, "wake_at": None}
    collection(Notification).insert_one(orphan)

    proof = prove()

    assert {f.notification for f in proof.tally.named()} == {orphan["_id"]}
    assert prove(since=clock.now()).holds


# --- Overdue ---------------------------------------------------------------------------------------------------------
def test_wake_ups_that_are_long_overdue_are_named(vendors: Sandbox, settings: Any) -> None:
    fanned_out("fcm", "sms", followers=1)
    past = clock.now() - timedelta(seconds=settings.PROVE_OVERDUE_SECONDS + 60)
    free = {"deliveries.$[d].batch": None, "deliveries.$[d].next_attempt_at": past, "wake_at": past}
    collection(Notification).update_many({}, {"$set": free}, array_filters=[{"d.state": "queued"}])
    collection(Batch).update_many({"finished_at": None}, {"$set": {"next_look_at": past}})

    proof = prove()

    assert gaps(proof) == {Gap.OVERDUE: 3}  # One alert, two batches.
    texts = [finding.text for finding in proof.tally.named()]
    assert len(texts) == 2
    assert all("dispatch_due is not running" in text for text in texts)


def test_a_dispatcher_that_works_off_what_is_overdue_is_no_gap(
    vendors: Sandbox, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fanned_out("fcm", "sms", followers=1)
    past = clock.now() - timedelta(seconds=settings.PROVE_OVERDUE_SECONDS + 60)
    collection(Batch).update_many({"finished_at": None}, {"$set": {"next_look_at": past}})
    monkeypatch.setattr(proof_module.time, "sleep", lambda seconds: world.sweep())

    assert prove().holds


# --- What a run covers and shows -------------------------------------------------------------------------------------
def test_only_trades_received_since_then_are_looked_at() -> None:
    event, people = fanned_out()
    collection(Notification).delete_one({"_id": world.alert(event, people[0])["_id"]})
    received_at = clock.as_utc(world.stored_event(event)["received_at"])

    assert gaps(prove(since=received_at)) == {Gap.ALERT_MISSING: 1}
    assert prove(since=received_at + timedelta(milliseconds=1)).holds


def test_many_gaps_of_one_kind_do_not_hide_the_others() -> None:
    event, people = fanned_out(followers=NAMED + 20)
    rows = [world.alert(event, person) for person in people]
    collection(Notification).delete_many({"_id": {"$in": [row["_id"] for row in rows[1:]]}})
    change_alert(rows[0], state="failed")

    proof = prove()

    assert gaps(proof) == {Gap.ALERT_MISSING: NAMED + 19, Gap.STATE_WRONG: 1}
    named = proof.as_json()["findings"]
    assert len(named) == NAMED
    assert {f["notification"] for f in named if f["gap"] == Gap.STATE_WRONG} == {str(rows[0]["_id"])}
    assert proof.as_json()["not_named"] == 20


def test_events_are_looked_at_in_pages_and_a_limit_says_how_far_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof_module, "EVENTS_READ", 2)
    monkeypatch.setattr(proof_module, "ALERTS_PER_LOOK", 3)
    trader = world.make_trader()
    for _ in range(2):
        world.make_follower(trader)
    events = [world.trade(trader, symbol=f"S{n}") for n in range(5)]
    for event in events:
        world.fan_out(event)
    progress: list[tuple[int, int]] = []

    whole = prove(on_progress=lambda done, total: progress.append((done, total)))
    part = prove(limits=proof_module.Limits(alerts=5))

    assert progress[-1] == (5, 5)
    assert (whole.tally.events[FanOutState.DONE], whole.tally.found, whole.cut_short) == (5, 10, False)
    assert whole.proved_back_to is None
    assert (part.tally.events[FanOutState.DONE], part.tally.found, part.cut_short) == (2, 4, True)
    assert part.proved_back_to == clock.as_utc(world.stored_event(events[3])["received_at"])
    assert prove(limits=proof_module.Limits(seconds=0)).cut_short


def test_whatever_it_reads_it_reads_through_an_index(vendors: Sandbox) -> None:
    event, people = fanned_out("fcm", "sms")
    world.add_endpoint("discord", trader_id=Follow.objects.get(follower=people[0]).trader_id)
    collection(Notification).delete_one({"_id": world.alert(event, people[0])["_id"]})
    change_alert(world.alert(event, people[1]), state="failed")
    collection(Batch).delete_many({"channel": "sms"})
    world.take_in_trades(world.trade("nobody"))
    database().command("profile", 2)
    try:
        prove()
        read = list(database()["system.profile"].find({"op": {"$in": ["query", "command", "getmore"]}}))
    finally:
        database().command("profile", 0)
        database().drop_collection("system.profile")
    plans = {entry["planSummary"] for entry in read if "planSummary" in entry}
    assert len(plans) > 3
    assert not any("COLLSCAN" in plan for plan in plans), plans


def test_one_webhook_of_two_registered_later_leaves_the_post_owed(vendors: Sandbox) -> None:
    trader = world.make_trader()
    world.add_endpoint("discord", trader=trader, registered_at=long_ago())
    event = world.trade(trader)
    world.fan_out(event)
    world.add_endpoint("discord", trader=trader)
    collection(Notification).delete_many({})
    assert Endpoint.objects.count() == 2

    assert gaps(prove()) == {Gap.POST_MISSING: 1}
