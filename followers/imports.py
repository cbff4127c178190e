"""The import of a file of followers, in memory that stays flat: chunk by chunk, each written in bulk.

What has not changed is not written, so that importing a file again changes nothing (followers/upserts.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from followers import upserts
from followers.import_lines import MAX_LINE_BYTES, ImportLine, parse_line, read_chunks
from followers.members import BadValueError
from followers.upserts import Outcome, Row, merged

CHUNK_LINES = 2_000
"""Lines per bulk write; beyond it MongoDB gets no faster, and memory grows with it."""


@dataclass(slots=True)
class Counts:
    """What became of the rows of one kind."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0

    def add(self, rows: Iterable[Row]) -> None:
        found = Counter(row.outcome for row in rows)
        self.inserted += found[Outcome.CREATED]
        self.updated += found[Outcome.UPDATED]
        self.unchanged += found[Outcome.UNCHANGED]


@dataclass(slots=True)
class ImportSummary:
    """What an import did. A row that several chunks name is counted in each of them."""

    lines: int = 0  # Without blank ones.
    rejected: int = 0
    traders: Counts = field(default_factory=Counts)
    followers: Counts = field(default_factory=Counts)
    follows: Counts = field(default_factory=Counts)
    endpoints: Counts = field(default_factory=Counts)


@dataclass(frozen=True, slots=True)
class RejectedLine:
    number: int  # From 1, as editors count.
    reason: str


def import_followers(
    source: BinaryIO,
    on_reject: Callable[[RejectedLine], None],
    on_progress: Callable[[int], None] = lambda size: None,
    chunk_lines: int = CHUNK_LINES,
) -> ImportSummary:
    """Imports every good line of `source`; a bad one is handed to `on_reject` and the rest goes on.

    Within the file the last line about something wins. `on_progress` is told the bytes that were worked off since it
    was last called.
    """
    summary = ImportSummary()
    for chunk in read_chunks(source, chunk_lines):
        good = list(_good_lines(chunk.lines, summary, on_reject))
        if good:
            write_lines(good, summary)
        on_progress(chunk.size)
    return summary


def _good_lines(
    lines: Iterable[tuple[int, bytes | None]], summary: ImportSummary, on_reject: Callable[[RejectedLine], None]
) -> Iterator[ImportLine]:
    for number, raw in lines:
        summary.lines += 1
        try:
            if raw is None:
                raise BadValueError(f"The line is longer than {MAX_LINE_BYTES:,} bytes.")
            yield parse_line(raw)
        except BadValueError as error:
            summary.rejected += 1
            on_reject(RejectedLine(number, str(error)))


def write_lines(lines: Collection[ImportLine], summary: ImportSummary) -> None:
    """Brings the database to what `lines` say, and adds to the summary what that took."""
    traders = upserts.write_traders(merged((line.trader_id, line.trader) for line in lines))
    followers = upserts.write_followers(merged((line.follower_id, line.follower) for line in lines))
    follows = upserts.write_follows(
        merged(((traders[line.trader_id].id, followers[line.follower_id].id), line.follow) for line in lines)
    )
    endpoints = upserts.write_endpoints(
        [(address, {"follower_id": followers[line.follower_id].id}) for line in lines for address in line.endpoints]
    )
    summary.traders.add(traders.values())
    summary.followers.add(followers.values())
    summary.follows.add(follows.values())
    summary.endpoints.add({row.id: row for row in endpoints}.values())
