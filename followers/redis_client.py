"""This process's synchronous clients of REDIS_URL. What is kept there is short-lived, and nobody waits long for it."""

from __future__ import annotations

from functools import lru_cache

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

TIMEOUT_SECONDS = 2.0


def client(timeout_seconds: float = TIMEOUT_SECONDS, retries: int = 0) -> redis.Redis:
    """A client with its pool of connections, made once for each pair of limits. Answers are bytes.

    Parameters:
      timeout_seconds: For connecting, and for each answer.
      retries: After a lost connection. Only for commands that may be carried out twice.
    """
    return _client(settings.REDIS_URL, timeout_seconds, retries)


@lru_cache(maxsize=16)
def _client(url: str, timeout_seconds: float, retries: int) -> redis.Redis:
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        retry=Retry(NoBackoff(), retries),
    )
