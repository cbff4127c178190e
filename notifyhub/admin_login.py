"""The admin's login form: whoever guesses passwords has few guesses.

The package `limits` counts, in Redis, so that all web processes count together; while Redis is away each counts by
itself, for that is just when staff must get in.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import structlog
from django.conf import settings
from django.core.exceptions import ValidationError
from limits import RateLimitItem, RateLimitItemPerSecond
from limits.storage import MemoryStorage, RedisStorage, Storage
from limits.strategies import FixedWindowRateLimiter
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from unfold.forms import AuthenticationForm

from followers.outage import REDIS

logger = structlog.get_logger(__name__)

PER_ADDRESS_TIMES = 10
"""An address may try so many times as often, over all names: an office shares one."""

REDIS_TIMEOUT_SECONDS = 1.0


class LoginForm(AuthenticationForm):
    """Refuses, without looking at the password, whoever has tried too often lately; success forgives the name."""

    def clean(self) -> dict[str, Any]:
        username = str(self.cleaned_data.get("username") or "").casefold()
        address = self.request.META.get("REMOTE_ADDR", "") if self.request else ""
        # Counted before the password is looked at: a hundred tries at once are a hundred.
        if not all(_try(each, *who) for each, who in _limits(username, address)):
            logger.warning("A login to the admin was refused: too many tries.", address=address)
            raise ValidationError("Too many failed logins. Try again later.", code="too_many_tries")
        cleaned = super().clean()
        _forgive(username, address)
        return cleaned


def _limits(username: str, address: str) -> list[tuple[RateLimitItem, tuple[str, ...]]]:
    """What one try counts for: the name from this address, and the address."""
    window, tries = settings.ADMIN_LOGIN_WINDOW_SECONDS, settings.ADMIN_LOGIN_FAILURES
    return [
        (RateLimitItemPerSecond(tries, window, namespace="name"), (username, address)),
        (RateLimitItemPerSecond(tries * PER_ADDRESS_TIMES, window, namespace="address"), (address,)),
    ]


def _try(limit: RateLimitItem, *who: str) -> bool:
    try:
        allowed = _shared(settings.REDIS_URL, settings.QUEUE_NAMESPACE).hit(limit, *who)
    except RedisError as error:
        REDIS.away(error, meanwhile="each web process counts failed logins by itself")
        return _own().hit(limit, *who)
    REDIS.back()
    return allowed


def _forgive(username: str, address: str) -> None:
    (limit, who), _ = _limits(username, address)
    try:
        _shared(settings.REDIS_URL, settings.QUEUE_NAMESPACE).clear(limit, *who)
    except RedisError as error:
        REDIS.away(error)
        _own().clear(limit, *who)


@lru_cache(maxsize=1)
def _shared(url: str, namespace: str) -> FixedWindowRateLimiter:
    options: Any = {
        "socket_timeout": REDIS_TIMEOUT_SECONDS,
        "socket_connect_timeout": REDIS_TIMEOUT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
    }
    if url.startswith("unix://"):  # The package's own name for it.
        url = f"redis+{url}"
    storage: Storage = RedisStorage(url, key_prefix=f"{namespace}:rate:login", **options)
    return FixedWindowRateLimiter(storage)


@lru_cache(maxsize=1)
def _own() -> FixedWindowRateLimiter:
    return FixedWindowRateLimiter(MemoryStorage())
