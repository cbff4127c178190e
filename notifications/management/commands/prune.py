"""manage.py prune: removes what is older than the retention settings say."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from pymongo.errors import PyMongoError

from followers import clock
from notifications.retention import Pruned, prune


class Command(BaseCommand):
    help = (
        "Removes finished alerts older than NOTIFICATION_RETENTION_DAYS, and trades and rejected messages older than "
        "EVENT_RETENTION_DAYS. Never what is unfinished or in an open review. Safe to kill, and to run at any time."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only count what would go")

    def handle(self, *args: Any, **options: Any) -> None:
        now = clock.now()
        try:
            done = prune(
                now - timedelta(days=settings.NOTIFICATION_RETENTION_DAYS),
                now - timedelta(days=settings.EVENT_RETENTION_DAYS),
                now,
                dry_run=options["dry_run"],
                on_progress=self._progress,
            )
        except PyMongoError as error:
            raise CommandError(f"MongoDB did not answer: {error}. Run it again; it goes on from there.") from error
        verb = "Would remove at most" if options["dry_run"] else "Removed"
        self.stdout.write(
            f"{verb} {done.alerts:,} alerts, {done.events:,} trades and {done.rejected:,} rejected messages."
        )

    def _progress(self, done: Pruned) -> None:
        self.stderr.write(f"{done.events_seen:,} trades looked at, {done.alerts:,} alerts, {done.events:,} trades gone")
