"""/metrics tells what became of every delivery, and MongoDB says the same."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import dramatiq
import pytest
from django.test import Client
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import NewTopic

from delivery import deliver, lag, statements
from delivery.broker import make_broker
from delivery.channels.base import Outcome
from delivery.channels.receipts import Receipt, Reference
from delivery.proof import keep_run, prove
from delivery.receipts import settle
from delivery.statements import Patch
from delivery.telemetry import error_label
from devstack.stack import Stack
from devstack.vendors.client import Sandbox
from followers import clock
from followers.choices import Channel
from followers.models import Endpoint
from followers.mongo import collection
from notifications.acks import acknowledge
from notifications.frames import Ack
from notifications.models import Notification
from tests.notifyhub.metrics import added, look, parsed, quantile_bounds, values_by
from tests.pipeline import world

pytestmark = pytest.mark.django_db(transaction=True)
DELIVERIES, ATTEMPTS = "notifyhub_deliveries_total", "notifyhub_attempts_total"
OUTCOMES = ("channel", "outcome", "error")


def stored_outcomes() -> Counter[tuple[str, ...]]:
    """(channel, state, error code) of every finished delivery in MongoDB."""
    rows = collection(Notification).find({}, {"deliveries": 1})
    return Counter(
        (d["channel"], d["state"], d["error_code"]) for row in rows for d in row["deliveries"] if d["state"] != "queued"
    )


def stored_attempts() -> Counter[tuple[str, ...]]:
    rows = collection(Notification).find({}, {"deliveries": 1})
    return Counter(
        (d["channel"], a["outcome"], a["code"]) for row in rows for d in row["deliveries"] for a in d["attempt_log"]
    )


def deliver_until_done() -> None:
    for _ in range(10):
        world.deliver_all()
        if not collection(Notification).count_documents({"state": "pending"}):
            return
        world.sweep(after_seconds=60)
        world.sweep(after_seconds=60)
    raise AssertionError("Some deliveries never came to an end.")


def test_outcomes_error_types_and_p99_per_channel_follow_from_two_looks_and_agree_with_mongodb(
    vendors: Sandbox,
) -> None:
    channels = ("fcm", "apns", "sms", "discord", "onesignal")
    trader = world.make_trader()
    for n in range(240):
        world.make_follower(trader, *([channels[n % 6]] if n % 6 < 5 else []))
    world.make_follower(trader, "fcm", portfolio=None)
    vendors.behave("fcm", rules=[{"match": {"fraction": 0.2}, "status": 400, "code": "INVALID_ARGUMENT"}])
    vendors.behave("twilio", rules=[{"match": {"fraction": 0.2}, "status": 400, "code": "21211"}])
    vendors.behave(
        "apns",
        rules=[{"match": {"first_n_per_address": 1, "fraction": 0.2}, "status": 503, "code": "ServiceUnavailable"}],
    )
    vendors.behave("discord", rules=[{"match": {"fraction": 0.2}, "accept_then_reset": True}])
    gone = Endpoint.objects.filter(channel="onesignal").first()
    assert gone is not None
    before = look()

    event = world.trade(trader)
    world.fan_out(event)
    Endpoint.objects.filter(pk=gone.pk).update(active=False)
    deliver_until_done()

    after = look()
    assert added(before, after, DELIVERIES, *OUTCOMES) == stored_outcomes()
    assert added(before, after, ATTEMPTS, *OUTCOMES) == stored_attempts()
    by_outcome = added(before, after, DELIVERIES, "outcome")
    assert {outcome for (outcome,) in by_outcome} == {"sent", "failed", "unknown", "skipped"}
    assert by_outcome.total() == 240 + 200
    assert added(before, after, "notifyhub_events_total", "outcome") == {("accepted",): 1}
    assert added(before, after, "notifyhub_alerts_total", "outcome") == {("stored",): 240, ("no_portfolio",): 1}
    assert added(before, after, "notifyhub_fan_out_seconds_count") == {(): 1}
    for channel in channels:
        check_times(before, after, channel)


def check_times(before: Any, after: Any, channel: str) -> None:
    """The histograms of one channel against the times that stand in MongoDB."""
    rows = list(collection(Notification).find({"deliveries.channel": channel}))
    found = [d for row in rows for d in row["deliveries"] if d["channel"] == channel]
    took = sorted(a["latency_ms"] / 1_000 for d in found for a in d["attempt_log"])
    risen = added(before, after, "notifyhub_delivery_seconds_bucket", "channel", "le")
    buckets = [(float(le), count) for (name, le), count in risen.items() if name == channel]
    lower, upper = quantile_bounds(buckets, 0.99)
    assert max(count for _, count in buckets) == len(took)
    assert lower < took[int(len(took) * 0.99)] <= upper
    sent = sum(1 for d in found if d["state"] == "sent")
    whole = added(before, after, "notifyhub_event_to_delivery_seconds_count", "channel", "priority")
    assert whole[channel, "high"] == sent
    assert added(before, after, "notifyhub_validity_left_seconds_count", "channel")[(channel,)] == sent


def test_what_ends_without_a_send_is_counted_too(vendors: Sandbox) -> None:
    trader = world.make_trader()
    for _ in range(3):
        world.make_follower(trader, "fcm", "sms")
    before = look()

    waits, batched, left = (world.trade(trader, symbol=symbol) for symbol in ("WAITS", "BATCHED", "LEFT"))
    world.fan_out(waits)
    world.free_all_rows()
    world.fan_out(left)
    world.free_all_rows()
    world.fan_out(batched)
    crashed = next(batch for batch in world.unclaimed() if batch["channel"] == "sms")
    world.crash_in(crashed["_id"])
    world.fan_out(world.trade(trader, symbol="LEFT", action="CLOSE"))
    world.sweep()
    for _ in range(2):
        world.sweep(after_seconds=2 * 86_400)

    after = look()
    ended = added(before, after, DELIVERIES, *OUTCOMES)
    assert collection(Notification).count_documents({"state": "pending"}) == 0
    assert ended == stored_outcomes()
    assert {outcome for _, outcome, _ in ended} == {"sent", "expired", "unknown", "cancelled"}


def test_a_receipt_and_an_acknowledgement_count_as_delivered(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "sms")
    event = world.trade(trader)
    world.fan_out(event)
    world.deliver_all()
    row = world.alert(event, follower)
    sms = world.delivery(row, "sms")
    before = look()

    arrived = Receipt(Outcome.DELIVERED, "delivered", provider_message_id=sms["provider_message_id"])
    for _ in range(2):
        settle(Reference(row["_id"], sms["endpoint"], world.ObjectId()), Channel.SMS, arrived, clock.now())
        acknowledge(follower.pk, Ack(row["_id"]), clock.now())

    expected = {("sms", "delivered", ""): 1, ("in_app", "delivered", ""): 1}
    assert added(before, look(), DELIVERIES, *OUTCOMES) == expected


def test_a_batch_that_another_worker_has_settled_is_not_counted_again(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    trader = world.make_trader()
    for _ in range(4):
        world.make_follower(trader, "fcm")
    event = world.trade(trader)
    world.fan_out(event)
    before = look()
    record = statements.record

    def taken_over(batch_id: Any, patches: list[Patch]) -> int:
        """Half of the rows were given to another worker, who has let them go."""
        alerts = collection(Notification)
        ids = [patch.notification for patch in patches[:2]]
        alerts.update_many({"_id": {"$in": ids}}, {"$set": {"deliveries.1.batch": None}})
        return record(batch_id, patches)

    monkeypatch.setattr(deliver.batches, "record", taken_over)
    world.deliver_all()

    after = look()
    assert added(before, after, DELIVERIES, *OUTCOMES)["fcm", "sent", ""] == 2
    assert added(before, after, ATTEMPTS, *OUTCOMES) == stored_attempts()


def test_an_answer_of_the_database_that_was_lost_costs_no_count(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    trader = world.make_trader()
    world.make_follower(trader, "fcm")
    world.fan_out(world.trade(trader))
    before = look()
    record = statements.record

    def asked_twice(batch_id: Any, patches: list[Patch]) -> int:
        record(batch_id, patches)
        return record(batch_id, patches)

    monkeypatch.setattr(deliver.batches, "record", asked_twice)
    world.deliver_all()

    assert added(before, look(), DELIVERIES, "channel", "outcome")["fcm", "sent"] == 1


def test_counting_is_in_nobodys_way(vendors: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*labels: str) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("notifications.telemetry.DELIVERIES.labels", broken)
    monkeypatch.setattr("notifications.telemetry.ATTEMPTS.labels", broken)
    trader = world.make_trader()
    world.make_follower(trader, "fcm")
    event = world.trade(trader)
    world.fan_out(event)
    world.deliver_all()

    (row,) = world.alerts(event)
    assert row["state"] == "delivered"


@pytest.mark.parametrize(
    ("channel", "code", "label"),
    [
        ("apns", "Unregistered", "Unregistered"),
        ("fcm", "http_503", "http_503"),
        ("fcm", "token_invalid_grant", "token_invalid_grant"),
        ("fcm", "token_connect_error", "token_connect_error"),
        ("fcm", "token_something_new", "other"),
        ("discord", "dm_http_403", "dm_http_403"),
        ("sms", "timeout", "timeout"),
        ("sms", "validity_over", "validity_over"),
        ("sms", "99999", "other"),
        ("apns", "30007", "other"),
        ("apns", "", ""),
    ],
)
def test_an_error_label_is_a_code_of_our_tables_or_other(channel: str, code: str, label: str) -> None:
    assert error_label(channel, code) == label


@pytest.mark.parametrize("kind", ["redis", "sqs"])
def test_queue_depth_is_there_for_either_broker(
    stack: Stack, settings: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    url = "sqs://" if kind == "sqs" else stack.env["DRAMATIQ_BROKER_URL"]
    broker = make_broker(url, f"depth-{kind}-{time.time_ns()}", stack.env["SQS_ENDPOINT_URL"], [])
    monkeypatch.setattr(dramatiq, "get_broker", lambda: broker)
    for _ in range(2):
        broker.enqueue(dramatiq.Message("deliver_fcm_critical", "deliver", ("1",), {}, {}))

    shown = look()

    depths = values_by(shown, "notifyhub_queue_depth", "queue")
    assert depths["deliver_fcm_critical"] == 2
    assert len(depths) == 18 and sum(depths.values()) == 2


@pytest.fixture
def fresh_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    """No look at Kafka before this test counts."""
    monkeypatch.setattr(lag, "WATCH", lag.LagWatch())


def test_consumer_lag_is_known_while_no_consumer_runs(stack: Stack, settings: Any, fresh_lag: None) -> None:
    servers = stack.env["KAFKA_BOOTSTRAP_SERVERS"]
    topic = settings.KAFKA_TRADE_TOPIC = settings.KAFKA_GROUP_ID = f"lag-{time.time_ns()}"
    admin = KafkaAdminClient(bootstrap_servers=servers)
    admin.create_topics([NewTopic(topic, 3, 1)])
    admin.close()
    producer = KafkaProducer(bootstrap_servers=servers)
    for partition, count in ((0, 5), (1, 2)):
        for _ in range(count):
            producer.send(topic, b"{}", partition=partition)
    producer.close()
    consumer = KafkaConsumer(bootstrap_servers=servers, group_id=topic, enable_auto_commit=False)
    consumer.commit({TopicPartition(topic, 0): OffsetAndMetadata(4, "", -1)})
    consumer.close()

    assert values_by(look(), "notifyhub_consumer_lag", "partition") == {"0": 1, "1": 2, "2": 0}


def test_lag_that_cannot_be_read_is_left_out_and_the_rest_is_there(settings: Any, fresh_lag: None) -> None:
    settings.KAFKA_BOOTSTRAP_SERVERS = ["127.0.0.1:1"]

    shown = look()

    assert values_by(shown, "notifyhub_consumer_lag", "partition") == {}
    assert any(name == "notifyhub_queue_depth" for name, _ in shown)


def test_what_is_due_and_not_looked_at_shows_as_overdue(vendors: Sandbox) -> None:
    trader = world.make_trader()
    world.make_follower(trader, "fcm")
    assert values_by(look(), "notifyhub_overdue_seconds", "priority")["high"] == 0
    world.fan_out(world.trade(trader))
    past = clock.now() - world.timedelta(seconds=40)
    collection(world.Batch).update_many({"finished_at": None}, {"$set": {"next_look_at": past}})

    shown = look()

    assert 40 <= values_by(shown, "notifyhub_overdue_seconds", "priority")["high"] < 60
    assert shown["notifyhub_unfinished_batches", frozenset({("priority", "high")})] == 1


def test_the_last_proof_shows_and_one_that_was_cut_short_proves_nothing() -> None:
    none = frozenset[tuple[str, str]]()
    assert ("notifyhub_proof_timestamp_seconds", none) not in look()
    keep_run(prove(None), "manage.py prove")
    before = look()
    cut_short = prove(None)
    cut_short.cut_short = True
    keep_run(cut_short, "somebody")

    shown = look()

    assert shown["notifyhub_proof_gaps", none] == 0
    started = shown["notifyhub_proof_timestamp_seconds", none]
    assert 0 <= clock.now().timestamp() - started < 60
    assert started == before["notifyhub_proof_timestamp_seconds", none]


def test_no_label_names_anybody(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm", "sms")
    event = world.trade(trader)
    world.fan_out(event)
    world.deliver_all()

    text = Client().get("/metrics").content.decode()

    assert parsed(text)
    (row,) = world.alerts(event)
    for secret in (trader.external_id, follower.external_id, str(follower.pk), str(row["_id"]), event["eventId"]):
        assert f'"{secret}"' not in text
