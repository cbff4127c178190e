"""Counting calls: each one once, when it is answered or when it becomes slow."""

from __future__ import annotations

import pytest

from delivery.channels.base import Outcome, Result
from delivery.guards import calls as calls_module
from delivery.guards.calls import Calls, Counts


class Clock:
    """Both clocks of the counter, moved by the test."""

    now = 1_000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(calls_module, "monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def calls(clock: Clock) -> Calls:
    return Calls(slow_seconds=2.0, now=lambda: clock.now)


OUTCOMES = [
    (Outcome.SENT, Counts(calls=1), True),
    (Outcome.REFUSED, Counts(calls=1), True),
    (Outcome.DEAD, Counts(calls=1), True),
    (Outcome.RETRY, Counts(calls=1, failed=1), False),
    (Outcome.UNKNOWN, Counts(calls=1, failed=1), False),
    (Outcome.MISCONFIGURED, Counts(calls=1, failed=1), False),
    (Outcome.THROTTLED, Counts(throttled=1), True),
    (Outcome.EXPIRED, Counts(), True),
]


@pytest.mark.parametrize(("outcome", "counted", "speaks_for_the_vendor"), OUTCOMES)
def test_each_outcome_counts_as_it_should(
    calls: Calls, outcome: Outcome, counted: Counts, speaks_for_the_vendor: bool
) -> None:
    assert calls.end(calls.begin(), Result(outcome)) is speaks_for_the_vendor
    assert calls.window() == calls.take_unsaid() == counted


def test_every_outcome_that_a_call_can_have_is_considered() -> None:
    said_by_receipts_only = {Outcome.DELIVERED}
    assert {case[0] for case in OUTCOMES} == set(Outcome) - said_by_receipts_only


def test_429_about_one_address_says_nothing_about_the_channel(calls: Calls) -> None:
    calls.end(calls.begin(), Result(Outcome.THROTTLED, extra={"throttled": "endpoint"}))
    assert calls.window() == Counts()


def test_unanswered_call_counts_as_slow_at_that_moment_and_only_once(calls: Calls, clock: Clock) -> None:
    call = calls.begin()
    clock.now += 1.9
    calls.note_slow()
    assert calls.window() == Counts()
    clock.now += 0.2
    calls.note_slow()
    calls.note_slow()
    assert calls.window() == Counts(calls=1, slow=1)
    clock.now += 5
    assert calls.end(call, Result(Outcome.UNKNOWN)) is False
    assert calls.window() == Counts(calls=1, slow=1)


def test_slow_answer_counts_as_slow_though_nobody_looked_meanwhile(calls: Calls, clock: Clock) -> None:
    call = calls.begin()
    clock.now += 2.1
    assert calls.end(call, Result(Outcome.SENT)) is False
    assert calls.window() == Counts(calls=1, slow=1)


def test_window_forgets_after_ten_seconds_and_starts_after_the_breakers_change(calls: Calls, clock: Clock) -> None:
    calls.end(calls.begin(), Result(Outcome.RETRY))
    clock.now += 5
    calls.end(calls.begin(), Result(Outcome.SENT))
    assert calls.window() == Counts(calls=2, failed=1)
    assert calls.window(since=clock.now - 1) == Counts(calls=1)
    clock.now += 5
    assert calls.window() == Counts(calls=1)


def test_what_could_not_be_told_is_told_next_time(calls: Calls) -> None:
    calls.end(calls.begin(), Result(Outcome.RETRY))
    told = calls.take_unsaid()
    assert calls.take_unsaid() == Counts()
    calls.give_back(told)
    calls.end(calls.begin(), Result(Outcome.SENT))
    assert calls.take_unsaid() == Counts(calls=2, failed=1)
