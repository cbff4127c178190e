"""A web server and followers for the tests of what comes over the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.conf import settings as django_settings

from devstack.stack import Stack
from followers import clock
from followers.models import Follower
from notifications import presence
from tests.web.platform import AUDIENCE, ISSUER, Platform
from tests.web.server import Server, running_server


@pytest.fixture
def redis_client(stack: Stack) -> Iterator[redis.Redis]:
    """The tests' Redis, without anybody's presence. Not beside `server`: its sockets would notice and catch up."""
    with redis.Redis.from_url(django_settings.REDIS_URL) as client:
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


@pytest.fixture
def platform(settings: Any, ann: Follower) -> Iterator[Platform]:
    """A platform that signs for F-ann, and the settings that trust it."""
    started = Platform()
    settings.PLATFORM_JWKS_URL = started.url
    settings.PLATFORM_JWT_ISSUER = ISSUER
    settings.PLATFORM_JWT_AUDIENCE = AUDIENCE
    yield started
    started.stop()


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """Stops the clock, and moves it by so much at each call."""
    now = [clock.now()]
    monkeypatch.setattr(clock, "now", lambda: now[0])

    def move(by: timedelta) -> None:
        now[0] += by

    return move
