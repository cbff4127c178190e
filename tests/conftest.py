"""Fixtures that every test shares: real servers, a database that is emptied after each test, the sandbox vendors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings as django_settings
from django.test import TransactionTestCase, override_settings

from devstack.stack import Stack
from devstack.vendors.client import Sandbox
from devstack.vendors.process import VendorProcess
from followers.mongo import database

KEPT_COLLECTIONS = {"django_migrations", "django_content_type", "auth_permission"}
VENDORS = ("apns", "fcm", "twilio", "discord", "onesignal")


def _empty_collections(self: Any) -> None:
    """This backend cannot roll a test back, and a flush takes 80 ms; deleting what is there takes a few.

    What the workers share in Redis goes as well: a breaker that one test opened would hold up the next.
    """
    with redis.Redis.from_url(django_settings.REDIS_URL) as client:
        for pattern in ("guard", "rate", "workers", "idempotency"):
            if keys := list(client.scan_iter(f"{django_settings.QUEUE_NAMESPACE}:{pattern}*", count=1_000)):
                client.delete(*keys)
    for name in database().list_collection_names():
        if name not in KEPT_COLLECTIONS and not name.startswith("system."):
            database()[name].delete_many({})


@pytest.fixture(scope="session", autouse=True)
def _quick_teardown() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", _empty_collections)
        yield


@pytest.fixture(scope="session", autouse=True)
def _quick_passwords() -> Iterator[None]:
    """Hashing a password as slowly as it should be takes a second, at each admin test."""
    with override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"]):
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_right_of_way() -> Iterator[None]:
    """A test that works off a critical trade and then another one in its own process would wait in between."""
    with override_settings(RIGHT_OF_WAY_MS=0):
        yield


@pytest.fixture(scope="session")
def django_db_modify_db_settings(stack: Stack) -> None:
    """The test database lives on the tests' own servers: they must run before Django connects."""


@pytest.fixture
def without_opentelemetry(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that has no OpenTelemetry, as where requirements-otel.txt is not installed."""
    (tmp_path / "sitecustomize.py").write_text(NO_OPENTELEMETRY)
    return {"PYTHONPATH": str(tmp_path)}


NO_OPENTELEMETRY = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(scope="session")
def vendor_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VendorProcess]:
    """The sandbox vendors, once a session."""
    directory: Path = tmp_path_factory.mktemp("vendors")
    with VendorProcess(directory) as process:
        yield process


@pytest.fixture
def vendors(vendor_process: VendorProcess, settings: Any) -> Iterator[Sandbox]:
    """Well-behaved vendors with nothing accepted yet, and the settings that make every channel use them."""
    for name, value in vendor_process.env.items():
        setattr(settings, name, value)
    sandbox = vendor_process.sandbox
    sandbox.reset()
    for vendor in VENDORS:
        sandbox.behave_well(vendor)
    yield sandbox
    for vendor in VENDORS:
        sandbox.behave_well(vendor)
