"""Who counts as connected, straight on Redis."""

from __future__ import annotations

import pytest
import redis
from bson import ObjectId

from notifications import presence
from notifications.presence import PresenceWriter, connected


async def renew(ids: list[ObjectId], ttl_seconds: int = 15, marker: bytes = b"process 0001") -> bool:
    writer = PresenceWriter(marker, ttl_seconds)
    try:
        return await writer.renew(ids)
    finally:
        await writer.close()


@pytest.mark.parametrize(("online", "asked_beside"), [(2, 50), (50, 1)])
async def test_only_the_connected_ones_of_those_asked_about_are_found(
    redis_client: redis.Redis, online: int, asked_beside: int
):
    """Both ways of reading: fewer connected than asked about, and more."""
    here = [ObjectId() for _ in range(online)]
    await renew(here)

    assert connected([here[0], *(ObjectId() for _ in range(asked_beside))]) == {here[0]}


async def test_more_followers_than_one_script_call_takes(redis_client: redis.Redis):
    here = [ObjectId() for _ in range(presence.CHUNK * 2 + 1)]
    await renew(here)

    assert connected(here) == set(here)


def test_nobody_asked_about_is_nobody_found(redis_client: redis.Redis):
    assert connected([]) == set()


async def test_whoever_is_not_renewed_runs_out_and_is_swept_by_the_next_renewal(redis_client: redis.Redis):
    crashed, alive = ObjectId(), ObjectId()
    await renew([crashed], ttl_seconds=0)  # Its time is over with this second.
    assert connected([crashed]) == set()

    await renew([alive], marker=b"process 0002")

    assert connected([crashed, alive]) == {alive}
    assert redis_client.zscore(presence.KEY, crashed.binary) is None


async def test_presence_lasts_as_long_as_its_setting_says(redis_client: redis.Redis):
    follower = ObjectId()
    before = redis_client.time()[0]
    await renew([follower], ttl_seconds=15)
    after = redis_client.time()[0]

    score = redis_client.zscore(presence.KEY, follower.binary)
    assert score is not None
    assert before + 15 <= score <= after + 15


async def test_a_process_learns_that_redis_has_forgotten_it(redis_client: redis.Redis):
    follower = ObjectId()
    assert await renew([follower]) is False  # Not known yet.
    assert await renew([follower]) is True

    redis_client.delete(presence.KEY)
    await renew([follower], marker=b"process 0002")  # Another process holds a socket of the same follower.

    assert await renew([follower]) is False
