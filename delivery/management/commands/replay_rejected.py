"""manage.py replay_rejected: rejected messages read again by the rules of this release, all or those that match."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.dateparse import parse_date, parse_datetime
from pymongo.errors import PyMongoError

from delivery import checks
from delivery.replay import Replay, replay
from followers import clock
from followers.mongo import is_passing
from notifications.models import RejectedEvent
from notifications.statements import received_since

PROGRESS_SECONDS = 2.0


class Command(BaseCommand):
    requires_system_checks = [checks.TAG]
    help = (
        "Reads rejected messages again, oldest first, and takes in what is a valid event by the rules of this release. "
        "An old one becomes an expired event and tells nobody. May be stopped and run again at any time."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--code", metavar="C", help="only those rejected for this reason code")
        parser.add_argument("--topic", metavar="T", help="only those of this topic")
        parser.add_argument("--since", metavar="TIME", help="only those received since, such as 2026-11-21T09:00Z")
        parser.add_argument("--dry-run", action="store_true", help="change nothing; only count what would happen")

    def handle(self, *args: Any, **options: Any) -> None:
        matching: dict[str, object] = {name: options[name] for name in ("code", "topic") if options[name]}
        if options["since"]:
            matching |= received_since(_moment(options["since"]))
        rows = RejectedEvent.objects.filter(**matching)
        waiting = rows.filter(replayed_at=None).count()
        progress = _Progress(self.stderr, waiting)
        try:
            result = replay(rows, clock.now(), dry_run=options["dry_run"], after_page=progress)
        except PyMongoError as error:
            if not is_passing(error):
                raise
            raise CommandError(f"MongoDB is away after {progress.done:,} messages; run it again. {error}") from error
        self._print(result, options["dry_run"])

    def _print(self, result: Replay, dry_run: bool) -> None:
        were, are = ("would be", "would still be") if dry_run else ("were", "are still")
        self.stdout.write(f"{result.total:,} messages read again.")
        self.stdout.write(f"{result.accepted:,} {were} taken in as events.")
        self.stdout.write(f"{result.still_rejected:,} {are} rejected.")
        for code, count in result.codes.most_common():
            self.stdout.write(f"  {count:>9,}  {code}")


class _Progress:
    """A line every few seconds."""

    def __init__(self, stderr: Any, waiting: int) -> None:
        self._stderr = stderr
        self._waiting = waiting
        self._next = time.monotonic() + PROGRESS_SECONDS
        self.done = 0

    def __call__(self, so_far: Replay) -> None:
        self.done = so_far.total
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + PROGRESS_SECONDS
        self._stderr.write(
            f"{so_far.total:,} of {self._waiting:,}: {so_far.accepted:,} taken in, {so_far.still_rejected:,} not"
        )


def _moment(text: str) -> datetime:
    """A time with its offset (none: UTC), or a day."""
    try:
        at = parse_datetime(text)
        day = None if at else parse_date(text)
    except ValueError as error:
        raise CommandError(f"--since {text}: {error}.") from error
    if day is not None:
        return datetime(day.year, day.month, day.day, tzinfo=UTC)
    if at is None:
        raise CommandError(f"--since must be a time such as 2026-11-21T09:00Z or a day, not {text!r}.")
    return at if at.tzinfo else at.replace(tzinfo=UTC)
