"""Which followers have a socket open somewhere: one sorted set in Redis, follower → when that runs out.

Each web process renews its followers in bulk; nobody is ever taken out, for another process may hold a second socket
of theirs. Who is gone runs out by itself, after PRESENCE_TTL_SECONDS, and until then costs a publish that nobody
hears. Redis's own clock counts, so that the hosts' clocks need not agree.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import islice

import redis
from bson import ObjectId
from django.conf import settings
from redis import asyncio as async_redis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff

from followers.redis_client import TIMEOUT_SECONDS, client

KEY = "notifyhub:presence"
CHUNK = 2_000  # Members per script call: a script blocks Redis while it runs, and Lua unpacks at most some 8,000.

# KEYS: the set. ARGV: seconds, then members. Returns 1 if the first member was not there (any more), else 0.
RENEW_SCRIPT = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local first_is_new = 0
for i = 2, #ARGV do
    local added = redis.call('ZADD', KEYS[1], now + tonumber(ARGV[1]), ARGV[i])
    if i == 2 then first_is_new = added end
end
return first_is_new
"""

# KEYS: the set. ARGV: members. Returns those of them that are connected, or all that are connected if these are fewer.
CONNECTED_SCRIPT = """
local now = tonumber(redis.call('TIME')[1])
if redis.call('ZCARD', KEYS[1]) <= #ARGV then
    return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')
end
local found = {}
for i, score in ipairs(redis.call('ZMSCORE', KEYS[1], unpack(ARGV))) do
    if score and tonumber(score) > now then found[#found + 1] = ARGV[i] end
end
return found
"""


def connected(follower_ids: Collection[ObjectId]) -> set[ObjectId]:
    """Those of the followers who have a socket open. Must be read after the insert of what they are to be told.

    Costs the smaller of: the sockets that are open, the followers asked about. Raises redis.RedisError.
    """
    script = client(retries=1).register_script(CONNECTED_SCRIPT)
    found: set[bytes] = set()
    for chunk in _chunks([follower.binary for follower in follower_ids]):
        found.update(script(keys=[KEY], args=chunk))
    return {follower for follower in follower_ids if follower.binary in found}


class PresenceWriter:
    """A web process's own hand on the presence set."""

    def __init__(self, marker: bytes, ttl_seconds: int) -> None:
        """`marker` is a member of this process alone, renewed with every write: if it was gone, so were the others."""
        self._marker = marker
        self._ttl_seconds = ttl_seconds
        self._redis = async_redis.Redis.from_url(
            settings.REDIS_URL,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=AsyncRetry(NoBackoff(), 1),
        )
        self._renew = self._redis.register_script(RENEW_SCRIPT)

    async def renew(self, follower_ids: Sequence[ObjectId]) -> bool:
        """Registers followers, or registers them again. Returns False if Redis did not know this process (any more).

        Raises redis.RedisError.
        """
        remembered = True
        for chunk in _chunks([follower.binary for follower in follower_ids]):
            try:
                is_new = await self._renew(keys=[KEY], args=[self._ttl_seconds, self._marker, *chunk])
            except RuntimeError as error:
                # uvloop's word for a connection that was reset just now ("the handler is closed"); redis-py lets it by.
                raise redis.ConnectionError(str(error)) from error
            remembered = remembered and not is_new
        return remembered

    async def close(self) -> None:
        await self._redis.aclose()


def _chunks(members: list[bytes]) -> Iterator[list[bytes]]:
    rest = iter(members)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk
