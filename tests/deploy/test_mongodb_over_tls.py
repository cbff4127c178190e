"""A MONGODB_URL with tls=true: what stands in the database is read and written over it, and no stranger is trusted."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.stack import Stack
from followers.mongo import collection, database
from notifications.models import Update
from tests.deploy.tls_relay import tls_before
from tests.notifyhub.test_settings import run

pytestmark = pytest.mark.django_db(transaction=True)
PUBLISH = """
import django
django.setup()
from delivery.updates import Draft, publish_update
from followers.models import Follower
ann = Follower.objects.create(external_id="F-ann")
publish_update(Draft("U-1", "Markets close early", "At 14:00.", followers=["F-ann"]))
"""
"""Through Django, the driver and a transaction."""


@pytest.fixture(scope="module")
def relay(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    with tls_before(stack.mongodb.port, tmp_path_factory.mktemp("tls")) as started:
        yield started


def publish_over(relay: tuple[int, Path], options: str) -> subprocess.CompletedProcess[str]:
    # A client that asks the replica set for its members would go past the relay.
    url = f"mongodb://127.0.0.1:{relay[0]}/{database().name}?directConnection=true&tls=true{options}"
    return run("-c", PUBLISH, MONGODB_URL=url, DJANGO_SETTINGS_MODULE="notifyhub.settings")


def test_an_update_is_published_over_tls(relay: tuple[int, Path]) -> None:
    ended = publish_over(relay, f"&tlsCAFile={relay[1]}")

    assert ended.returncode == 0, ended.stderr
    assert collection(Update).count_documents({"external_id": "U-1"}) == 1


def test_an_authority_that_nobody_named_is_refused(relay: tuple[int, Path]) -> None:
    ended = publish_over(relay, "&serverSelectionTimeoutMS=1000")

    assert ended.returncode != 0
    assert "certificate verify failed" in ended.stderr
    assert collection(Update).count_documents({}) == 0
