"""manage.py import_followers: traders, followers, follows and endpoints from a file of JSON lines."""

from __future__ import annotations

import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

import orjson
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from followers.imports import Counts, ImportSummary, RejectedLine, import_followers

SHOWN_REJECTS = 20
PLAIN_STEP_BYTES = 16 * 1024 * 1024
"""Without a terminal a line is written this often instead of a moving bar."""

HELP = """Upserts traders, followers, follows and endpoints by their external ids, one JSON object a line:

  {"traderId": "T-17", "traderPortfolio": "100000", "followerId": "F-1", "followerPortfolio": "10000",
   "currency": "INR", "multiplier": "1", "allocation": null, "locale": "en", "timezone": "Asia/Kolkata",
   "endpoints": [{"channel": "fcm", "address": "tok", "platform": "android"}]}

Only traderId, followerId and followerPortfolio are required. A field that is absent leaves what is stored (a new row
gets its default); null sets the default. An address belongs to the last follower who registers it, and one that was
deactivated comes back. A follow that had ended starts again. Importing the same file again changes nothing.

Exit status: 0 = every line was imported; 1 = a line was bad (the others were imported), or the file cannot be read."""


class Command(BaseCommand):
    help = HELP
    requires_system_checks: list[str] = []  # type: ignore[assignment]  # A channel without credentials is no concern.

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.formatter_class = RawDescriptionHelpFormatter  # Keeps the example line as it is.
        return parser

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", help="the file of JSON lines (NDJSON, UTF-8); - reads standard input")
        parser.add_argument(
            "--rejects", metavar="FILE", help="write every bad line's number and reason there, as JSON lines"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        with ExitStack() as stack:
            source, size = _open_source(options["file"], stack)
            rejects = _Rejects(self.stderr, _open_rejects(options["rejects"], stack))
            advance = stack.enter_context(_progress(size, self.stderr))
            summary = import_followers(source, rejects.add, advance)
        rejects.summarise(options["rejects"])
        self.stdout.write(_summary_text(summary))
        if summary.rejected:
            sys.exit(1)


class _Rejects:
    """Shows the first bad lines in full and counts the others."""

    def __init__(self, stderr: Any, file: IO[bytes] | None) -> None:
        self._stderr = stderr
        self._file = file
        self._count = 0

    def add(self, line: RejectedLine) -> None:
        self._count += 1
        if self._count <= SHOWN_REJECTS:
            self._stderr.write(f"line {line.number}: {line.reason}")
        if self._file is not None:
            self._file.write(orjson.dumps({"line": line.number, "reason": line.reason}) + b"\n")

    def summarise(self, path: str | None) -> None:
        more = self._count - SHOWN_REJECTS
        if more > 0:
            where = f"all are in {path}" if path else "--rejects FILE writes all of them"
            self._stderr.write(f"and {more:,} more bad lines; {where}.")


def _open_source(name: str, stack: ExitStack) -> tuple[BinaryIO, int | None]:
    """The file and its size in bytes; standard input, and what else is no regular file, has none."""
    if name == "-":
        return sys.stdin.buffer, None
    path = Path(name)
    try:
        source = stack.enter_context(path.open("rb"))
    except OSError as error:
        raise CommandError(f"{name} cannot be read: {error.strerror}.") from error
    return source, path.stat().st_size if path.is_file() else None


def _open_rejects(name: str | None, stack: ExitStack) -> IO[bytes] | None:
    if name is None:
        return None
    try:
        return stack.enter_context(Path(name).open("wb"))
    except OSError as error:
        raise CommandError(f"{name} cannot be written: {error.strerror}.") from error


@contextmanager
def _progress(size: int | None, stderr: Any) -> Iterator[Any]:
    """Gives a function that is told the bytes worked off: a moving bar on a terminal, else a line now and then."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _PlainProgress(size, stderr)
        return
    columns = (TextColumn("Importing"), BarColumn(), TaskProgressColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("import", total=size)
        yield lambda done: bar.update(task, advance=done)


class _PlainProgress:
    def __init__(self, size: int | None, stderr: Any) -> None:
        self._size, self._stderr = size, stderr
        self._done, self._next = 0, PLAIN_STEP_BYTES

    def __call__(self, done: int) -> None:
        self._done += done
        if self._done < self._next:
            return
        self._next = self._done + PLAIN_STEP_BYTES
        share = f" ({self._done / self._size:.0%})" if self._size else ""
        self._stderr.write(f"{self._done / 1e6:,.0f} MB{share}")


def _summary_text(summary: ImportSummary) -> str:
    good = summary.lines - summary.rejected
    rows = [f"{good:,} of {summary.lines:,} lines imported, {summary.rejected:,} bad."]
    for name in ("traders", "followers", "follows", "endpoints"):
        counts: Counts = getattr(summary, name)
        rows.append(f"{name}: {counts.inserted:,} new, {counts.updated:,} changed, {counts.unchanged:,} unchanged")
    return "\n".join(rows)
