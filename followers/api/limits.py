"""How many calls a key or a follower has per minute, shared by all processes through Redis (library `limits`)."""

from __future__ import annotations

import math
import time
from functools import lru_cache
from typing import Any

from django.conf import settings
from limits import RateLimitItemPerMinute
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from redis.exceptions import RedisError
from rest_framework.request import Request

from followers.api.codes import ErrorCode
from followers.api.errors import ProblemError
from followers.outage import REDIS


@lru_cache(maxsize=1)
def _limiter(url: str, namespace: str) -> SlidingWindowCounterRateLimiter:
    url = url.replace("unix://", "redis+unix://", 1) if url.startswith("unix://") else url
    return SlidingWindowCounterRateLimiter(RedisStorage(url, key_prefix=f"{namespace}:rate:api"))


def take(request: Request, per_minute: int) -> dict[str, str]:
    """Counts a call. Returns the RateLimit headers of its answer; raises ProblemError (`rate_limited`).

    While Redis is away nobody is limited: an inbox that can be read matters more.
    """
    limit = RateLimitItemPerMinute(per_minute)
    name: Any = request.user.throttle_name
    limiter = _limiter(settings.REDIS_URL, settings.QUEUE_NAMESPACE)
    try:
        allowed = limiter.hit(limit, name)
        reset_at, remaining = limiter.get_window_stats(limit, name)
    except RedisError as error:
        REDIS.away(error)
        return {}
    REDIS.back()
    seconds = max(1, math.ceil(reset_at - time.time()))
    headers = {
        "RateLimit-Limit": str(per_minute),
        "RateLimit-Remaining": str(max(0, remaining)),
        "RateLimit-Reset": str(seconds),
    }
    if not allowed:
        raise ProblemError(ErrorCode.RATE_LIMITED, headers={**headers, "Retry-After": str(seconds)})
    return headers
