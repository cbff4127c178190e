"""What all workers know together of each channel: calls, breaker, holds. One round trip for all channels, a few times a
second, and none per send. Without Redis each process goes by what it sees itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import redis
import structlog
from django.conf import settings
from redis import asyncio as async_redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from delivery.guards.breaker import State
from delivery.guards.calls import LATELY_SECONDS, WINDOW_SECONDS, Counts

logger = structlog.get_logger(__name__)

TIMEOUT_SECONDS = 1.0
WORKER_SECONDS = 5
"""A worker that was not heard of for so long does not count among those that share a rate."""
KEPT_SECONDS = 86_400

# KEYS: the workers' set, then a prefix per channel. ARGV: this worker, now (epoch seconds), window, its newest part,
# seconds a worker counts, then per channel: calls, failed, slow, throttled, the number of holds, and endpoint and end
# of each. Returns the number of workers, then per channel: the window's four counts and those of its newest part, the
# state (JSON), the holds (who, until, …).
EXCHANGE_SCRIPT = """
local now, window, newest = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[5]))
redis.call('EXPIRE', KEYS[1], 60)
local answer, at = {redis.call('ZCARD', KEYS[1])}, 6
for i = 2, #KEYS do
    local prefix = KEYS[i]
    local second = math.floor(now)
    local current = prefix .. ':calls:' .. second
    for _, name in ipairs({'calls', 'failed', 'slow', 'throttled'}) do
        if ARGV[at] ~= '0' then
            redis.call('HINCRBY', current, name, ARGV[at])
            redis.call('EXPIRE', current, window + 5)
        end
        at = at + 1
    end
    local holds = prefix .. ':holds'
    local count = tonumber(ARGV[at])
    at = at + 1
    for _ = 1, count do
        redis.call('ZADD', holds, 'GT', ARGV[at + 1], ARGV[at])
        redis.call('EXPIRE', holds, 86400)
        at = at + 2
    end
    redis.call('ZREMRANGEBYSCORE', holds, '-inf', now)
    local state = redis.call('GET', prefix .. ':state')
    local since = state and math.floor(cjson.decode(state)['since']) or 0
    local sums = {0, 0, 0, 0, 0, 0, 0, 0}
    for s = math.max(second - window + 1, since + 1), second do
        local counts = redis.call('HMGET', prefix .. ':calls:' .. s, 'calls', 'failed', 'slow', 'throttled')
        for n = 1, 4 do
            local count = tonumber(counts[n] or 0)
            sums[n] = sums[n] + count
            if s > second - newest then sums[n + 4] = sums[n + 4] + count end
        end
    end
    answer[#answer + 1] = sums
    answer[#answer + 1] = state or ''
    answer[#answer + 1] = redis.call('ZRANGE', holds, 0, 9999, 'WITHSCORES')
end
return answer
"""

# KEYS: the state. ARGV: the state that is expected ('' = none), the new one, seconds to keep it. Returns 1 if set.
CHANGE_SCRIPT = """
local found = redis.call('GET', KEYS[1]) or ''
if found ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
"""


@dataclass(frozen=True, slots=True)
class Told:
    """What this process has to say of one channel."""

    counts: Counts
    holds: dict[str, float]


@dataclass(frozen=True, slots=True)
class Heard:
    """What all workers say of one channel."""

    counts: Counts
    lately: Counts  # Of the last LATELY_SECONDS.
    state: bytes  # As it is stored, for a compare-and-set; empty = nobody has stored one.
    holds: dict[str, float]


def connect() -> async_redis.Redis:
    """A client for the guards, to be closed by the caller. It gives up quickly: the guards go on without."""
    return async_redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )


class Shared:
    """The guards' keys in Redis.

    Parameters:
      names: `channel:account` of each channel, in the order in which they are told and heard.
      worker: This process, among those that share rates.
    """

    def __init__(self, client: async_redis.Redis, names: Sequence[str], worker: str) -> None:
        self._client = client
        self._names = list(names)
        self._worker = worker
        self._exchange = client.register_script(EXCHANGE_SCRIPT)
        self._change = client.register_script(CHANGE_SCRIPT)
        self.workers = 1

    async def exchange(self, told: Sequence[Told], now: float) -> list[Heard]:
        """Tells what happened here and hears what happened everywhere. Raises redis.RedisError."""
        keys = [f"{settings.QUEUE_NAMESPACE}:workers", *(_prefix(name) for name in self._names)]
        args: list[str | int | float] = [self._worker, now, WINDOW_SECONDS, LATELY_SECONDS, WORKER_SECONDS]
        for one in told:
            args += [one.counts.calls, one.counts.failed, one.counts.slow, one.counts.throttled, len(one.holds)]
            args += [word for held in one.holds.items() for word in held]
        answer = await self._exchange(keys=keys, args=args)
        self.workers = max(1, int(answer[0]))
        return [_heard(*answer[i : i + 3]) for i in range(1, len(answer), 3)]

    async def read(self, name: str) -> bytes:
        """The stored state of one breaker. Raises redis.RedisError."""
        stored: Any = await self._client.get(state_key(name))
        return stored or b""

    async def change(self, name: str, before: bytes, after: bytes) -> bool:
        """Compare-and-set: False = another worker was faster. Raises redis.RedisError."""
        return bool(await self._change(keys=[state_key(name)], args=[before, after, KEPT_SECONDS]))


def state_key(name: str) -> str:
    return f"{_prefix(name)}:state"


def decoded(raw: bytes | None) -> State:
    """A stored state; closed where there is none."""
    return State.from_dict(orjson.loads(raw)) if raw else State()


def encoded(state: State) -> bytes:
    return orjson.dumps(state.as_dict())


def live_states(names: Sequence[str]) -> dict[str, State]:
    """The breakers' states as the workers share them, for the admin and the metrics. Raises redis.RedisError."""
    with redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS
    ) as client:
        raw = client.mget([state_key(name) for name in names]) if names else []
    return {name: decoded(state) for name, state in zip(names, raw, strict=True)}


def _prefix(name: str) -> str:
    return f"{settings.QUEUE_NAMESPACE}:guard:{name}"


def _heard(counts: list[int], state: bytes, holds: list[bytes]) -> Heard:
    held = {who.decode(): float(until) for who, until in zip(holds[::2], holds[1::2], strict=True)}
    return Heard(Counts(*counts[:4]), Counts(*counts[4:]), state, held)
