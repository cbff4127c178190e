"""Rejected messages read again, by the rules of this release: a few that were picked, or everything that matches.

A page at a time, so that memory stays flat whatever the number. Every step may be repeated: an event is stored once
under its id, and a message is marked last, and once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bson import ObjectId
from django.db.models import QuerySet
from pymongo import UpdateOne

from delivery.broker import send_hints
from delivery.intake import read_message, store_accepted
from delivery.intake_documents import AcceptedEvent, Rejection, decode_headers, milliseconds
from followers.index_order import in_index_order
from followers.mongo import collection, durably
from notifications.models import RejectedEvent

Document = dict[str, Any]

PAGE, PAGE_BYTES = 500, 4 * 1024 * 1024
"""A page ends with whichever comes first: a message may have a megabyte, and eight where it is too long to be valid."""

FIELDS = {"topic": 0, "partition": 0, "offset": 0}


@dataclass(slots=True)
class Replay:
    """What became of rejected messages that were tried again. Those replayed earlier are in none of the figures."""

    accepted: int = 0
    still_rejected: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    """Why those are still rejected: reject code → messages."""
    replayed: dict[ObjectId, str] = field(default_factory=dict)
    """The last page's accepted messages: rejected event → event id."""
    last: ObjectId | None = None
    """The rejected event that was tried last."""
    is_complete: bool = True
    """False = time was up before all of them had been tried."""

    @property
    def total(self) -> int:
        return self.accepted + self.still_rejected


def replay(
    rows: QuerySet[RejectedEvent],
    now: datetime,
    *,
    after: ObjectId | None = None,
    dry_run: bool = False,
    seconds: float | None = None,
    after_page: Callable[[Replay], None] = lambda so_far: None,
) -> Replay:
    """Reads those of `rows` that were not replayed yet again, oldest first, and takes in what is an event now.

    An accepted one goes the way of a message from Kafka, its age included: an old one becomes an expired event. One
    that is still bad keeps its place, with the reason found now. Hints are enqueued here.

    Parameters
    ----------
    rows
        Any selection; its order does not matter.
    after
        Begin behind this rejected event, where an earlier replay ran out of time.
    dry_run
        Only count what would happen.
    seconds
        No page is begun after so long; None = go on to the end.
    after_page
        Told the figures so far after each page.
    """
    now, deadline = milliseconds(now), None if seconds is None else time.monotonic() + seconds
    so_far = Replay()
    for page in _pages(rows, after):
        results = [(row, read_message(row["value"], decode_headers(row["headers"]), row["key"])) for row in page]
        accepted = [(row, result) for row, result in results if isinstance(result, AcceptedEvent)]
        rejected = [(row, result) for row, result in results if isinstance(result, Rejection)]
        if not dry_run:
            _take_in(accepted, rejected, now)
        so_far.accepted += len(accepted)
        so_far.still_rejected += len(rejected)
        so_far.codes.update(result.code for _, result in rejected)
        so_far.replayed = {row["_id"]: result.event.event_id for row, result in accepted}
        so_far.last = page[-1]["_id"]
        after_page(so_far)
        if deadline is not None and time.monotonic() > deadline:
            so_far.is_complete = False
            break
    return so_far


def _take_in(
    accepted: list[tuple[Document, AcceptedEvent]], rejected: list[tuple[Document, Rejection]], now: datetime
) -> None:
    _, batches = store_accepted([result for _, result in accepted], now)
    # Marked last: a crash before this line leaves the rows to be replayed again, which then finds duplicates.
    changes = [_change(row, replayed_at=now, replayed_as=result.event.event_id) for row, result in accepted]
    changes += [
        _change(row, code=result.code, reason=result.reason)
        for row, result in rejected
        if (result.code, result.reason) != (row["code"], row["reason"])
    ]
    if changes:
        durably(lambda: collection(RejectedEvent).bulk_write(changes, ordered=False))
    send_hints(batches)


def _change(row: Document, **fields: Any) -> UpdateOne:
    return UpdateOne({"_id": row["_id"], "replayed_at": None}, {"$set": fields})


def _pages(rows: QuerySet[RejectedEvent], after: ObjectId | None) -> Iterator[list[Document]]:
    """Index: notifications_rejectedevent (replayed_at, code, _id), or (replayed_at, _id); a page by key."""
    waiting = in_index_order(rows.filter(replayed_at=None)).order_by("pk")
    while True:
        rest = waiting if after is None else waiting.filter(pk__gt=after)
        ids = list(rest.values_list("pk", flat=True)[:PAGE])
        if not ids:
            return
        yield from _by_size(ids)
        after = ids[-1]


def _by_size(ids: list[ObjectId]) -> Iterator[list[Document]]:
    """The documents of these ids, no more of them at once than PAGE_BYTES hold."""
    found = collection(RejectedEvent).find({"_id": {"$in": ids}}, FIELDS).sort("_id", 1).batch_size(8)
    page, size = [], 0
    for row in found:
        page.append(row)
        size += len(row["value"] or b"")
        if size >= PAGE_BYTES:
            yield page
            page, size = [], 0
    if page:
        yield page
