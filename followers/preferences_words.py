"""A follower's preferences in sentences, for whoever has to explain them."""

from __future__ import annotations

from followers.choices import VENDOR_CHANNELS
from followers.preferences import DAYS, DEFAULT, Hours, Level, Preferences

MUTED_NAMED = 20


def in_words(wishes: Preferences) -> list[str]:
    """One sentence for each wish that is not the default."""
    if wishes == DEFAULT:
        return ["Nothing special: every alert, on every channel, at any hour."]
    return [*_channels(wishes), *_muted(wishes), *_hours(wishes), *_value(wishes)] or [
        "Nothing that withholds an alert: every channel, at any hour."
    ]


def _channels(wishes: Preferences) -> list[str]:
    levels = {c: wishes.level(c) for c in VENDOR_CHANNELS}
    off = [str(c.label) for c, level in levels.items() if level is Level.OFF]
    critical = [str(c.label) for c, level in levels.items() if level is Level.CRITICAL_ONLY]
    return [
        *([f"Switched off: {', '.join(off)}."] if off else []),
        *([f"Critical alerts only: {', '.join(critical)}."] if critical else []),
    ]


def _muted(wishes: Preferences) -> list[str]:
    if not wishes.muted_traders:
        return []
    named = sorted(wishes.muted_traders)
    more = f" and {len(named) - MUTED_NAMED:,} more" if len(named) > MUTED_NAMED else ""
    exits = "their exits too" if wishes.mute_exits else "their exits come all the same"
    return [f"Muted: {', '.join(named[:MUTED_NAMED])}{more}; {exits}."]


def _hours(wishes: Preferences) -> list[str]:
    words = [f"Quiet hours: {_span(wishes.quiet_hours)}, in their own time zone."] if wishes.quiet_hours else []
    if not wishes.sms_at_night:
        words.append("No SMS at night.")
    if words:
        words.append("Exits wait for the end of these hours too." if wishes.quiet_exits else "Exits come at any hour.")
    return words


def _span(hours: Hours) -> str:
    days = (
        "every day"
        if len(hours.days) == len(DAYS)
        else ", ".join(name.capitalize() for number, name in enumerate(DAYS) if number in hours.days)
    )
    return f"{hours.start:%H:%M} to {hours.end:%H:%M}, {days}"


def _value(wishes: Preferences) -> list[str]:
    least = wishes.min_value
    return [f"Entries only if their order is worth at least {least.amount:f} {least.currency}."] if least else []
