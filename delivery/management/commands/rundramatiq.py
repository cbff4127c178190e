"""manage.py rundramatiq: django_dramatiq's command with the defaults that fit here."""

from __future__ import annotations

import os
from io import StringIO
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser, OutputWrapper
from django_dramatiq.management.commands.rundramatiq import Command as DramatiqCommand

from delivery import checks
from delivery.broker import QUEUES, queues_of, threads_for
from delivery.channels.credentials import is_on
from followers.choices import VENDOR_CHANNELS
from notifications.choices import Priority

LAST_LOOK_MS = 1_000


class Command(DramatiqCommand):
    requires_system_checks = [checks.TAG]
    help = "Runs the workers. `--priorities critical` reserves a process for critical alerts."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--priorities",
            nargs="+",
            choices=Priority.values,
            default=[],
            help="Serve only the queues of these priorities",
        )
        # Our own logging writes one JSON object a line; a second handler would write every line twice.
        # Ten minutes of grace would hold up a deployment: what is unfinished by then wakes up elsewhere.
        # Threads: as many as the chosen queues need, unless somebody says otherwise.
        grace_ms = settings.SHUTDOWN_GRACE_SECONDS * 1_000
        parser.set_defaults(skip_logging=True, worker_shutdown_timeout=grace_ms, threads=settings.WORKER_THREADS)

    def handle(self, *args: Any, **options: Any) -> None:
        chosen = options["queues"] or []
        if unknown := sorted(set(chosen) - set(QUEUES)):
            raise CommandError(f"There is no queue {', '.join(unknown)}; choose from {', '.join(QUEUES)}.")
        chosen += [queue for priority in options.pop("priorities") for queue in queues_of(priority)]
        options["queues"] = list(dict.fromkeys(chosen))
        open_channels = [channel for channel in VENDOR_CHANNELS if is_on(channel, settings)]
        options["threads"] = options["threads"] or threads_for(options["queues"] or QUEUES, open_channels)
        # The grace is kept by delivery.stopping, which reads it as a setting; Dramatiq only has to look once more.
        os.environ["SHUTDOWN_GRACE_SECONDS"] = str(max(1, options["worker_shutdown_timeout"] // 1_000))
        options["worker_shutdown_timeout"] = LAST_LOOK_MS
        self.stdout = OutputWrapper(StringIO())  # It would say which modules it found, between our lines of JSON.
        super().handle(*args, **options)
