"""manage.py rotate_keys: endpoint addresses under the first encryption key."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from pymongo.errors import PyMongoError

from followers.rotation import Rotation, rotate

NAMED = 10


class Command(BaseCommand):
    help = (
        "Re-encrypts endpoint addresses under the first of ENDPOINT_ENCRYPTION_KEYS. Safe beside running workers, to "
        "kill and to run again. Exit status 1: an old key is still needed, or an address cannot be read."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--check", action="store_true", help="change nothing; say whether an old key is needed")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            done = rotate(options["check"], self._progress)
            left = done if options["check"] or not done.changed_meanwhile else rotate(check_only=True)
        except PyMongoError as error:
            raise CommandError(f"MongoDB did not answer: {error}. Run it again; it goes on.", returncode=3) from error
        self.stdout.write(f"{done.seen:,} addresses, {done.old:,} found under an old key, {done.rotated:,} rotated.")
        if done.unreadable:
            named = ", ".join(str(oid) for oid in done.unreadable[:NAMED])
            raise CommandError(f"{len(done.unreadable):,} cannot be read by any key here, such as {named}.")
        if left.old and (options["check"] or left is not done):
            raise CommandError(f"{left.old:,} addresses still need an old key: keep it, and run rotate_keys.")
        self.stdout.write("No old key is needed any more.")

    def _progress(self, done: Rotation) -> None:
        self.stderr.write(f"{done.seen:,} looked at, {done.rotated:,} rotated")
