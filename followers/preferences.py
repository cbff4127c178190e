"""What a follower wants to be told, on which channel and when: the schema of `Follower.preferences`.

Two readers: `parse` for whoever writes (every broken field is named), and `read` for the fan-out, to which something
broken is the default: it may cost a wish, never an alert.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import ROUND_UP, Decimal, InvalidOperation
from enum import StrEnum
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import structlog

from followers.choices import VENDOR_CHANNELS

logger = structlog.get_logger(__name__)

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MUTED_MAX = 1_000
"""Muted traders per follower; the whole document is read for every alert."""
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
_LEAST_AMOUNT, _AMOUNT_LIMIT = Decimal("1e-8"), Decimal("1e16")
_CURRENCY = re.compile(r"[A-Za-z0-9]{1,12}")


class Level(StrEnum):
    """What a channel may be used for."""

    OFF = "off"
    CRITICAL_ONLY = "critical_only"
    ALL = "all"


class PreferencesError(ValueError):
    """Preferences that cannot be stored. `errors` has a sentence for each broken field, by its dotted name."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {words}" for name, words in errors.items()))
        self.errors = dict(errors)


@dataclass(frozen=True, slots=True)
class Hours:
    """A span of each day by the clock on the wall; one that ends before it starts ends on the next day."""

    start: time
    end: time
    days: frozenset[int] = frozenset(range(7))
    """The days on which it starts, Monday = 0."""

    def until(self, at: datetime, zone: tzinfo) -> datetime | None:
        """When the span that holds `at` is over (aware UTC), or None if none does.

        Where the clock is put back, the span takes in the hour that comes twice; where it is put forward, a start or
        an end that does not exist counts as just as long after the last that did.
        """
        today = at.astimezone(zone).date()
        for day in (today, today - timedelta(days=1)):
            if day.weekday() not in self.days:
                continue
            last = day if self.end > self.start else day + timedelta(days=1)
            if min(_instants(day, self.start, zone)) <= at < (end := max(_instants(last, self.end, zone))):
                return end
        return None

    def as_document(self) -> dict[str, Any]:
        return {
            "start": f"{self.start:%H:%M}",
            "end": f"{self.end:%H:%M}",
            "days": [name for number, name in enumerate(DAYS) if number in self.days],
        }


def _instants(day: date, at: time, zone: tzinfo) -> list[datetime]:
    """The moments (aware UTC) at which a wall clock shows this; two where it is put back over it."""
    local = datetime.combine(day, at, zone)
    first = local.astimezone(UTC)
    second = local.replace(fold=1).astimezone(UTC)
    # Of a time that is left out, the second reading lies before the first: it is no moment of its own.
    return [first, max(first, second)]


@dataclass(frozen=True, slots=True)
class MinValue:
    """The least an entry must be worth; it holds for trades in its own currency."""

    amount: Decimal
    currency: str


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a follower has asked for. The defaults: everything on."""

    channels: Mapping[str, Level] = field(default_factory=dict)  # Those that are not named are on.
    muted_traders: frozenset[str] = frozenset()  # External ids.
    mute_exits: bool = False  # Muting a trader mutes the exits too.
    quiet_hours: Hours | None = None
    quiet_exits: bool = False  # Quiet hours, and nights without SMS, hold for exits too.
    sms_at_night: bool = True
    min_value: MinValue | None = None

    def level(self, channel: str) -> Level:
        return self.channels.get(channel, Level.ALL)

    def as_document(self) -> dict[str, Any]:
        """All of it, as JSON; `parse` undoes it."""
        value = self.min_value
        return {
            "channels": {str(c): self.level(c).value for c in VENDOR_CHANNELS},
            "muted_traders": sorted(self.muted_traders),
            "mute_exits": self.mute_exits,
            "quiet_hours": self.quiet_hours.as_document() if self.quiet_hours else None,
            "quiet_exits": self.quiet_exits,
            "sms_at_night": self.sms_at_night,
            "min_value": {"amount": format(value.amount, "f"), "currency": value.currency} if value else None,
        }


DEFAULT = Preferences()


def parse(raw: object) -> Preferences:
    """Preferences out of JSON; what is left out is the default. Raises PreferencesError: the broken fields."""
    parsed, errors = _parse(raw)
    if errors:
        raise PreferencesError(errors)
    return parsed


def read(raw: object) -> Preferences:
    """Stored preferences, for the fan-out: what is broken is the default, and is logged."""
    if not raw:
        return DEFAULT
    parsed, errors = _parse(raw)
    if errors:
        logger.warning("Stored preferences cannot be read; the default holds for them.", fields=sorted(errors))
    return parsed


def merge(current: object, patch: object) -> Preferences:
    """Stored preferences with a PATCH on them.

    Fields that the patch leaves out stay; of `channels` those that it leaves out stay, `quiet_hours` and `min_value`
    are replaced as a whole, and null brings any field back to its default.

    Raises PreferencesError for what is wrong with the patch; what was broken before is the default.
    """
    if not isinstance(patch, Mapping):
        raise PreferencesError({"": "must be an object"})
    merged = read(current).as_document()
    for name, value in patch.items():
        if name == "channels" and isinstance(value, Mapping):
            merged[name] = {**merged[name], **value}
        else:
            merged[name] = value
    return parse(merged)


@lru_cache(maxsize=1_024)
def zone_of(name: str) -> tzinfo:
    """A time zone by its IANA name; UTC for one that nobody knows, which is logged once per process."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError, TypeError):
        logger.warning("A follower's time zone is not known; UTC is taken.", timezone=str(name)[:64])
        return UTC


# --- Reading each field ----------------------------------------------------------------------------------------------
def _parse(raw: object) -> tuple[Preferences, dict[str, str]]:
    if not isinstance(raw, Mapping):
        return DEFAULT, {"": "must be an object"}
    errors = {str(name): "is not a preference" for name in raw if name not in _READERS}
    values: dict[str, Any] = {}
    for name, reader in _READERS.items():
        if raw.get(name) is not None:
            try:
                values[name] = reader(raw[name])
            except PreferencesError as error:
                errors |= {f"{name}.{inner}" if inner else name: words for inner, words in error.errors.items()}
    return Preferences(**values), errors


def _flag(raw: object) -> bool:
    if not isinstance(raw, bool):
        raise PreferencesError({"": "must be true or false"})
    return raw


def _channels(raw: object) -> dict[str, Level]:
    if not isinstance(raw, Mapping):
        raise PreferencesError({"": "must be an object"})
    known, levels = {str(c) for c in VENDOR_CHANNELS}, {level.value for level in Level}
    errors = {}
    for channel, level in raw.items():
        if channel not in known:
            errors[str(channel)] = f"must be one of {', '.join(sorted(known))}"
        elif level is not None and (not isinstance(level, str) or level not in levels):
            errors[channel] = f"must be one of {', '.join(sorted(levels))}"
    if errors:
        raise PreferencesError(errors)
    return {channel: Level(level) for channel, level in raw.items() if level is not None}


def _muted(raw: object) -> frozenset[str]:
    if not isinstance(raw, list) or not all(isinstance(t, str) and 0 < len(t) <= 128 for t in raw):
        raise PreferencesError({"": "must be a list of traders' external ids"})
    if len(raw) > MUTED_MAX:
        raise PreferencesError({"": f"may name {MUTED_MAX:,} traders at most"})
    return frozenset(raw)


def _hours(raw: object) -> Hours:
    if not isinstance(raw, Mapping):
        raise PreferencesError({"": "must be an object with start and end"})
    errors = {str(name): "is not known" for name in raw if name not in {"start", "end", "days"}}
    times = {name: _clock_time(raw.get(name)) for name in ("start", "end")}
    errors |= {name: "must be a time such as 22:00" for name, at in times.items() if at is None}
    days = raw.get("days")
    if days is None:
        days = list(DAYS)
    if not isinstance(days, list) or not days or not all(isinstance(day, str) and day in DAYS for day in days):
        errors["days"] = f"must be a list of {', '.join(DAYS)}"
    start, end = times["start"], times["end"]
    if not errors and start == end:
        errors["end"] = "must be another time than the start"
    if errors or start is None or end is None:
        raise PreferencesError(errors)
    return Hours(start, end, frozenset(DAYS.index(day) for day in days))


def _clock_time(raw: object) -> time | None:
    """22:00 as a time; None for anything else."""
    match = _CLOCK.fullmatch(raw) if isinstance(raw, str) else None
    return time(int(match[1]), int(match[2])) if match else None


def _min_value(raw: object) -> MinValue:
    if not isinstance(raw, Mapping):
        raise PreferencesError({"": "must be an object with amount and currency"})
    errors = {str(name): "is not known" for name in raw if name not in {"amount", "currency"}}
    amount, currency = _amount(raw.get("amount")), raw.get("currency")
    if amount is None:
        errors["amount"] = "must be a positive number, best as a string"
    if not isinstance(currency, str) or not _CURRENCY.fullmatch(currency):
        errors["currency"] = "must be a currency's code, such as INR"
    if errors or amount is None or not isinstance(currency, str):
        raise PreferencesError(errors)
    return MinValue(amount, currency.upper())


def _amount(raw: object) -> Decimal | None:
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        return None
    try:
        amount = Decimal(str(raw))
        if not 0 < amount < _AMOUNT_LIMIT:
            return None
        return amount if amount == round(amount, 8) else amount.quantize(_LEAST_AMOUNT, ROUND_UP)
    except InvalidOperation:  # No number, or NaN.
        return None


_READERS = {
    "channels": _channels,
    "muted_traders": _muted,
    "mute_exits": _flag,
    "quiet_hours": _hours,
    "quiet_exits": _flag,
    "sms_at_night": _flag,
    "min_value": _min_value,
}
