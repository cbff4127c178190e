"""Fixtures that every test shares: real servers, a database per worker that is emptied after each test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.test import TransactionTestCase

KEPT_COLLECTIONS = {"django_migrations", "django_content_type", "auth_permission"}


def _empty_collections(self: Any) -> None:
    """This backend cannot roll a test back, and a flush takes 80 ms; deleting what is there takes a few."""
    for name in connection.database.list_collection_names():
        if name not in KEPT_COLLECTIONS and not name.startswith("system."):
            connection.database[name].delete_many({})


@pytest.fixture(scope="session", autouse=True)
def _quick_teardown() -> Iterator[None]:
    original = TransactionTestCase._fixture_teardown
    TransactionTestCase._fixture_teardown = _empty_collections  # type: ignore[method-assign]
    yield
    TransactionTestCase._fixture_teardown = original  # type: ignore[method-assign]
