"""What the logs say of a server that is away: a line when it is found so, one now and then, one when it answers again.

Every statement, hint and push of every thread meets an outage at once, and each of them is repeated. Said by each, a
short outage is thousands of lines; said here, it is a few, with the number of those that failed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import structlog
from django.conf import settings

logger = structlog.get_logger(__name__)

EVERY_SECONDS = 10.0
"""While a server is away, a line comes at most this often; one that comes and goes gets no more lines than that."""


class Outage:
    """One server's outages, as this process sees them. Safe to use from any thread.

    Parameters
    ----------
    server
        Its name at the beginning of a sentence.
    where
        Its address, asked for when there is something to say; without credentials.
    meanwhile
        What that means until it is back.
    """

    def __init__(
        self,
        server: str,
        where: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
        meanwhile: str = "work goes on when it answers",
    ) -> None:
        self._server = server
        self._where = where
        self._meanwhile = meanwhile
        self._clock = clock
        self._lock = threading.Lock()
        self._began: float | None = None
        self._quiet_until = float("-inf")
        self._is_said = False
        self._failures = 0

    @property
    def is_on(self) -> bool:
        """Whether the server was away when it was last heard of."""
        return self._began is not None

    def away(self, error: object, **context: object) -> None:
        """available → away, or still away: something failed because the server did not answer."""
        with self._lock:
            now = self._clock()
            if self._began is None:
                self._began, self._failures, self._is_said = now, 0, False
            self._failures += 1
            if now < self._quiet_until:
                return
            is_first, self._is_said = not self._is_said, True
            self._quiet_until = now + EVERY_SECONDS
            failures, seconds = self._failures, round(now - self._began, 1)
        figures = {} if is_first else {"seconds": seconds, "failures": failures}
        logger.warning(
            f"{self._server} is away; {self._meanwhile}." if is_first else f"{self._server} is still away.",
            server=self._where(),
            error=f"{type(error).__name__}: {str(error)[:300]}" if isinstance(error, BaseException) else str(error),
            **figures,
            **context,
        )

    def back(self) -> None:
        """away → available: the server did as it was asked. Costs next to nothing while it is available."""
        if self._began is None:
            return
        with self._lock:
            if self._began is None:
                return
            seconds, self._began = round(self._clock() - self._began, 1), None
            if not self._is_said:
                return
        logger.info(f"{self._server} answers again.", server=self._where(), seconds=seconds, failures=self._failures)


def _host(url: str) -> str:
    """Where an address leads, without its credentials."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] or parts.path


def _host_in(setting: str) -> Callable[[], str]:
    return lambda: _host(getattr(settings, setting))


def _queue() -> str:
    return _host_in("DRAMATIQ_BROKER_URL")() or _host_in("SQS_ENDPOINT_URL")() or "Amazon SQS"


def _kafka(setting: str = "KAFKA_BOOTSTRAP_SERVERS") -> str:
    return ",".join(getattr(settings, setting))


MONGODB = Outage("MongoDB", _host_in("MONGODB_URL"))
REDIS = Outage("Redis", _host_in("REDIS_URL"))
QUEUE = Outage("The dispatch queue", _queue)
KAFKA = Outage("Kafka", _kafka)
PLATFORM_KEYS = Outage("The platform's JWKS address", _host_in("PLATFORM_JWKS_URL"))
