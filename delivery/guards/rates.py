"""A rate limit that all workers share: so many sends a second on one channel, divided among the priorities.

The limit lives in Redis as the time at which the next send may start (the generic cell rate algorithm of ITU-T I.371,
without a burst): a batch is given its start and sends at even distances from there. While the limit is the bottleneck,
the priorities that ask take turns by start-time fair queueing over PRIORITY_SHARES.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import redis
from django.conf import settings
from redis import asyncio as async_redis

from delivery.choices import PRIORITY_SHARES
from followers.outage import REDIS

HORIZON_SECONDS = 0.25
"""No turn is given that begins later than this: a critical alert never queues behind more than that."""
ACTIVE_SECONDS = 0.5
"""A priority that asked within this time has work, and its share is kept for it."""

# KEYS: the hash. ARGV: sends, rate, priority, horizon, active, then priority and share of each priority.
# Returns {1, seconds until the first send} or {0, seconds until it is worth asking again}.
TAKE_SCRIPT = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local sends, rate, mine = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local horizon, active = tonumber(ARGV[4]), tonumber(ARGV[5])
local flat, hash = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #flat, 2 do hash[flat[i]] = tonumber(flat[i + 1]) end
local free_at = math.max(now, hash['free_at'] or 0)
local used, share, least = hash['used:' .. mine] or 0, 1, nil
for i = 6, #ARGV, 2 do
    local other = ARGV[i]
    if other == mine then
        share = tonumber(ARGV[i + 1])
    elseif now - (hash['seen:' .. other] or 0) < active then
        local theirs = hash['used:' .. other] or 0
        if not least or theirs < least then least = theirs end
    end
end
if least and now - (hash['seen:' .. mine] or 0) >= active then used = math.max(used, least) end
redis.call('HSET', KEYS[1], 'seen:' .. mine, now, 'used:' .. mine, used)
redis.call('EXPIRE', KEYS[1], 600)
if free_at - now > horizon then return {0, tostring(free_at - now - horizon)} end
if least and free_at > now and used > least then return {0, tostring(free_at - now)} end
redis.call('HSET', KEYS[1], 'free_at', free_at + sends / rate, 'used:' .. mine, used + sends / share)
return {1, tostring(free_at - now)}
"""


@dataclass(frozen=True, slots=True)
class Turn:
    """When a batch may send: its first send after `starts_in` seconds, and then one every `spacing`."""

    starts_in: float = 0.0
    spacing: float = 0.0


@dataclass(frozen=True, slots=True)
class Later:
    """No turn now; it is worth asking again after so many seconds."""

    seconds: float


class RateLimit:
    """One channel's limit.

    Parameters:
      name: Channel and account; workers that use the same one share the limit.
      per_second: Sends a second over all workers.
    """

    def __init__(self, client: async_redis.Redis, name: str, per_second: float) -> None:
        self._take = client.register_script(TAKE_SCRIPT)
        self._key = f"{settings.QUEUE_NAMESPACE}:rate:{name}"
        self._per_second = per_second
        self._free_at = 0.0
        self.workers = 1
        """How many worker processes shared the limit when Redis was last seen."""

    async def take(self, priority: str, sends: int) -> Turn | Later:
        """A turn for so many sends. While Redis is away this process keeps to its own part of the rate."""
        shares: list[Any] = [word for pair in PRIORITY_SHARES.items() for word in pair]
        try:
            granted, seconds = await self._take(
                keys=[self._key], args=[sends, self._per_second, priority, HORIZON_SECONDS, ACTIVE_SECONDS, *shares]
            )
        except redis.RedisError as error:
            REDIS.away(error, meanwhile="each worker keeps to its own part of a rate")
            return self._take_own_part(sends)
        return Turn(float(seconds), 1 / self._per_second) if granted else Later(float(seconds))

    def _take_own_part(self, sends: int) -> Turn | Later:
        now = time.monotonic()
        free_at = max(now, self._free_at)
        if free_at - now > HORIZON_SECONDS:
            return Later(free_at - now - HORIZON_SECONDS)
        spacing = self.workers / self._per_second
        self._free_at = free_at + sends * spacing
        return Turn(free_at - now, spacing)
