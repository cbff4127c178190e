"""Until when an alert is sent: the table of validities, each row a test, and the calendars behind it."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.test import override_settings

from notifications import calendars
from notifications.validity import LATEST, ValidityRules, expires_at, update_expires_at, validity_rules
from tests.notifications.builders import OPTION, trade

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:exchange_calendars", "ignore::DeprecationWarning:pandas"
)

RULES = ValidityRules()
MUMBAI = ZoneInfo("Asia/Kolkata")
NEW_YORK = ZoneInfo("America/New_York")


class FridaySession:
    """XNSE's session of Friday 2026-11-20 and nothing else; notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def session_close(self, exchange: str, at: datetime, /) -> datetime | None:
        self.asked.append(exchange)
        opens, closes = mumbai("09:15"), mumbai("15:30")
        return closes if exchange == "XNSE" and opens <= at < closes else None

    def timezone_of(self, exchange: str, /) -> ZoneInfo | None:
        return {"XNSE": MUMBAI, "XNYS": NEW_YORK}.get(exchange)


def mumbai(clock: str, day: str = "2026-11-20") -> datetime:
    return datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=MUMBAI).astimezone(UTC)


def until(at: str | datetime, rules: ValidityRules = RULES, **fields: Any) -> datetime:
    """Return the validity of the example trade executed at `at` (Mumbai's clock on that Friday)."""
    moment = mumbai(at) if isinstance(at, str) else at
    return expires_at(trade(executedAt=moment.isoformat(), **fields), rules, FridaySession())


ENTRIES = pytest.mark.parametrize("action", ["OPEN", "ADD", None])
EXITS = pytest.mark.parametrize("action", ["REDUCE", "CLOSE"])


class TestIntraday:
    @ENTRIES
    def test_an_entry_is_valid_for_five_minutes(self, action: str | None) -> None:
        assert until("11:30", action=action) == mumbai("11:35")

    @ENTRIES
    def test_an_entry_is_never_valid_past_the_square_off(self, action: str | None) -> None:
        assert until("15:18", action=action) == mumbai("15:20")

    def test_an_entry_after_the_square_off_has_expired_on_arrival(self) -> None:
        assert until("15:25", action="OPEN") == mumbai("15:20")

    @EXITS
    def test_an_exit_is_valid_until_the_square_off(self, action: str) -> None:
        assert until("09:15", action=action) == mumbai("15:20")
        assert until("15:19:59.999", action=action) == mumbai("15:20")

    @EXITS
    def test_an_exit_after_the_square_off_is_valid_until_the_close(self, action: str) -> None:
        assert until("15:20", action=action) == mumbai("15:30")
        assert until("15:29:59.999", action=action) == mumbai("15:30")

    @pytest.mark.parametrize("clock", ["09:14:59.999", "15:30", "20:00"])
    def test_outside_a_session_plain_minutes_apply(self, clock: str) -> None:
        assert until(clock, action="OPEN") == mumbai(clock) + timedelta(minutes=5)
        assert until(clock, action="CLOSE") == mumbai(clock) + timedelta(minutes=60)

    @pytest.mark.parametrize("exchange", ["XMCX", None])
    def test_without_a_calendar_plain_minutes_apply(self, exchange: str | None) -> None:
        assert until("15:18", exchange=exchange, action="OPEN") == mumbai("15:23")
        assert until("15:18", exchange=exchange, action="CLOSE") == mumbai("16:18")

    def test_the_square_off_is_set_per_exchange(self) -> None:
        rules = ValidityRules(square_off_seconds=60, square_off_seconds_by_exchange={"XNSE": 15 * 60})
        assert until("15:00", rules, action="CLOSE") == mumbai("15:15")
        elsewhere = ValidityRules(square_off_seconds=60, square_off_seconds_by_exchange={"XNYS": 15 * 60})
        assert until("15:00", elsewhere, action="CLOSE") == mumbai("15:29")


class TestOtherProducts:
    @ENTRIES
    @pytest.mark.parametrize("product", ["DELIVERY", "POSITIONAL"])
    def test_delivery_and_positional_are_valid_for_a_day(self, product: str, action: str | None) -> None:
        assert until("11:30", productType=product, action=action) == mumbai("11:30", "2026-11-21")

    @ENTRIES
    @pytest.mark.parametrize("product", ["FUTURES", "OPTIONS"])
    def test_entries_of_derivatives_are_valid_for_fifteen_minutes(self, product: str, action: str | None) -> None:
        assert until("11:30", **OPTION | {"productType": product}, action=action) == mumbai("11:45")

    @ENTRIES
    def test_crypto_entries_are_valid_for_five_minutes(self, action: str | None) -> None:
        assert until("23:00", productType="CRYPTO", action=action) == mumbai("23:05")

    @EXITS
    @pytest.mark.parametrize("product", ["DELIVERY", "POSITIONAL", "FUTURES", "OPTIONS", "CRYPTO"])
    def test_every_other_exit_is_valid_for_a_day(self, product: str, action: str) -> None:
        assert until("11:30", **OPTION | {"productType": product}, action=action) == mumbai("11:30", "2026-11-21")

    @pytest.mark.parametrize("product", ["DELIVERY", "POSITIONAL", "FUTURES", "OPTIONS", "CRYPTO"])
    @pytest.mark.parametrize("action", ["OPEN", "CLOSE"])
    def test_only_intraday_asks_for_sessions(self, product: str, action: str) -> None:
        calendar = FridaySession()
        expires_at(trade(**OPTION | {"productType": product}, action=action), RULES, calendar)
        assert calendar.asked == []

    def test_general_updates_are_valid_for_a_day(self) -> None:
        created = datetime(2026, 11, 20, tzinfo=UTC)
        assert update_expires_at(created, RULES) == created + timedelta(hours=24)


class TestExpiryDate:
    def test_nothing_is_valid_past_the_end_of_the_date_where_the_exchange_is(self) -> None:
        last_day = OPTION | {"expiryDate": "2026-11-20"}
        assert until("23:50", **last_day) == mumbai("23:59:59.999")
        assert until("11:30", **last_day, action="CLOSE") == mumbai("23:59:59.999")
        in_new_york = until("11:30", **last_day, exchange="XNYS", action="CLOSE")
        assert in_new_york == datetime(2026, 11, 20, 23, 59, 59, 999000, tzinfo=NEW_YORK).astimezone(UTC)

    def test_without_a_calendar_the_date_ends_as_utc_has_it(self) -> None:
        ends = until("11:30", **OPTION | {"expiryDate": "2026-11-20"}, exchange="XMCX", action="CLOSE")
        assert ends == datetime(2026, 11, 20, 23, 59, 59, 999000, tzinfo=UTC)

    def test_a_moment_is_taken_at_its_word(self) -> None:
        at_the_close = OPTION | {"expiryDate": "2026-11-20T15:30:00+05:30"}
        assert until("15:29", **at_the_close) == mumbai("15:30")
        assert until("15:00", **at_the_close) == mumbai("15:15")

    def test_a_contract_that_has_expired_makes_an_alert_that_has(self) -> None:
        assert until("11:30", **OPTION | {"expiryDate": "2026-11-19"}) == mumbai("23:59:59.999", "2026-11-19")

    @pytest.mark.parametrize("product", ["INTRADAY", "DELIVERY", "CRYPTO"])
    def test_any_product_with_an_expiry_date_ends_with_it(self, product: str) -> None:
        assert until("11:30", productType=product, expiryDate="2026-11-20T11:31:00+05:30") == mumbai("11:31")


class TestEdgesOfTime:
    @pytest.mark.parametrize("product", ["INTRADAY", "DELIVERY", "FUTURES"])
    def test_the_last_day_of_time_does_not_overflow(self, product: str) -> None:
        last = datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)
        fields = OPTION | {"productType": product, "expiryDate": "9999-12-31", "exchange": "XNYS"}
        assert until(last, **fields) == LATEST

    def test_the_real_calendars_have_no_session_at_the_edges_of_time(self) -> None:
        for year in (1970, 2300, 9999):
            assert calendars.session_close("XNSE", datetime(year, 1, 1, 6, tzinfo=UTC)) is None


class TestSettings:
    def test_each_duration_can_be_set(self) -> None:
        with override_settings(VALIDITY={"intraday_entry_seconds": 7, "square_off_seconds_by_exchange": {"XNSE": 1}}):
            rules = validity_rules()
        assert rules == ValidityRules(intraday_entry_seconds=7, square_off_seconds_by_exchange={"XNSE": 1})
        assert until("11:30", rules) == mumbai("11:30:07")

    def test_an_unknown_name_is_an_error(self) -> None:
        with override_settings(VALIDITY={"intraday_seconds": 7}), pytest.raises(TypeError, match="intraday_seconds"):
            validity_rules()

    def test_every_duration_reaches_its_row(self) -> None:
        rules = ValidityRules(1, 2, 3, 4, 5, 6, 7, 8)
        at = mumbai("11:30")
        rows = {
            until(at, rules, productType=product, exchange=exchange, action=action, **terms) - at
            for product, exchange, action, terms in [
                ("INTRADAY", "XMCX", "OPEN", {}),
                ("INTRADAY", "XMCX", "CLOSE", {}),
                ("DELIVERY", "XNSE", "OPEN", {}),
                ("FUTURES", "XNSE", "OPEN", {"expiryDate": "2026-11-26"}),
                ("CRYPTO", "XNSE", "OPEN", {}),
                ("DELIVERY", "XNSE", "CLOSE", {}),
            ]
        } | {update_expires_at(at, rules) - at, mumbai("15:30") - until(at, rules, action="CLOSE")}
        assert rows == {timedelta(seconds=n) for n in range(1, 9)}


class TestCalendars:
    @pytest.mark.parametrize(
        ("exchange", "at", "close"),
        [
            ("XNSE", "2026-11-20T06:00Z", "2026-11-20T10:00Z"),
            ("XBOM", "2026-11-20T06:00Z", "2026-11-20T10:00Z"),
            ("xnse", "2026-11-20T03:45Z", "2026-11-20T10:00Z"),  # The open belongs to the session.
            ("XNSE", "2026-11-20T11:30+05:30", "2026-11-20T10:00Z"),
            ("XNSE", "2026-11-20T03:44:59Z", None),
            ("XNSE", "2026-11-20T10:00Z", None),  # The close does not.
            ("XNSE", "2026-11-21T06:00Z", None),  # A Saturday.
            ("XNSE", "2026-11-24T06:00Z", None),  # A holiday.
            ("XNSE", "2026-12-31T06:00Z", "2026-12-31T10:00Z"),  # The last day that is known.
            ("XNAS", "2026-11-20T20:59Z", "2026-11-20T21:00Z"),
            ("XNYS", "2026-07-01T19:59Z", "2026-07-01T20:00Z"),  # Summer time.
            ("XNYS", "2026-11-27T17:00Z", "2026-11-27T18:00Z"),  # The half day after Thanksgiving.
            ("XHKG", "2026-11-20T04:30Z", "2026-11-20T08:00Z"),  # Lunch.
            ("CMES", "2026-11-18T23:30Z", "2026-11-19T23:00Z"),  # Thursday's session began on Wednesday.
            ("XTKS", "2026-01-05T01:00Z", "2026-01-05T06:30Z"),
            ("XMCX", "2026-11-20T06:00Z", None),
            ("", "2026-11-20T06:00Z", None),
            ("24/7", "2026-11-20T06:00Z", None),
        ],
    )
    def test_the_close_of_the_session_that_is_open(self, exchange: str, at: str, close: str | None) -> None:
        found = calendars.session_close(exchange, datetime.fromisoformat(at))
        assert found == (None if close is None else datetime.fromisoformat(close))

    def test_time_zones(self) -> None:
        assert calendars.timezone_of("XNSE") == MUMBAI
        assert calendars.timezone_of("XNAS") == NEW_YORK
        assert calendars.timezone_of("XMCX") is None

    def test_a_calendar_that_cannot_be_built_means_plain_minutes(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        import exchange_calendars

        def broken(name: str) -> None:
            raise NotImplementedError("x" * 10_000)

        monkeypatch.setattr(exchange_calendars, "get_calendar", broken)
        calendars._calendar.cache_clear()
        calendars._sessions.cache_clear()
        try:
            at = datetime(2026, 11, 20, 9, tzinfo=UTC)
            assert calendars.session_close("XLON", at) is None
            assert calendars.timezone_of("XLON") is None
            entry = trade(exchange="XLON", executedAt="2026-11-20T09:00:00Z")
            assert expires_at(entry, RULES) == at + timedelta(minutes=5)
        finally:
            calendars._calendar.cache_clear()
            calendars._sessions.cache_clear()
        assert [len(record.getMessage()) < 400 for record in caplog.records] == [True]
        assert "XLON" in caplog.text

    def test_a_real_event_meets_the_real_calendar(self) -> None:
        calendars.preload(["XNSE"], datetime(2026, 11, 20, tzinfo=UTC))
        leaving = trade(executedAt="2026-11-20T06:00:00Z", action="CLOSE")
        assert expires_at(leaving, RULES) == mumbai("15:20")

    def test_pandas_is_not_loaded_before_a_calendar_is_asked(self) -> None:
        program = (
            "import sys, notifications.calendars as c\n"
            "from datetime import datetime, UTC\n"
            "assert c.session_close('', datetime.now(UTC)) is None and 'pandas' not in sys.modules\n"
            "c.session_close('XNSE', datetime.now(UTC)); assert 'pandas' in sys.modules\n"
        )
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
