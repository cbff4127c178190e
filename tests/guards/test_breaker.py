"""The circuit breaker's rules, without clock, network or database."""

from __future__ import annotations

from dataclasses import replace

import pytest

from delivery.choices import BreakerStatus
from delivery.guards.breaker import (
    MAX_PAUSE_SECONDS,
    PROBES,
    State,
    judge,
    opened,
    probed,
    put_back,
    take_probes,
    tripped,
)
from delivery.guards.calls import Counts
from delivery.guards.waves import WAVE_REASON

NOW = 1_000.0
PAUSE = 5.0
OPEN = opened(State(), NOW, PAUSE, "for a test")


def half_open(now: float = NOW + PAUSE) -> State:
    state, granted = take_probes(OPEN, PROBES, now, answer_seconds=15)
    assert granted == PROBES
    return state


@pytest.mark.parametrize(
    ("counts", "opens"),
    [
        (Counts(calls=20, failed=13), True),
        (Counts(calls=20, failed=12), False),  # 60 % is not above 60 %.
        (Counts(calls=19, failed=19), False),  # Too few to say anything.
        (Counts(calls=20, slow=13), True),
        (Counts(calls=100, failed=40, slow=30), True),  # Each call counts once, for whichever comes first.
        (Counts(calls=100, failed=30, slow=30), False),
        (Counts(calls=20, throttled=500), False),  # 429s are not among the calls.
    ],
)
def test_opens_above_the_share_of_bad_calls_and_not_below(counts: Counts, opens: bool) -> None:
    state = judge(State(), counts, Counts(), NOW, PAUSE)
    assert (state.status is BreakerStatus.OPEN) == opens
    if opens:
        assert (state.since, state.probe_at) == (NOW, NOW + PAUSE)
        assert f"of {counts.calls} calls" in state.reason


@pytest.mark.parametrize(
    ("lately", "opens"),
    [
        (Counts(calls=20, slow=15, failed=5), True),
        (Counts(calls=19, slow=19), False),
        (Counts(calls=200, slow=199), False),  # One good answer, and the window's share decides.
    ],
)
def test_opens_at_once_where_nothing_is_answered_any_more_though_much_was_before(lately: Counts, opens: bool) -> None:
    state = judge(State(), Counts(calls=5_000, slow=lately.slow, failed=lately.failed), lately, NOW, PAUSE)
    assert (state.status is BreakerStatus.OPEN) == opens
    if opens:
        assert state.reason == "5 failed and 15 slow or unanswered of 20 calls within 4 s"


def test_open_breaker_is_not_judged_again() -> None:
    bad = Counts(calls=100, failed=100)
    assert judge(OPEN, bad, bad, NOW + 1, PAUSE) == OPEN


def test_no_probe_before_the_pause_is_over() -> None:
    assert take_probes(OPEN, 3, NOW + PAUSE - 0.001, 15) == (OPEN, 0)


def test_pause_over_gives_a_few_probes_and_no_more() -> None:
    state, first = take_probes(OPEN, 2, NOW + PAUSE, 15)
    state, second = take_probes(state, 200, NOW + PAUSE, 15)
    state, third = take_probes(state, 200, NOW + PAUSE, 15)
    assert (first, second, third) == (2, PROBES - 2, 0)
    assert state.status is BreakerStatus.HALF_OPEN


def test_closes_once_every_probe_went_well() -> None:
    state = half_open()
    for left in range(PROBES - 1, -1, -1):
        assert state.status is BreakerStatus.HALF_OPEN
        state = probed(state, True, NOW + 6)
        assert (state.status is BreakerStatus.CLOSED) == (left == 0)
    assert state.since == NOW + 6


def test_one_bad_probe_opens_it_for_twice_as_long_up_to_the_cap() -> None:
    state, pauses = half_open(), []
    for _ in range(9):
        state = probed(state, False, NOW)
        assert state.status is BreakerStatus.OPEN
        pauses.append(state.pause_seconds)
        state, _ = take_probes(state, PROBES, state.probe_at, 15)
    assert pauses == [10, 20, 40, 80, 160, 300, 300, 300, 300]
    assert MAX_PAUSE_SECONDS == 300


def test_wave_stays_the_reason_until_the_probes_go_well() -> None:
    wave = f"BadDeviceToken {WAVE_REASON}"
    state = tripped(State(), NOW, PAUSE, wave)
    for _ in range(2):
        state, _ = take_probes(state, PROBES, state.probe_at, 15)
        assert state.is_wave
        state = probed(state, False, NOW)
        assert (state.status, state.is_wave, state.reason) == (BreakerStatus.OPEN, True, wave)
    state, _ = take_probes(state, PROBES, state.probe_at, 15)
    for _ in range(PROBES):
        state = probed(state, True, NOW)
    assert not state.is_wave


def test_late_answers_of_other_probes_change_nothing_once_it_is_open_or_closed() -> None:
    open_again = probed(half_open(), False, NOW)
    assert probed(open_again, True, NOW + 1) == open_again
    assert probed(State(), False, NOW) == State()


def test_probes_whose_worker_died_are_given_to_others_after_a_while() -> None:
    state = half_open()
    assert take_probes(state, 1, NOW + PAUSE + 14, 15)[1] == 0
    state, granted = take_probes(state, 1, NOW + PAUSE + 15, 15)
    assert (granted, state.probes_left) == (1, PROBES - 1)


def test_single_alert_is_a_single_probe_and_the_next_ones_follow() -> None:
    state, granted = take_probes(OPEN, 1, NOW + PAUSE, 15)
    for _ in range(PROBES):
        assert granted == 1
        state = probed(state, True, NOW + 6)
        state, granted = take_probes(state, 1, NOW + 6, 15)
    assert state.status is BreakerStatus.CLOSED


def test_probes_put_back_can_be_taken_again() -> None:
    state = put_back(half_open(), 2)
    assert take_probes(state, 5, NOW + PAUSE, 15)[1] == 2
    assert put_back(OPEN, 2) == OPEN


def test_state_survives_its_way_through_storage() -> None:
    stored = half_open().as_dict()
    assert State.from_dict(stored) == half_open()
    assert State.from_dict({**stored, "of_a_later_release": 1}) == half_open()
    assert State.from_dict({"status": "open", "since": 1.0}) == replace(State(), status=BreakerStatus.OPEN, since=1.0)
