"""consume_trades holds back when the pipeline is hopelessly behind, says so once, and goes on by itself."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from bson.codec_options import CodecOptions, DatetimeConversion

from delivery import backlog as backlog_module
from delivery import consumer as consumer_module
from delivery import statements
from delivery.backlog import Backlog, BacklogWatch, measure
from delivery.consumer import take_in_and_hint
from delivery.intake import Intake, Outcome
from delivery.intake_documents import IncomingMessage
from delivery.models import Batch
from devstack.stack import Stack
from followers import clock
from followers.models import Trader
from followers.mongo import collection, database
from notifications.models import TradeEvent
from tests.delivery.kafka_topics import Topic, running, until
from tests.delivery.test_consumer import events, lines, start_process

pytestmark = pytest.mark.django_db(transaction=True)

BEHIND = (
    "The pipeline is hopelessly behind: trades stay in Kafka until it has caught up. Look what is away (/readyz) and "
    "which breakers are open, and start more workers."
)
CAUGHT_UP = "The pipeline has caught up: trades are taken in again."


@pytest.fixture
def topic(stack: Stack, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Topic:
    made = Topic(stack.env["KAFKA_BOOTSTRAP_SERVERS"])
    settings.KAFKA_TRADE_TOPIC = settings.KAFKA_GROUP_ID = made.name
    monkeypatch.setattr(consumer_module, "send_hints", lambda batches: [])
    monkeypatch.setattr(backlog_module, "MEASURED_EVERY_SECONDS", (0.05, 0.5))
    Trader.objects.create(external_id="T-17")
    return made


def wait_in_line(count: int, priority: str = "normal") -> None:
    """So many unfinished batches."""
    due = clock.now() + timedelta(hours=1)
    made = [statements.delivery_batch("sms", priority, [], due) for _ in range(count)]
    statements.insert_batches(made)


def finish(count: int) -> None:
    chosen = [b["_id"] for b in collection(Batch).find({"finished_at": None, "kind": "deliver"}).limit(count)]
    change = {"$set": {"finished_at": clock.now(), "next_look_at": None}}
    collection(Batch).update_many({"_id": {"$in": chosen}}, change)


def test_nothing_is_taken_in_while_the_backlog_is_too_large_and_all_of_it_afterwards(
    topic: Topic, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.BACKLOG_MAX_BATCHES, settings.BACKLOG_RESUME_SHARE = 100, 0.5
    wait_in_line(60, "normal")
    wait_in_line(60, "critical")
    intakes: list[Intake] = []

    def note(messages: Sequence[IncomingMessage]) -> Intake:
        intakes.append(take_in_and_hint(messages))
        return intakes[-1]

    topic.publish(events(40))
    with running(note) as first:
        until(lambda: "Partitions assigned." in lines(caplog) and BEHIND in lines(caplog))
        with running(note) as second:  # A rebalance meanwhile; both stay in the group.
            until(lambda: lines(caplog).count("Partitions assigned.") >= 2)
            finish(30)  # Below the limit, but not far enough.
            until(lambda: measure(101).total == 90)
            topic.publish(events(40, "later"))
            assert (first.seen, second.seen, topic.committed()) == ([], [], 0)

            finish(90)
            until(lambda: topic.committed() == 80)

    assert TradeEvent.objects.count() == 80
    assert sum(each.outcomes[Outcome.DUPLICATE] for each in intakes) == 0
    assert first.seen
    assert second.seen
    assert lines(caplog).count(BEHIND) == lines(caplog).count(CAUGHT_UP) == 2  # One from each of the two.


def test_a_consumer_that_holds_back_stops_at_once(topic: Topic) -> None:
    wait_in_line(3)
    topic.publish(events(20))
    process = start_process(topic, BACKLOG_MAX_BATCHES="2")
    assert process.stderr is not None
    heard = []
    for line in process.stderr:
        heard.append(line)
        if "hopelessly behind" in line:
            break

    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=10)

    assert process.returncode == 0, (heard, rest)
    assert '"backlog_max_batches": 2' in heard[-1]
    assert (TradeEvent.objects.count(), topic.committed()) == (0, 0)
    with running():
        until(lambda: topic.committed() == TradeEvent.objects.count() == 20)


def test_the_count_ends_at_its_limit_and_reads_the_partial_index_alone(stack: Stack) -> None:
    wait_in_line(30)
    finish(5)
    assert measure(100) == Backlog({"critical": 0, "high": 0, "normal": 25}, 100)
    assert measure(10).batches["normal"] == 10
    assert not measure(10).is_counted_out

    query = {"priority": "normal", "next_look_at": {"$type": "date"}}
    # The plan's bounds end at the last day that MongoDB knows, which Python does not.
    plan: dict[str, Any] = database().command(
        "explain",
        {"count": Batch._meta.db_table, "query": query, "limit": 10},
        codec_options=CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_AUTO),
    )
    stats = plan["executionStats"]
    assert (stats["totalKeysExamined"] <= 11, stats["totalDocsExamined"]) == (True, 0)


def test_an_error_of_ours_holds_up_nobody(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog_module, "MEASURED_EVERY_SECONDS", (0.01, 0.01))
    looks: list[int] = []

    def broken(limit: int) -> Backlog:
        looks.append(limit)
        if len(looks) == 1:
            return Backlog({"normal": limit}, limit)
        raise KeyError("normal")

    watch = BacklogWatch(broken)
    until(lambda: len(looks) > 1 and not watch.holds_back)
    watch.close()
