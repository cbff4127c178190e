"""The thread that takes poll batches in, so that the consumer's own thread can stay in its group meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Event, Thread
from typing import Final

from django.db import connections
from pymongo.errors import PyMongoError

from delivery.intake import Intake
from delivery.intake_documents import IncomingMessage
from followers.outage import MONGODB

Work = Callable[[Sequence[IncomingMessage]], Intake]

RETRY_SECONDS: Final = 1.0
"""Between two tries while MongoDB is away; each try has waited for it by itself already."""


class IntakeThread:
    """Takes in one poll batch after the other and repeats each until MongoDB has it.

    A daemon thread: a process that is told to stop while MongoDB is away leaves without it, and the messages, whose
    offsets were not committed, come again.

    Parameters
    ----------
    work
        Takes a batch in. A PyMongoError has it repeated; every other exception is the caller's, by the future.
    stop
        Ends the repeating.
    """

    def __init__(self, work: Work, stop: Event) -> None:
        self._work = work
        self._stop = stop
        self._waiting: SimpleQueue[tuple[Sequence[IncomingMessage], Future[Intake]] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="intake", daemon=True)
        self._thread.start()

    def submit(self, messages: Sequence[IncomingMessage]) -> Future[Intake]:
        future: Future[Intake] = Future()
        self._waiting.put((messages, future))
        return future

    def close(self) -> None:
        """Let the thread end after what it holds; does not wait for it."""
        self._waiting.put(None)

    def _run(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            messages, future = waiting
            try:
                future.set_result(self._until_stored(messages))
            except BaseException as error:
                future.set_exception(error)
        connections.close_all()

    def _until_stored(self, messages: Sequence[IncomingMessage]) -> Intake:
        while True:
            try:
                intake = self._work(messages)
            except PyMongoError as error:
                MONGODB.away(error, messages_in_hand=len(messages))
                if self._stop.wait(RETRY_SECONDS):
                    raise
                continue
            MONGODB.back()
            return intake
