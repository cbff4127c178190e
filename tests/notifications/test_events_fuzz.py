"""Whatever arrives is a trade event that can be stored, or refused with a reason; nothing else ever happens."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import bson
from hypothesis import given, settings
from hypothesis import strategies as st

from notifications.events import InvalidEvent, RejectCode, TradeEventData, parse_event
from tests.notifications.builders import DETAILS, EVENT, OPTION, message, trade

JSON_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None))
JSON_VALUES = st.recursive(
    JSON_SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)
NUMBERS = st.from_regex(r"[+-]?[0-9]{0,40}\.?[0-9]{0,40}([eE][+-]?[0-9]{1,12})?", fullmatch=True)
FIELD_VALUES = JSON_VALUES | NUMBERS | st.datetimes().map(str) | st.sampled_from(["", " ", "CLOSE", "OPTIONS"])


def _is_parsed_or_refused(value: bytes | None, headers: list[tuple[str, bytes | None]]) -> None:
    """Either an event that can be stored and ordered, or a refusal with a code and a sentence."""
    try:
        event = parse_event(value, headers)
    except InvalidEvent as err:
        refused = err
    else:
        _can_be_used(event)
        return
    assert refused.code in RejectCode
    assert refused.detail.encode()


def _can_be_used(event: TradeEventData) -> None:
    assert bson.encode(event.raw)
    assert event.executed_at.tzinfo is UTC
    assert event.instrument
    assert event.exit_fraction is None or 0 < event.exit_fraction <= 1


_EARLY = datetime(1970, 1, 2)  # noqa: DTZ001 - Hypothesis adds no zone of its own; the test does.
_LATE = datetime(9999, 12, 30)  # noqa: DTZ001


class TestFuzz:
    @given(st.binary(max_size=200), st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=5))))
    def test_any_bytes(self, value: bytes, headers: list[tuple[str, bytes | None]]) -> None:
        _is_parsed_or_refused(value, headers)

    @given(JSON_VALUES)
    def test_any_json(self, value: Any) -> None:
        _is_parsed_or_refused(json.dumps(value).encode(), [])

    @settings(max_examples=500)
    @given(st.sampled_from([*EVENT, *DETAILS, "tradeDetails", "expiryDate", "strike", "right"]), FIELD_VALUES)
    def test_any_value_in_any_field(self, name: str, value: Any) -> None:
        _is_parsed_or_refused(message(**{name: value}), [])
        _is_parsed_or_refused(message(**OPTION | {name: value}), [])

    @given(st.integers(0, 600), st.binary(max_size=4))
    def test_any_damage_to_a_good_message(self, at: int, damage: bytes) -> None:
        good = message(**OPTION)
        _is_parsed_or_refused(good[:at] + damage + good[at + len(damage) :], [])
        _is_parsed_or_refused(good[:at], [])

    @given(st.binary(max_size=64), st.sampled_from(["ce_id", "correlation-id", "traceparent"]))
    def test_any_header(self, value: bytes, name: str) -> None:
        _is_parsed_or_refused(message(eventId=None), [(name, value)])

    @given(st.datetimes(_EARLY, _LATE), st.integers(-1439, 1439))
    def test_any_moment_comes_back(self, moment: datetime, minutes: int) -> None:
        there = moment.replace(tzinfo=UTC).astimezone(timezone(timedelta(minutes=minutes)))
        expected = moment.replace(microsecond=moment.microsecond // 1000 * 1000, tzinfo=UTC)
        assert trade(executedAt=there.isoformat()).executed_at == expected
