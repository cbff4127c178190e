"""When exchanges trade. A thin, cached layer over the exchange_calendars package.

The package loads pandas (0.5 s, 60 MB), so it is imported on first use only, and only by the process that computes
validities. `preload` moves that pause to the start of a process.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Iterable
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from exchange_calendars import ExchangeCalendar

logger = logging.getLogger(__name__)

_SAME_SESSIONS = {"XNSE": "XBOM", "NSE": "XBOM"}
"""Exchanges that the package does not name, by one with the same hours and holidays. India's two exchanges publish
their holidays together; XNAS, XASE, ARCX and BATS are known to the package as aliases of XNYS."""

_NOT_EXCHANGES = frozenset({"24/5", "24/7", "US_FUTURES"})
"""Names of the package that are time tables, not exchanges."""


class _Sessions(NamedTuple):
    """The sessions around one year, in order: `opens[i]` ≤ session i < `closes[i]`, aware UTC."""

    opens: tuple[datetime, ...]
    closes: tuple[datetime, ...]


_NO_SESSIONS = _Sessions((), ())


def session_close(exchange: str, at: datetime) -> datetime | None:
    """Return the close (aware UTC) of the session that is open at `at`; its lunch break counts as open.

    None on a holiday, before the open, from the close on, on an exchange without a calendar, and outside the years for
    which the exchange's holidays are known.
    """
    name = _calendar_name(exchange)
    if name is None:
        return None
    moment = at.astimezone(UTC)
    sessions = _sessions(name, moment.year)
    index = bisect_right(sessions.opens, moment) - 1
    return sessions.closes[index] if index >= 0 and moment < sessions.closes[index] else None


def timezone_of(exchange: str) -> ZoneInfo | None:
    """Return the exchange's time zone; None for an exchange without a calendar."""
    name = _calendar_name(exchange)
    calendar = None if name is None else _calendar(name)
    return None if calendar is None else calendar.tz


def preload(exchanges: Iterable[str], at: datetime) -> None:
    """Load the package and the sessions of `at`'s year now, instead of in the middle of the first trade."""
    for exchange in exchanges:
        session_close(exchange, at)


@lru_cache(maxsize=4096)
def _calendar_name(exchange: str) -> str | None:
    """Return the package's name for an exchange's calendar, or None."""
    code = exchange.upper()
    code = _SAME_SESSIONS.get(code, code)
    if not code or code in _NOT_EXCHANGES:
        return None
    import exchange_calendars  # noqa: PLC0415 - Loads pandas: on first use only.

    names = exchange_calendars.get_calendar_names(include_aliases=True)
    return exchange_calendars.resolve_alias(code) if code in names else None


@lru_cache(maxsize=128)
def _calendar(name: str) -> ExchangeCalendar | None:
    """Build a calendar, or say in the log why that cannot be done.

    Whatever goes wrong in there concerns one exchange's hours; it must not hold up the trades of all the others. (With
    pandas 3 the package's calendars with an Orthodox Easter, such as Athens, raise NotImplementedError.)
    """
    import exchange_calendars  # noqa: PLC0415 - Loads pandas: on first use only.

    try:
        return exchange_calendars.get_calendar(name)
    except Exception as err:
        logger.error(  # noqa: TRY400 - No traceback: its message alone can be 100 kB.
            "The calendar of exchange %s cannot be built, plain minutes apply: %s", name, _short(err)
        )
        return None


@lru_cache(maxsize=256)
def _sessions(name: str, year: int) -> _Sessions:
    """Read the sessions of a year with a week on either side: a session may be labelled with the next day's date."""
    calendar = _calendar(name)
    if calendar is None:
        return _NO_SESSIONS
    try:
        sessions = _read_sessions(type(calendar), year)
    except Exception as err:  # As in `_calendar`; also years that pandas, counting nanoseconds, does not have.
        logger.error(  # noqa: TRY400 - As in `_calendar`.
            "Exchange %s has no sessions for %d, plain minutes apply: %s", name, year, _short(err)
        )
        return _NO_SESSIONS
    if not sessions.opens:
        logger.warning("The holidays of exchange %s are not known for %d: plain minutes apply.", name, year)
    return sessions


def _read_sessions(kind: type[ExchangeCalendar], year: int) -> _Sessions:
    earliest, latest = kind.bound_min(), kind.bound_max()  # Timestamps, or None for a calendar without a bound.
    first, last = date(year - 1, 12, 25), date(year + 1, 1, 7)
    first = first if earliest is None else max(first, earliest.date())
    last = last if latest is None else min(last, latest.date())
    if not first.year <= year <= last.year:
        return _NO_SESSIONS
    schedule = kind(start=first.isoformat(), end=last.isoformat()).schedule
    return _Sessions(
        tuple(moment.to_pydatetime() for moment in schedule["open"]),
        tuple(moment.to_pydatetime() for moment in schedule["close"]),
    )


def _short(err: Exception) -> str:
    """Name an error; the package's messages can list every session of twenty years."""
    return f"{type(err).__name__}: {str(err)[:200]}"
