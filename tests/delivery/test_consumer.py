"""The consumer's loop on a real Kafka: what is committed when, who takes over from whom, and how it stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connection
from kafka import KafkaConsumer
from kafka.errors import CommitFailedError
from pymongo.errors import AutoReconnect

from delivery import consumer as consumer_module
from delivery.consumer import UnreadableRecordError, take_in_and_hint
from delivery.intake import Intake, Outcome
from delivery.intake_documents import IncomingMessage
from delivery.kafka import connect_consumer
from delivery.models import Batch
from delivery.poison import PoisonLimitError, PoisonWatch
from devstack.stack import Stack
from followers.models import Trader
from notifications.models import RejectedEvent, TradeEvent
from tests.delivery.kafka_topics import Runner, Topic, running, until
from tests.notifications.builders import message

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).resolve().parents[2]
AWAY = "Kafka is away; work goes on when it answers."


@pytest.fixture
def topic(stack: Stack, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Topic:
    """A topic and a group of the test's own; no queue, for hints are others' business."""
    made = Topic(stack.env["KAFKA_BOOTSTRAP_SERVERS"])
    settings.KAFKA_TRADE_TOPIC = settings.KAFKA_GROUP_ID = made.name
    monkeypatch.setattr(consumer_module, "send_hints", lambda batches: [])
    Trader.objects.create(external_id="T-17")
    return made


def events(count: int, prefix: str = "E") -> list[bytes]:
    """Trades that were executed just now."""
    now = datetime.now(UTC).isoformat()
    return [message(eventId=f"{prefix}-{n}", executedAt=now, productType="DELIVERY") for n in range(count)]


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The texts of our own log lines."""
    return [record.msg["event"] for record in list(caplog.records) if isinstance(record.msg, dict)]


class Crash(BaseException):
    """The process dies here."""


# --- Joining ---------------------------------------------------------------------------------------------------------
def test_a_member_that_is_given_no_partition_joins_anew(topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer_module, "JOIN_PATIENCE_SECONDS", (0.5, 600.0))
    consumers: list[KafkaConsumer] = []

    def connect() -> KafkaConsumer:
        consumers.append(connect_consumer())
        if len(consumers) == 1:  # It polls, and the group gives it nothing.
            monkeypatch.setattr(consumers[0], "poll", lambda timeout_ms: threading.Event().wait(0.05) or {})
        return consumers[-1]

    topic.publish(events(3))
    with running(connect=connect):
        until(lambda: topic.committed() == 3)

    assert len(consumers) > 1


# --- Commit last -----------------------------------------------------------------------------------------------------
def test_trades_are_stored_and_then_committed(topic: Topic) -> None:
    committed_after_storing: list[int] = []

    def work(messages: Sequence[IncomingMessage]) -> Intake:
        intake = take_in_and_hint(messages)
        if not committed_after_storing:
            committed_after_storing.append(topic.committed())
        return intake

    topic.publish([*events(30), b"not an event"])
    with running(work):
        until(lambda: topic.committed() == 31)

    assert committed_after_storing == [0]
    assert (TradeEvent.objects.count(), Batch.objects.count(), RejectedEvent.objects.count()) == (30, 30, 1)


def test_a_crash_before_the_commit_redelivers_and_doubles_nothing(topic: Topic) -> None:
    def die(messages: Sequence[IncomingMessage]) -> Intake:
        take_in_and_hint(messages)
        raise Crash

    topic.publish([*events(20), b"not an event"])
    crashed = Runner(die)
    crashed.join()

    assert isinstance(crashed.error, Crash)
    assert topic.committed() == 0
    with running() as second:
        until(lambda: topic.committed() == 21)
    assert set(crashed.seen) <= set(second.seen)
    assert (TradeEvent.objects.count(), Batch.objects.count(), RejectedEvent.objects.count()) == (20, 20, 1)


def test_a_queue_that_is_away_does_not_hold_the_offsets_back(topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(batches: list[dict[str, Any]]) -> None:
        raise RuntimeError("No such actor.")

    monkeypatch.setattr(consumer_module, "send_hints", away)
    topic.publish(events(5))
    with running():
        until(lambda: topic.committed() == 5)

    assert Batch.objects.count() == 5


def test_a_refused_commit_is_made_good_after_the_next_poll(topic: Topic, caplog: pytest.LogCaptureFixture) -> None:
    refused: list[Any] = []

    def connect() -> KafkaConsumer:
        connected = connect_consumer()
        commit = connected.commit

        def refuse_once(offsets: Any, **options: Any) -> None:
            if not refused:
                refused.append(offsets)
                raise CommitFailedError("Somebody else's.")
            commit(offsets, **options)

        connected.commit = refuse_once
        return connected

    topic.publish(events(8))
    with running(connect=connect):
        until(lambda: topic.committed() == 8)

    assert len(refused) == 1
    assert "The group is rebalancing; offsets are not committed yet." in lines(caplog)


# --- Outages ---------------------------------------------------------------------------------------------------------
def test_a_batch_that_mongodb_did_not_take_stays_in_hand(topic: Topic, caplog: pytest.LogCaptureFixture) -> None:
    refusals = iter([AutoReconnect("away"), AutoReconnect("away")])

    def work(messages: Sequence[IncomingMessage]) -> Intake:
        for refusal in refusals:
            assert topic.committed() == 0
            raise refusal
        return take_in_and_hint(messages)

    topic.publish(events(10))
    with running(work) as runner:
        until(lambda: topic.committed() == 10)

    assert runner.batches[0] == runner.batches[1] == runner.batches[2]
    assert sorted(set(runner.seen)) == sorted(place for batch in runner.batches[2:] for place in _places(batch))


def _places(batch: list[IncomingMessage]) -> list[tuple[int, int]]:
    return [(each.partition, each.offset) for each in batch]


@pytest.mark.slow
def test_mongodb_may_go_and_come_back(topic: Topic, stack: Stack) -> None:
    started = threading.Event()

    def work(messages: Sequence[IncomingMessage]) -> Intake:
        started.set()
        return take_in_and_hint(messages)

    stack.mongodb.kill()
    try:
        topic.publish(events(10))
        with running(work):
            assert started.wait(90)
            assert topic.committed() == 0
            stack.mongodb.start()
            until(lambda: topic.committed() == 10)
    finally:
        if not stack.mongodb.is_running:
            stack.mongodb.start()

    assert TradeEvent.objects.count() == Batch.objects.count() == 10


@pytest.mark.slow
def test_kafka_may_be_away_at_the_start_and_later(topic: Topic, stack: Stack, caplog: pytest.LogCaptureFixture) -> None:
    stack.kafka.stop()
    try:
        with running():
            until(lambda: lines(caplog).count(AWAY) == 1)
            stack.kafka.start()
            topic.publish(events(5, "first"))
            until(lambda: topic.committed() == 5)
            until(lambda: lines(caplog).count("Kafka answers again.") == 1)
            stack.kafka.kill()
            until(lambda: lines(caplog).count(AWAY) == 2)
            stack.kafka.start()
            topic.publish(events(5, "second"))
            until(lambda: topic.committed() == 10)
    finally:
        if not stack.kafka.is_running:
            stack.kafka.start()

    assert TradeEvent.objects.count() == 10
    assert lines(caplog).count(AWAY) == 2


# --- Groups ----------------------------------------------------------------------------------------------------------
def test_two_consumers_take_over_from_each_other(topic: Topic) -> None:
    with running() as first:
        topic.publish(events(40, "a"))
        until(lambda: topic.committed() == 40)
        second = Runner()

        def second_has_some() -> bool:
            topic.publish(events(4, uuid.uuid4().hex))
            return bool(second.seen)

        until(second_has_some)
    topic.publish(events(40, "b"))
    until(lambda: TradeEvent.objects.filter(external_id__startswith="b-").count() == 40)
    assert {partition for partition, _ in second.seen} == {0, 1, 2, 3}
    second.stop.set()
    second.join()
    with running() as third:
        topic.publish(events(40, "c"))
        until(lambda: topic.committed() == TradeEvent.objects.count() >= 124)

    places = first.seen + second.seen + third.seen
    assert len(places) == len(set(places)) == TradeEvent.objects.count() == Batch.objects.count()


def test_a_rebalance_while_a_batch_is_in_hand_harms_nothing(topic: Topic) -> None:
    in_hand, go_on = threading.Event(), threading.Event()

    def slow(messages: Sequence[IncomingMessage]) -> Intake:
        in_hand.set()
        go_on.wait(60)
        return take_in_and_hint(messages)

    topic.publish(events(40))
    with running(slow):
        assert in_hand.wait(30)
        with running() as other:
            until(lambda: other.seen)  # The first one let partitions go, though its batch is not finished.
            go_on.set()
            until(lambda: topic.committed() == 40)

    assert TradeEvent.objects.count() == Batch.objects.count() == 40


# --- Stopping --------------------------------------------------------------------------------------------------------
def test_a_stop_does_not_wait_for_mongodb(topic: Topic, caplog: pytest.LogCaptureFixture) -> None:
    in_hand, never = threading.Event(), threading.Event()

    def hang(messages: Sequence[IncomingMessage]) -> Intake:
        in_hand.set()
        never.wait()
        raise Crash

    topic.publish(events(3))
    with running(hang) as runner:
        assert in_hand.wait(30)
        runner.stop.set()
        runner.join()
        assert topic.committed() == 0
        assert "Stopping with a poll batch in hand; its messages will come again." in lines(caplog)
        never.set()


def process_env(topic: Topic, **extra: str) -> dict[str, str]:
    """What a process of its own needs to work on this test's database and topic."""
    url = urlsplit(os.environ["MONGODB_URL"])
    database = connection.settings_dict["NAME"]
    return {
        **os.environ,
        "MONGODB_URL": url._replace(path=f"/{database}").geturl(),
        "KAFKA_TRADE_TOPIC": topic.name,
        "KAFKA_GROUP_ID": topic.name,
        **extra,
    }


def start_process(topic: Topic, **extra: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "manage.py", "consume_trades"],
        cwd=ROOT,
        env=process_env(topic, **extra),
        stderr=subprocess.PIPE,
        text=True,
    )


def test_sigterm_ends_the_process_in_order_with_nothing_lost_or_repeated(topic: Topic) -> None:
    topic.publish(events(3_000))
    process = start_process(topic, KAFKA_MAX_POLL_RECORDS="20")
    until(lambda: TradeEvent.objects.count() >= 100)

    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=10)

    stored = TradeEvent.objects.count()
    assert process.returncode == 0, log
    assert 100 <= stored < 3_000
    assert topic.committed() == stored
    intakes: list[Intake] = []

    def note(messages: Sequence[IncomingMessage]) -> Intake:
        intakes.append(take_in_and_hint(messages))
        return intakes[-1]

    with running(note):
        until(lambda: topic.committed() == 3_000)
    assert TradeEvent.objects.count() == Batch.objects.count() == 3_000
    assert sum(each.outcomes[Outcome.DUPLICATE] for each in intakes) == 0


def test_too_much_poison_ends_the_process_with_one_line(topic: Topic) -> None:
    topic.publish([b"poison"] * 10)

    process = start_process(topic, POISON_STOP_COUNT="10", POISON_STOP_SECONDS="0", LOG_LEVEL="ERROR")
    _, log = process.communicate(timeout=60)

    assert process.returncode == 1
    (line,) = log.strip().splitlines()
    assert "The last 10 messages" in line
    assert RejectedEvent.objects.count() == topic.committed() == 10


def test_a_record_that_cannot_be_read_stops_with_its_place(topic: Topic) -> None:
    class Broken(str):
        """A header's name that is not UTF-8, as Kafka's protocol asks for."""

        __slots__ = ()

        def encode(self, *args: Any) -> bytes:
            return b"\xff"

    runner = Runner()
    topic.publish(events(4))
    until(lambda: topic.committed() == 4)
    topic.publish([message(eventId="broken")], headers=[(Broken("x"), b"1")])
    runner.join()

    assert isinstance(runner.error, UnreadableRecordError)
    assert "0@1" in str(runner.error)
    assert topic.committed() == 4


# --- Poison ----------------------------------------------------------------------------------------------------------
def intake(good: int, trailing: int) -> Intake:
    return Intake(Counter({Outcome.ACCEPTED: good, Outcome.REJECTED: trailing}), trailing_rejects=trailing)


@pytest.fixture
def watch() -> tuple[PoisonWatch, Callable[[float], None]]:
    clock = [0.0]
    return PoisonWatch(1_000, 60, lambda: clock[0]), lambda seconds: clock.__setitem__(0, clock[0] + seconds)


def test_poison_stops_only_after_the_count_and_the_time(watch: tuple[PoisonWatch, Callable[[float], None]]) -> None:
    poison, wait = watch
    poison.note(intake(0, 5_000))
    wait(59)
    poison.note(intake(0, 1))
    wait(1)
    with pytest.raises(PoisonLimitError, match="5,002 messages, over 60 s"):
        poison.note(intake(0, 1))


def test_a_good_message_ends_a_run_of_poison(watch: tuple[PoisonWatch, Callable[[float], None]]) -> None:
    poison, wait = watch
    poison.note(intake(0, 999))
    wait(100)
    poison.note(intake(1, 500))
    wait(100)
    poison.note(intake(0, 499))
    with pytest.raises(PoisonLimitError, match="1,000 messages, over 100 s"):
        poison.note(intake(0, 1))


def test_poison_stops_the_loop_and_is_committed(topic: Topic, settings: Any) -> None:
    settings.POISON_STOP_COUNT, settings.POISON_STOP_SECONDS = 10, 0
    topic.publish([b"poison"] * 10)

    runner = Runner()
    runner.join()

    assert isinstance(runner.error, PoisonLimitError)
    assert RejectedEvent.objects.count() == topic.committed() == 10
