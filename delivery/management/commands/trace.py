"""manage.py trace ID: the whole path of an event or an alert, with the time between the steps."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from delivery.trace import NothingFoundError, Path, paths, with_gaps


class Command(BaseCommand):
    help = "Prints the path of an event, a correlation id or a notification, with times."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", help="An event id, a correlation id, or a notification id.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            found = paths(options["id"])
        except NothingFoundError as error:
            raise CommandError(str(error)) from None
        for path in found:
            self._print(path)

    def _print(self, path: Path) -> None:
        self.stdout.write(self.style.MIGRATE_HEADING(path.title))
        for name, value in path.facts.items():
            self.stdout.write(f"  {name + ':':<16} {value}")
        for step, gap in with_gaps(path.steps):
            self.stdout.write(f"  {step.at:%H:%M:%S.%f}"[:-3] + f" {gap or '':>12}  {step.what}")
        if path.outcomes:
            self.stdout.write("  deliveries:")
            for outcome, count in path.outcomes.items():
                self.stdout.write(f"    {count:>8}  {outcome}")
