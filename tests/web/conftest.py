"""A web server and followers for the tests of what comes over the wire."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from django.conf import settings

from devstack.stack import Stack
from followers.models import Follower
from notifications import presence
from tests.web.server import Server, running_server


@pytest.fixture
def redis_client(stack: Stack) -> Iterator[redis.Redis]:
    """The tests' Redis, without anybody's presence. Not beside `server`: its sockets would notice and catch up."""
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.delete(presence.KEY)
        yield client


@pytest.fixture(scope="session")
def shared_server(stack: Stack) -> Iterator[Server]:
    with running_server() as started:
        yield started


@pytest.fixture
def server(shared_server: Server, transactional_db: None) -> Server:
    """The session's web server, with an empty database."""
    return shared_server


@pytest.fixture
def ann(transactional_db: None) -> Follower:
    return Follower.objects.create(external_id="F-ann", name="Ann")


@pytest.fixture
def bob(transactional_db: None) -> Follower:
    return Follower.objects.create(external_id="F-bob", name="Bob")
