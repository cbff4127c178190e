"""`manage.py consume_trades`: take executed trades in from Kafka until SIGTERM."""

from __future__ import annotations

import signal
from threading import Event, Thread
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from delivery import checks
from delivery.consumer import TradeConsumer, UnreadableRecordError, take_in_and_hint
from delivery.kafka import connection_options
from delivery.poison import PoisonLimitError
from followers import clock
from followers.spans import start
from notifications.calendars import preload
from notifications.telemetry import serve_own

PRELOADED_EXCHANGES = ("XNSE", "XNYS")
"""Loading the first calendar takes a second; it passes while the group is being joined."""


class Command(BaseCommand):
    requires_system_checks = [checks.TAG]
    help = "Take executed trades in from Kafka, until SIGTERM or Ctrl-C. Several may run side by side."

    def handle(self, *args: Any, **options: Any) -> None:
        start("consume_trades")
        stop = Event()

        def told_to_stop(number: int, frame: FrameType | None) -> None:
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, told_to_stop)
        Thread(target=preload, args=(PRELOADED_EXCHANGES, clock.now()), name="calendars", daemon=True).start()
        serve_own()
        connection_options()  # A wrong setting is worth a line now, not at every try to connect.
        try:
            TradeConsumer(stop, take_in_and_hint).run()
        except (PoisonLimitError, UnreadableRecordError) as error:
            raise CommandError(str(error)) from error
