"""What a worker process opens when it starts and closes when it stops."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import structlog
import uvloop
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from dramatiq.asyncio import get_event_loop_thread
from dramatiq.broker import Broker
from dramatiq.middleware import AsyncIO, Middleware, MiddlewareError

from delivery.stopping import start_nothing_more, wait_for_threads
from followers.mongo import repeat_no_more
from followers.spans import start, tracer

logger = structlog.get_logger(__name__)

CUT_OFF_SECONDS = 2.0
"""After the grace: for writing down what was cut off."""


class UvloopAsyncIO(AsyncIO):
    """Dramatiq's event loop thread, on uvloop: the same loop at less CPU per send."""

    def before_worker_boot(self, broker: Broker, worker: Any) -> None:
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
        super().before_worker_boot(broker, worker)


def collect_seldom() -> None:
    """Spares the garbage collector what it can never free, and most of its rounds.

    A batch makes tens of thousands of objects that die by their reference counts; at Python's thresholds, looking
    through them for cycles takes a tenth of a worker's CPU.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


class CannotStartError(MiddlewareError):
    """What a worker needs could not be set up: it must not start without."""


class Tracing(Middleware):
    """Traces what a worker does (followers/spans.py); listed only where tracing is on.

    A hint carries no trace: the batch that it names belongs to trades, and these keep theirs.
    """

    def before_worker_boot(self, broker: Broker, worker: Any) -> None:
        try:
            start("worker")
        except ImproperlyConfigured as error:
            raise CannotStartError(str(error)) from error

    def after_worker_shutdown(self, broker: Broker, worker: Any) -> None:
        tracer().stop()  # A forked process runs no exit handlers.


class VendorConnections(Middleware):
    """Opens the vendors' connections in the worker's event loop. To be listed after AsyncIO.

    The settings load this module before there are any models, so that what needs those is imported when it is used.
    """

    def before_worker_boot(self, broker: Broker, worker: Any) -> None:
        # Before the consumers start: the first hint may be there already. Dramatiq lets only its own errors through.
        from delivery import vendors  # noqa: PLC0415
        from notifications.telemetry import serve_own  # noqa: PLC0415

        serve_own()
        try:
            self._run(vendors.open_channels(worker.worker_threads))
        except Exception as error:
            raise CannotStartError(f"The vendors' connections could not be set up: {error}") from error
        collect_seldom()

    def before_worker_shutdown(self, broker: Broker, worker: Any) -> None:
        from delivery import vendors  # noqa: PLC0415

        start_nothing_more()
        vendors.send_waiting_away()
        if wait_for_threads(worker.workers, settings.SHUTDOWN_GRACE_SECONDS):
            return
        # What is in flight still is cut off now, so that there is time to record it for what it is: without an answer.
        repeat_no_more()
        self._run(vendors.close_channels())
        if not wait_for_threads(worker.workers, CUT_OFF_SECONDS):
            logger.warning("Not everything in hand came to an end; it wakes up when its lease runs out.")

    def after_worker_shutdown(self, broker: Broker, worker: Any) -> None:
        from delivery import vendors  # noqa: PLC0415

        self._run(vendors.close_channels())

    @staticmethod
    def _run(coroutine: Any) -> None:
        loop_thread = get_event_loop_thread()
        if loop_thread is None:
            coroutine.close()
            raise RuntimeError("List delivery.middleware.VendorConnections after UvloopAsyncIO.")
        loop_thread.run_coroutine(coroutine)
