"""Until when an alert is worth reading. Pure but for the calendar that is passed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Protocol
from zoneinfo import ZoneInfo

from django.conf import settings

from notifications import calendars
from notifications.choices import DERIVATIVES, ProductType
from notifications.events import TradeEventData

LATEST = datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)
"""The last millisecond that Python, and so every reader of ours, can hold."""

_LAST_MILLISECOND = time(23, 59, 59, 999000)


class Calendar(Protocol):
    """What is asked about exchanges; the module `notifications.calendars` answers."""

    def session_close(self, exchange: str, at: datetime, /) -> datetime | None: ...

    def timezone_of(self, exchange: str, /) -> ZoneInfo | None: ...


@dataclass(frozen=True, slots=True)
class ValidityRules:
    """The durations, in seconds from `executedAt`; each can be set in `settings.VALIDITY` under its name here."""

    intraday_entry_seconds: int = 5 * 60
    intraday_exit_seconds: int = 60 * 60  # Where no session tells when positions are squared off.
    delivery_entry_seconds: int = 24 * 60 * 60  # DELIVERY and POSITIONAL.
    derivatives_entry_seconds: int = 15 * 60  # FUTURES and OPTIONS.
    crypto_entry_seconds: int = 5 * 60
    exit_seconds: int = 24 * 60 * 60  # Every exit but an intraday one.
    update_seconds: int = 24 * 60 * 60
    square_off_seconds: int = 10 * 60  # Before the close: when brokers begin to close intraday positions themselves.
    square_off_seconds_by_exchange: Mapping[str, int] = field(default_factory=dict)  # MIC → before the close.

    def entry_seconds(self, product_type: ProductType) -> int:
        if product_type is ProductType.INTRADAY:
            return self.intraday_entry_seconds
        if product_type in DERIVATIVES:
            return self.derivatives_entry_seconds
        if product_type is ProductType.CRYPTO:
            return self.crypto_entry_seconds
        return self.delivery_entry_seconds

    def square_off(self, exchange: str, close: datetime) -> datetime:
        """Return when intraday positions are squared off in a session that ends at `close`."""
        before = self.square_off_seconds_by_exchange.get(exchange, self.square_off_seconds)
        return close - timedelta(seconds=before)


def validity_rules() -> ValidityRules:
    """Return the rules as `settings.VALIDITY` overrides them."""
    return ValidityRules(**settings.VALIDITY)


def expires_at(event: TradeEventData, rules: ValidityRules, calendar: Calendar = calendars) -> datetime:
    """Return the moment (aware UTC, milliseconds) from which the trade's alerts are not sent any more.

    It may lie before `executedAt`: an intraday entry after the square-off, or a trade of an expired contract. Such an
    event has expired on arrival.
    """
    if event.product_type is ProductType.INTRADAY:
        until = _intraday(event, rules, calendar)
    elif event.is_exit:
        until = _after(event.executed_at, rules.exit_seconds)
    else:
        until = _after(event.executed_at, rules.entry_seconds(event.product_type))
    return min(until, _contract_end(event, calendar))


def update_expires_at(created_at: datetime, rules: ValidityRules) -> datetime:
    """Return until when a general update is sent."""
    return _after(created_at, rules.update_seconds)


def _intraday(event: TradeEventData, rules: ValidityRules, calendar: Calendar) -> datetime:
    """An entry ends at the square-off at the latest; an exit lasts until then.

    An exit between square-off and close lasts until the close: it is urgent exactly then, and nothing may silently drop
    an exit. Outside a session, or without a calendar, plain minutes.
    """
    at = event.executed_at
    close = calendar.session_close(event.exchange, at)
    if close is None:
        return _after(at, rules.intraday_exit_seconds if event.is_exit else rules.intraday_entry_seconds)
    square_off = rules.square_off(event.exchange, close)
    if event.is_exit:
        return square_off if at < square_off else close
    return min(_after(at, rules.intraday_entry_seconds), square_off)


def _contract_end(event: TradeEventData, calendar: Calendar) -> datetime:
    """Return when the contract ends: the moment given, else the end of `expiryDate` where its exchange is.

    A contract ends by its exchange's date; New York's day is not over when that of UTC is. Without a calendar the zone
    is not known, and UTC is taken.
    """
    if event.expiry_at is not None:
        return event.expiry_at
    if event.expiry_date is None:
        return LATEST
    return _end_of_day(event.expiry_date, calendar.timezone_of(event.exchange) or UTC)


def _end_of_day(day: date, zone: tzinfo) -> datetime:
    try:
        return datetime.combine(day, _LAST_MILLISECOND, zone).astimezone(UTC)
    except OverflowError:  # The last day of year 9999, west of Greenwich.
        return LATEST


def _after(moment: datetime, seconds: int) -> datetime:
    try:
        return moment + timedelta(seconds=seconds)
    except OverflowError:  # An event dated on the last day of year 9999.
        return LATEST
