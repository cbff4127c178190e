"""What followers may wish for, how it is read, and when their quiet hours end."""

from __future__ import annotations

from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any

import pytest

from followers.preferences import DEFAULT, Hours, Level, MinValue, PreferencesError, merge, parse, read, zone_of

EVERYTHING = {
    "channels": {"apns": "all", "fcm": "off", "sms": "critical_only", "discord": "all", "onesignal": "all"},
    "muted_traders": ["T-1", "T-2"],
    "mute_exits": True,
    "quiet_hours": {"start": "22:00", "end": "07:00", "days": ["mon", "sun"]},
    "quiet_exits": True,
    "sms_at_night": False,
    "min_value": {"amount": "1000.50", "currency": "INR"},
}


def test_a_whole_document_comes_back_as_it_was() -> None:
    assert parse(EVERYTHING).as_document() == EVERYTHING
    assert parse(parse({}).as_document()).as_document() == DEFAULT.as_document()


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ([], ""),
        ({"colour": "red"}, "colour"),
        ({"channels": []}, "channels"),
        ({"channels": {"in_app": "off"}}, "channels.in_app"),
        ({"channels": {"fcm": "loud"}}, "channels.fcm"),
        ({"channels": {"fcm": ["off"]}}, "channels.fcm"),
        ({"muted_traders": "T-1"}, "muted_traders"),
        ({"muted_traders": [1]}, "muted_traders"),
        ({"muted_traders": [str(n) for n in range(1_001)]}, "muted_traders"),
        ({"mute_exits": 1}, "mute_exits"),
        ({"quiet_hours": {"start": "25:00", "end": "07:00"}}, "quiet_hours.start"),
        ({"quiet_hours": {"start": "22:00"}}, "quiet_hours.end"),
        ({"quiet_hours": {"start": "22:00", "end": "22:00"}}, "quiet_hours.end"),
        ({"quiet_hours": {"start": "22:00", "end": "07:00", "days": []}}, "quiet_hours.days"),
        ({"quiet_hours": {"start": "22:00", "end": "07:00", "days": [["mon"]]}}, "quiet_hours.days"),
        ({"min_value": {"amount": "-1", "currency": "INR"}}, "min_value.amount"),
        ({"min_value": {"amount": "NaN", "currency": "INR"}}, "min_value.amount"),
        ({"min_value": {"amount": "5"}}, "min_value.currency"),
    ],
)
def test_a_broken_field_is_named_to_writers_and_default_to_the_fan_out(raw: Any, field: str) -> None:
    with pytest.raises(PreferencesError) as refused:
        parse(raw)

    assert list(refused.value.errors) == [field]
    assert read(raw) == DEFAULT


def test_one_broken_field_does_not_cost_the_others() -> None:
    assert read({"muted_traders": ["T-1"], "quiet_hours": "at night"}).muted_traders == {"T-1"}


def test_a_patch_changes_what_it_names_and_null_is_the_default() -> None:
    merged = merge(EVERYTHING, {"channels": {"fcm": "all"}, "quiet_hours": None, "mute_exits": False})

    assert (merged.level("fcm"), merged.level("sms")) == (Level.ALL, Level.CRITICAL_ONLY)
    assert (merged.quiet_hours, merged.mute_exits) == (None, False)
    assert merged.min_value == MinValue(Decimal("1000.50"), "INR")
    with pytest.raises(PreferencesError) as refused:
        merge(EVERYTHING, {"quiet_hours": {"start": "x", "end": "07:00"}})
    assert list(refused.value.errors) == ["quiet_hours.start"]


@pytest.mark.parametrize(
    ("zone", "at", "end"),
    [
        ("Asia/Kolkata", "2026-03-10 16:29", None),  # 21:59 there
        ("Asia/Kolkata", "2026-03-10 16:30", "2026-03-11 01:30"),
        ("Asia/Kolkata", "2026-03-11 01:29", "2026-03-11 01:30"),
        ("Asia/Kolkata", "2026-03-11 01:30", None),
        ("Europe/Berlin", "2026-03-28 22:00", "2026-03-29 05:00"),  # The clock goes forward in between.
        ("Europe/Berlin", "2026-10-24 21:00", "2026-10-25 06:00"),  # And back.
        ("No/Where", "2026-03-10 22:00", "2026-03-11 07:00"),
        ("../etc/passwd", "2026-03-10 21:59", None),
    ],
)
def test_quiet_hours_go_by_the_followers_own_clock(zone: str, at: str, end: str | None) -> None:
    hours = Hours(time(22), time(7))

    assert hours.until(moment(at), zone_of(zone)) == (end and moment(end))


@pytest.mark.parametrize(
    ("start", "end", "at", "ends"),
    [
        (time(1), time(2, 30), "2026-10-25 01:15", "2026-10-25 01:30"),  # 02:30 comes twice: the second one counts.
        (time(1), time(2, 30), "2026-03-29 01:15", "2026-03-29 01:30"),  # 02:30 is left out: 03:30 stands for it.
    ],
)
def test_an_end_that_comes_twice_or_never(start: time, end: time, at: str, ends: str) -> None:
    assert Hours(start, end).until(moment(at), zone_of("Europe/Berlin")) == moment(ends)


def test_the_day_is_that_on_which_quiet_hours_start() -> None:
    friday_night = Hours(time(22), time(7), frozenset({4}))

    assert friday_night.until(moment("2026-03-14 06:00"), UTC) == moment("2026-03-14 07:00")  # A Saturday.
    assert friday_night.until(moment("2026-03-14 23:00"), UTC) is None


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
