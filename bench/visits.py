"""Visits to NotifyHub's pages and calls in this process, by Django's test client: their times and their statements.

The time is that of the whole answer at the server, from the request's arrival to the last byte: middleware, session,
database, template. Neither the network nor uvicorn is in it.
"""

# ruff: noqa: PLC0415  # Django can be imported only once it is set up.
from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

Document = dict[str, Any]
OPTIONS = {
    "find": ("find", "filter", "sort", "projection", "skip", "limit", "hint"),
    "aggregate": ("aggregate", "pipeline", "hint", "cursor"),
    "count": ("count", "query", "limit", "hint"),
}  # fmt: skip
"""What of a command, as the profiler keeps it, explain() takes."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One page or call.

    Parameters:
      shows: Texts that the answer must have; a wrong page is no result.
      post: A form to post, instead of asking for the page.
    """

    name: str
    path: str
    shows: Sequence[str] = ()
    post: Mapping[str, Any] | None = None


class Visitor:
    """Somebody who is logged in: staff by a session, or a follower by a token."""

    def __init__(self, token: str = "") -> None:
        from django.test import Client

        import notifyhub.asgi  # noqa: F401  What a web process does at its start is done here, too.

        self.wrong: list[str] = []  # What answers were not as they should be.
        headers = {"authorization": f"Bearer {token}"} if token else None
        self.client = Client(SERVER_NAME="localhost", headers=headers)
        if not token:
            from django.contrib.auth.models import User

            staff, _ = User.objects.get_or_create(username="bench", is_staff=True, is_superuser=True)
            self.client.force_login(staff)

    def timed(self, visit: Visit) -> float:
        """Milliseconds. An answer that is not what it should be is noted in `wrong`."""
        from django.core.cache import cache

        cache.clear()  # The operations page is made anew.
        began = time.perf_counter()
        if visit.post is None:
            answer = self.client.get(visit.path, secure=True)
        else:
            answer = self.client.post(visit.path, visit.post, secure=True, follow=True)
        took = (time.perf_counter() - began) * 1_000
        text = answer.content.decode()
        if answer.status_code != HTTPStatus.OK:
            self.wrong.append(f"{visit.name}: status {answer.status_code}")
        elif missing := [words for words in visit.shows if words not in text]:
            self.wrong.append(f"{visit.name} does not show {missing}")
        return took


# --- Statements ------------------------------------------------------------------------------------------------------
def statements_of(visited: Callable[[], object]) -> Iterator[Document]:
    """What MongoDB was asked meanwhile, on collections of ours, as its profiler has kept it."""
    from followers.mongo import database

    mongo = database()
    mongo.command("profile", 2)
    try:
        visited()
    finally:
        mongo.command("profile", 0)
    try:
        for entry in list(mongo["system.profile"].find({"op": {"$in": ["query", "command"]}})):
            name = entry["ns"].partition(".")[2]
            if name.startswith(("notifications_", "delivery_", "followers_")) and "planSummary" in entry:
                yield entry
    finally:
        mongo["system.profile"].drop()


def in_words(entry: Document) -> str:
    """A profiled statement in one line: what it read, by which plan, and how much of it."""
    name = entry["ns"].partition(".")[2]
    read = f"{entry.get('keysExamined', 0):,} keys, {entry.get('docsExamined', 0):,} documents"
    sort = ", sorted in memory" if entry.get("hasSortStage") else ""
    return f"{name}: {entry['planSummary']}; {read}, {entry.get('nreturned', 0):,} returned{sort}, {entry['millis']} ms"


def explained(entry: Document) -> Document:
    """explain() of a profiled statement: its index, and how much it examined."""
    from followers.mongo import database

    given = entry["command"]
    kind = next(name for name in OPTIONS if name in given)
    command = {name: given[name] for name in OPTIONS[kind] if name in given}
    if kind == "aggregate":
        command["cursor"] = {}
    told = database().command({"explain": command, "verbosity": "executionStats"})
    cursor = next((s["$cursor"] for s in told.get("stages", []) if "$cursor" in s), told)
    stats, plan = cursor["executionStats"], list(_stages(cursor["queryPlanner"]["winningPlan"]))
    return {
        "statement": f"{kind} on {given[kind]}",
        "plan": " < ".join(plan),
        "keys examined": stats["totalKeysExamined"],
        "documents examined": stats["totalDocsExamined"],
        "returned": stats["nReturned"],
    }


def _stages(plan: Document) -> Iterator[str]:
    """From the last stage down to the index."""
    plan = plan.get("queryPlan", plan)
    yield plan["stage"] + (f" {plan['indexName']}" if "indexName" in plan else "")
    for inner in [plan["inputStage"]] if "inputStage" in plan else plan.get("inputStages", []):
        yield from _stages(inner)


def sizes(*names: str) -> dict[str, dict[str, float]]:
    """MB of each collection: its documents as they are and as they are stored, and its indexes."""
    from followers.mongo import database

    found = {}
    for name in names:
        stats = database().command("collStats", name)
        found[name] = {
            "documents": stats["count"],
            "bytes each": round(stats["size"] / max(1, stats["count"])),
            "MB stored": round(stats["storageSize"] / 1e6),
            "MB of indexes": round(stats["totalIndexSize"] / 1e6),
            "of them": {index: round(size / 1e6) for index, size in stats["indexSizes"].items()},  # type: ignore[dict-item]
        }
    return found
