"""`manage.py create_api_key NAME --scopes …`: a service's key, printed once."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from followers import service_keys
from followers.choices import Scope


class Command(BaseCommand):
    help = "Makes a key for a service that calls the API, and prints it. It cannot be shown again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--scopes", nargs="+", choices=Scope.values, required=True, metavar="SCOPE")

    def handle(self, *args: Any, **options: Any) -> None:
        _, text = service_keys.create(options["name"], options["scopes"])
        self.stdout.write(text)
