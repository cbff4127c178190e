"""manage.py prove: the proof that nobody was forgotten."""

from __future__ import annotations

import json
import re
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError
from pymongo.errors import PyMongoError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from delivery.choices import Gap
from delivery.proof import keep_run, prove
from delivery.proof_words import figures, verdict
from followers import clock

SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}

HELP = """Proves that nobody was forgotten: each trade was fanned out or is being, each follower who was owed an alert
has one, each delivery has an end state, a batch that will be sent, or a wake-up ahead, and nothing has been due for
long. It names what is missing; docs/operations.md says what to do about it. It may run at any time, beside everything.

Exit status: 0 = proved; 1 = something is missing; 2 = a wrong argument; 3 = MongoDB did not answer."""


class Command(BaseCommand):
    help = HELP
    requires_system_checks: list[str] = []  # type: ignore[assignment]  # A channel without credentials is no concern.

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.formatter_class = RawDescriptionHelpFormatter
        return parser

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--since",
            metavar="T",
            help="look at trades received since then: a date or time (2026-11-20, 2026-11-20T09:15+05:30; UTC where "
            "nothing else is said), or how long ago (90m, 24h, 7d); default: all",
        )
        parser.add_argument("--json", action="store_true", help="write one JSON object, for machines")

    def handle(self, *args: Any, **options: Any) -> None:
        since = None if options["since"] is None else parse_since(options["since"], clock.now())
        try:
            with _progress() as on_progress:
                proof = prove(since, on_progress=on_progress)
            keep_run(proof, "manage.py prove")
        except (PyMongoError, DatabaseError) as error:
            raise CommandError(f"The proof could not be finished: {error}", returncode=3) from error
        if options["json"]:
            self.stdout.write(json.dumps(proof.as_json(), ensure_ascii=False))
        else:
            self._print(proof.as_json())
        if not proof.holds:
            sys.exit(1)

    def _print(self, result: dict[str, Any]) -> None:
        for name, value in figures(result):
            self.stdout.write(f"  {name + ':':<11} {value}")
        for finding in result["findings"]:
            self.stdout.write(self.style.ERROR(f"{Gap(finding['gap']).label}: {finding['text']}"))
        if result["not_named"]:
            self.stdout.write(self.style.ERROR(f"… and {result['not_named']:,} more."))
        style = self.style.SUCCESS if result["proved"] else self.style.ERROR
        self.stdout.write(style(verdict(result)))


def parse_since(text: str, now: datetime) -> datetime:
    """A date, a time or a duration as aware UTC. Raises CommandError, with exit status 2, for anything else."""
    try:
        if ago := re.fullmatch(r"(\d{1,9})([smhdw])", text.strip()):
            since = now - timedelta(seconds=int(ago[1]) * SECONDS[ago[2]])
        else:
            since = datetime.fromisoformat(text.strip())
            since = since.replace(tzinfo=UTC) if since.tzinfo is None else since.astimezone(UTC)
    except (ValueError, OverflowError):
        hint = "Give a date or time such as 2026-11-20T09:15+05:30, or how long ago, such as 24h or 7d."
        raise CommandError(f"--since {text!r} is no time. {hint}", returncode=2) from None
    if since > now:
        raise CommandError(f"--since {text!r} lies in the future.", returncode=2)
    return since


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Gives a function that is told how many of how many trades were looked at; it draws on a terminal only."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total: None
        return
    columns = (TextColumn("Proving"), BarColumn(), MofNCompleteColumn(), TextColumn("trades"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("prove", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
