"""manage.py rundramatiq: django_dramatiq's command with the defaults that fit here."""

from __future__ import annotations

import os
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django_dramatiq.management.commands.rundramatiq import Command as DramatiqCommand

from delivery import checks

LAST_LOOK_MS = 1_000


class Command(DramatiqCommand):
    requires_system_checks = [checks.TAG]
    help = "Runs the workers. `--queues fan_out_critical deliver_critical` reserves a process for critical alerts."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        # Our own logging writes one JSON object a line; a second handler would write every line twice.
        # Ten minutes of grace would hold up a deployment: what is unfinished by then wakes up elsewhere.
        parser.set_defaults(skip_logging=True, worker_shutdown_timeout=settings.SHUTDOWN_GRACE_SECONDS * 1_000)

    def handle(self, *args: Any, **options: Any) -> None:
        # The grace is kept by delivery.stopping, which reads it as a setting; Dramatiq only has to look once more.
        os.environ["SHUTDOWN_GRACE_SECONDS"] = str(max(1, options["worker_shutdown_timeout"] // 1_000))
        options["worker_shutdown_timeout"] = LAST_LOOK_MS
        super().handle(*args, **options)
