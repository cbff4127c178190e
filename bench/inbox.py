"""A follower's calls with 1,000,000 entries in the inboxes, 2,000 of them in one; explain() of each."""

# ruff: noqa: PLC0415  # Models can be imported only once Django is set up.
from __future__ import annotations

import argparse
import random
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from bench import visits
from bench.measure import percentile
from bench.report import Limit, Report, say
from bench.seed import Audience, seeding
from bench.stage import check, set_up, table
from bench.visits import Visit, Visitor

Document = dict[str, Any]
TRADERS, TRADES, HOURS = 4, 50, 20
MANY_TRADERS = 40
"""So many traders, with 50 entries each, has the follower with the fullest inbox."""

ASKED = 100
"""Followers who call, a round; the fullest inbox is asked as often."""

MOST_MS = 20
ENTRIES = "notifications_inappentry"
CALLS = ("list", "list of 100", "next page", "since", "count")
SETTINGS = {"API_FOLLOWER_PER_MINUTE": "1000000", "FOLLOWER_TOKEN_SECONDS": "86400"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--entries", type=int, default=1_000_000)


def run(arguments: argparse.Namespace) -> Report:
    audiences = {f"T-{n}": arguments.entries // TRADERS // TRADES for n in range(TRADERS)}
    audiences |= {f"T-many-{n}": 1 for n in range(MANY_TRADERS - 1)}
    with set_up(audiences, {**SETTINGS, **dict(arguments.setting)}):
        began = time.perf_counter()
        full, others = _seed()
        stored = visits.sizes(ENTRIES)
        say(f"inbox: {stored[ENTRIES]['documents']:,} entries seeded in {time.perf_counter() - began:.0f} s")
        people = [Person(oid) for oid in random.Random(1).sample(others, min(ASKED, len(others)))]
        fullest = Person(full)
        check(len(fullest.entries) > MANY_TRADERS * TRADES * 0.9, f"only {len(fullest.entries)} in the fullest inbox")
        rounds = [_round(people, fullest) for _ in range(arguments.rounds)]
        plans = {
            f"{name}, {whose}": _plans(person, name)
            for name in CALLS
            for whose, person in (("an inbox", people[0]), ("the fullest inbox", fullest))
        }
    limits = {figure: Limit(most=MOST_MS) for figure in rounds[0]}
    return Report("inbox", rounds, limits, {"stored": stored, "explain()": plans})


class Person:
    """A follower who calls, and what is in their inbox, the newest first."""

    def __init__(self, follower_id: Any) -> None:
        from followers.models import Follower
        from notifications.tokens import mint

        self.visitor = Visitor(mint(Follower.objects.get(pk=follower_id)))
        mine = {"follower_id": follower_id, "archived_at": None, "expires_at": {"$gt": datetime.now(UTC)}}
        self.entries = list(table(ENTRIES).find(mine).sort([("created_at", -1), ("_id", -1)]))
        self.calls = {visit.name: visit for visit in self._visits()}

    def _visits(self) -> list[Visit]:
        ids = [f'"id":"{entry["_id"]}"' for entry in self.entries]
        unread = sum(1 for entry in self.entries if entry["read_at"] is None)
        since = quote(self.entries[5]["created_at"].replace(tzinfo=UTC).isoformat())
        first_page = self.visitor.client.get("/api/v1/inbox/", secure=True).json()
        return [
            Visit("list", "/api/v1/inbox/", ids[:10]),
            Visit("list of 100", "/api/v1/inbox/?limit=100", ids[:100]),
            Visit("next page", first_page["next"], ids[10:20]),
            Visit("since", f"/api/v1/inbox/?since={since}", ids[:5]),
            Visit("count", "/api/v1/inbox/count", [f'"unread":{unread}}}']),
        ]


def _round(people: list[Person], fullest: Person) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name in CALLS:
        of_each = sorted(person.visitor.timed(person.calls[name]) for person in people)
        of_one = sorted(fullest.visitor.timed(fullest.calls[name]) for _ in people)
        for whose, took in ((name, of_each), (f"{name}, the fullest inbox", of_one)):
            figures |= {f"{whose}: p{share}, ms": percentile(took, share / 100) for share in (50, 99)}
    wrong = [words for person in (*people, fullest) for words in person.visitor.wrong]
    check(not wrong, "; ".join(wrong[:5]))
    say(f"inbox: {figures}")
    return figures


def _plans(person: Person, name: str) -> list[dict[str, Any]]:
    asked = visits.statements_of(lambda: person.visitor.timed(person.calls[name]))
    return [visits.explained(entry) for entry in asked if entry["ns"].endswith(ENTRIES)]


# --- What is stored ---------------------------------------------------------------------------------------------------
def _seed() -> tuple[Any, list[Any]]:
    """Returns the follower with the fullest inbox, and the others."""
    from followers.statements import AudienceMember

    with seeding() as seeder:
        audiences = [Audience.of(f"T-{n}") for n in range(TRADERS)]
        full = audiences[0].members[0]
        crowds = [(audience, audience.members) for audience in audiences]
        for n in range(MANY_TRADERS - 1):
            audience = Audience.of(f"T-many-{n}")
            crowds.append((audience, [AudienceMember(audience.members[0].follow, full.follower, full.endpoints)]))
        now, ago = datetime.now(UTC), timedelta(hours=HOURS) / TRADES
        for n, (audience, members) in enumerate(crowds):
            for trade in range(TRADES):
                at = now - ago * (trade + (n + 1) / (len(crowds) + 1))
                seeder.alerts(seeder.trade(audience, at), members, keep=["entries"])
    _read_some(now)
    return full.follower["_id"], [member.follower["_id"] for a in audiences for member in a.members[1:]]


def _read_some(now: datetime) -> None:
    """Of five trades in seven the entries are read, of one in 23 archived."""
    for name, divisor, rests in (("read_at", 7, [0, 1, 2, 3, 4]), ("archived_at", 23, [0])):
        chosen = {"$in": [{"$mod": [{"$toLong": "$created_at"}, divisor]}, rests]}
        table(ENTRIES).update_many({"$expr": chosen}, {"$set": {name: now}})
