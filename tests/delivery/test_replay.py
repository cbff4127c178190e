"""Rejected messages read again: one by one as if from Kafka, and many at once in flat memory."""

from __future__ import annotations

import tracemalloc
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from bson import ObjectId
from django.core.management import CommandError, call_command

from delivery import intake
from delivery import replay as replay_module
from delivery.intake import take_in
from delivery.models import Batch
from delivery.replay import Replay, replay
from delivery.statements import insert_batches
from followers.models import Trader
from followers.mongo import collection
from notifications.models import RejectedEvent, TradeEvent
from tests.delivery.test_intake import LATER, NOW, everything, incoming
from tests.notifications.builders import EVENT, MISSING, message

pytestmark = pytest.mark.django_db(transaction=True)


class Crash(BaseException):
    """The process dies here."""


@pytest.fixture(autouse=True)
def no_queue(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Hints that a replay enqueues end up in this list."""
    hinted: list[dict[str, Any]] = []
    monkeypatch.setattr(replay_module, "send_hints", hinted.extend)
    return hinted


@pytest.fixture
def trader() -> Trader:
    return Trader.objects.create(external_id="T-17", portfolio_value=Decimal("250000"), currency="INR")


def reject(value: bytes, offset: int = 0, **fields: Any) -> RejectedEvent:
    """A row that an earlier release rejected for a reason that is none any more."""
    take_in([incoming(b"{", offset, **fields)], NOW)
    RejectedEvent.objects.filter(offset=offset).update(value=value, code="unknown_version", reason="Old rules.")
    return RejectedEvent.objects.get(offset=offset)


def test_a_replayed_message_becomes_an_event_as_if_from_kafka(trader: Trader, no_queue: list[dict[str, Any]]) -> None:
    row = reject(message(eventId=MISSING), headers=(("ce_id", b"E-9"), ("correlation-id", b"c-9")))

    result = replay(RejectedEvent.objects.filter(pk=row.pk), LATER)

    assert (result.accepted, result.still_rejected) == (1, 0)
    stored: Any = TradeEvent.objects.get()
    assert (stored.external_id, stored.correlation_id, stored.state) == ("E-9", "c-9", "pending")
    assert stored.received_at == LATER.replace(microsecond=123_000)
    assert [b["_id"] for b in no_queue] == [Batch.objects.get().pk]
    row.refresh_from_db()
    assert (row.replayed_at, row.replayed_as) == (LATER.replace(microsecond=123_000), "E-9")


def test_a_message_that_is_still_bad_keeps_its_place_with_the_new_reason() -> None:
    row = reject(message(side="LONG"))

    result = replay(RejectedEvent.objects.filter(pk=row.pk), LATER)

    assert (result.accepted, result.still_rejected) == (0, 1)
    row.refresh_from_db()
    assert (row.code, row.replayed_at, row.replayed_as) == ("not_in_enumeration", None, "")
    assert "LONG" in row.reason


def test_an_old_message_becomes_an_expired_event(trader: Trader, no_queue: list[dict[str, Any]]) -> None:
    row = reject(message())

    result = replay(RejectedEvent.objects.filter(pk=row.pk), NOW + timedelta(days=3))

    assert result.accepted == 1
    assert (TradeEvent.objects.get().state, Batch.objects.count(), no_queue) == ("expired", 0, [])


def test_replaying_twice_changes_nothing(trader: Trader, no_queue: list[dict[str, Any]]) -> None:
    row = reject(message())
    replay(RejectedEvent.objects.filter(pk=row.pk), LATER)
    before = everything()

    result = replay(RejectedEvent.objects.filter(pk=row.pk), LATER + timedelta(minutes=1))

    assert (result.accepted, result.still_rejected) == (0, 0)
    assert everything() == before
    assert len(no_queue) == 1


def test_a_replay_that_died_before_its_mark_can_be_repeated(trader: Trader, monkeypatch: pytest.MonkeyPatch) -> None:
    row = reject(message())
    original = insert_batches

    def crash(batches: list[dict[str, Any]]) -> None:
        original(batches)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(intake, "insert_batches", crash)
        with pytest.raises(Crash):
            replay(RejectedEvent.objects.filter(pk=row.pk), LATER)
    result = replay(RejectedEvent.objects.filter(pk=row.pk), LATER + timedelta(seconds=1))

    assert result.accepted == 1
    assert (TradeEvent.objects.count(), Batch.objects.count()) == (1, 1)
    assert RejectedEvent.objects.get().replayed_as == EVENT["eventId"]


# --- Many at once ----------------------------------------------------------------------------------------------------
def reject_many(good: int, bad: int, size: int = 0) -> None:
    """Rejected events with `size` bytes of padding; the bad ones stay bad."""
    values = [message(eventId=f"E-{n}", note="x" * size) for n in range(good)]
    values += [message(eventId=f"B-{n}", side="LONG", note="x" * size) for n in range(bad)]
    collection(RejectedEvent).insert_many(
        {
            "_id": ObjectId(), "topic": "trade.executed", "partition": 0, "offset": n, "key": b"T-17", "value": value,
            "headers": [], "code": "unknown_version", "reason": "Old rules.", "received_at": NOW, "replayed_at": None,
            "replayed_as": "",
        }
        for n, value in enumerate(values)
    )  # fmt: skip


def test_pages_cover_everything_once(trader: Trader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_module, "PAGE", 7)
    reject_many(good=40, bad=20)
    told: list[int] = []

    result = replay(RejectedEvent.objects.all(), LATER, after_page=lambda so_far: told.append(so_far.total))

    assert (result.accepted, result.still_rejected, result.is_complete) == (40, 20, True)
    assert dict(result.codes) == {"not_in_enumeration": 20}
    assert told == [*range(7, 60, 7), 60]
    assert TradeEvent.objects.count() == Batch.objects.count() == 40
    assert RejectedEvent.objects.filter(replayed_at=None, code="not_in_enumeration").count() == 20
    replayed = collection(RejectedEvent).find({"replayed_at": {"$ne": None}})
    marks = {row["replayed_as"]: row["value"] for row in replayed}
    assert set(marks) == {f"E-{n}" for n in range(40)}
    assert all(f'"{event}"'.encode() in value for event, value in marks.items())


def test_a_dry_run_changes_nothing(trader: Trader) -> None:
    reject_many(good=3, bad=2)
    before = everything()
    result = replay(RejectedEvent.objects.all(), LATER, dry_run=True)
    assert (result.accepted, result.still_rejected) == (3, 2)
    assert everything() == before
    assert not RejectedEvent.objects.exclude(replayed_at=None).exists()


def test_a_replay_that_ran_out_of_time_goes_on_where_it_ended(trader: Trader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_module, "PAGE", 10)
    reject_many(good=5, bad=20)
    first = replay(RejectedEvent.objects.all(), LATER, seconds=0)
    assert (first.total, first.is_complete) == (10, False)

    second = replay(RejectedEvent.objects.all(), LATER, after=first.last)
    assert (second.accepted, second.still_rejected) == (0, 15)


def test_memory_stays_flat_however_large_the_messages(trader: Trader) -> None:
    megabytes = 100
    reject_many(good=megabytes, bad=0, size=1_000_000)
    tracemalloc.start()
    try:
        assert replay(RejectedEvent.objects.all(), LATER, dry_run=True).total == megabytes
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50_000_000  # A page, the driver's own batch of it, and the text of it.


def test_a_page_is_written_in_a_few_statements(trader: Trader, monkeypatch: pytest.MonkeyPatch) -> None:
    reject_many(good=200, bad=100)
    pages: list[Replay] = []
    writes: list[int] = []
    original = replay_module.durably

    def count(statement: Any) -> Any:
        writes.append(1)
        return original(statement)

    monkeypatch.setattr(replay_module, "durably", count)
    replay(RejectedEvent.objects.all(), LATER, after_page=pages.append)
    assert (len(pages), len(writes)) == (1, 1)


# --- The command -----------------------------------------------------------------------------------------------------
def run(*arguments: str) -> str:
    out = StringIO()
    call_command("replay_rejected", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def test_the_command_replays_what_matches_and_prints_the_counts(trader: Trader) -> None:
    reject_many(good=3, bad=2)
    RejectedEvent.objects.filter(offset__in=[0, 3]).update(code="bad_json")

    assert "2 messages read again.\n1 would be taken in as events.\n1 would still be rejected." in run(
        "--code", "bad_json", "--dry-run"
    )
    assert run("--code", "bad_json").startswith("2 messages read again.\n1 were taken in as events.")
    assert TradeEvent.objects.count() == 1
    assert "        2  not_in_enumeration" in run()
    assert TradeEvent.objects.count() == 3
    assert run().startswith("2 messages read again.\n0 were taken in")


def test_the_command_takes_those_received_since(trader: Trader) -> None:
    reject_many(good=2, bad=0)
    RejectedEvent.objects.filter(offset=0).update(received_at=NOW - timedelta(days=2))
    assert run("--since", (NOW - timedelta(days=1)).isoformat(), "--dry-run").startswith("1 messages")
    assert run("--since", (NOW - timedelta(days=3)).date().isoformat(), "--dry-run").startswith("2 messages")
    assert run("--topic", "other", "--dry-run").startswith("0 messages")


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01T00:00Z"])
def test_a_time_that_cannot_be_read_is_named(text: str) -> None:
    with pytest.raises(CommandError, match=text):
        run("--since", text)
