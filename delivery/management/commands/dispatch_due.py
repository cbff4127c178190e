"""manage.py dispatch_due: the daemon that wakes whatever is due."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import structlog
from django.core.management.base import BaseCommand, CommandParser

from delivery import checks, dispatcher
from followers import clock
from followers.mongo import repeat_no_more
from followers.spans import start
from notifications.telemetry import serve_own

logger = structlog.get_logger(__name__)


class Command(BaseCommand):
    requires_system_checks = [checks.TAG]
    help = "Wakes every batch and delivery that is due. Any number may run side by side."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="Sweep once and exit.")

    def handle(self, *args: Any, **options: Any) -> None:
        start("dispatch_due")
        if options["once"]:
            self.stdout.write(str(dispatcher.sweep_once(clock.now())))
            return
        stop = threading.Event()

        def told_to_stop(number: int, frame: FrameType | None) -> None:
            stop.set()
            repeat_no_more()  # While MongoDB is away, a stop does not wait for it.

        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, told_to_stop)
        serve_own()
        logger.info("Dispatching what is due.")
        dispatcher.run(stop)
        logger.info("Stopped.")
