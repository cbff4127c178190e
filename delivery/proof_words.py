"""A proof's figures in words, for the command and for the admin. They are read from its JSON form."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from notifications.choices import FanOutState

Document = dict[str, Any]


def verdict(result: Document) -> str:
    """The outcome of a run as one sentence."""
    if result["missing"]:
        return f"Not proved: {result['missing']:,} missing."
    if result["cut_short"]:
        back_to = result["proved_back_to"]
        return f"Proved for what was received since {_time(back_to)}." if back_to else "Nothing was looked at."
    return "Proved: nobody was forgotten."


def figures(result: Document) -> list[tuple[str, str]]:
    """What a run has counted, as names and values."""
    events, alerts = result["events"], result["alerts"]
    since = f"received since {_time(result['since'])}" if result["since"] else "all that are stored"
    states = [f"{events[state]:,} {state.label.lower()}" for state in FanOutState if events[state]]
    way = result["under_way"]
    late = f"; {way['overdue']:,} overdue wake-ups are being worked off" if way["overdue"] else ""
    rejected = result["rejected"]
    return [
        ("trades", f"{sum(events.values()):,} {since}" + (f": {', '.join(states)}" if states else "")),
        ("alerts", f"{alerts['owed']:,} surely owed, {alerts['found']:,} of them found; {alerts['stored']:,} stored"),
        *(
            (channel, ", ".join(f"{count:,} {state}" for state, count in counts.items()))
            for channel, counts in result["deliveries"].items()
        ),
        ("under way", f"{way['events']:,} trades, {way['deliveries']:,} deliveries{late}"),
        ("rejected", f"{rejected['received']:,} messages, {rejected['not_replayed']:,} of them not replayed"),
        ("missing", f"{result['missing']:,}"),
        ("took", f"{result['seconds']:.1f} s"),
    ]


def _time(iso: str) -> str:
    return f"{datetime.fromisoformat(iso):%Y-%m-%d %H:%M:%S} UTC"
