"""Callers of the API: services with keys, followers with tokens."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework.test import APIClient

from followers import service_keys
from followers.choices import Scope
from followers.models import Follower
from notifications import tokens


@pytest.fixture
def ann(transactional_db: None) -> Follower:
    return Follower.objects.create(external_id="F-ann", name="Ann")


@pytest.fixture
def bob(transactional_db: None) -> Follower:
    return Follower.objects.create(external_id="F-bob", name="Bob")


def as_follower(follower: Follower) -> APIClient:
    client = APIClient(raise_request_exception=False)
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {tokens.mint(follower)}")
    return client


def with_key(text: str) -> APIClient:
    client = APIClient(raise_request_exception=False)
    client.credentials(HTTP_AUTHORIZATION=f"Api-Key {text}")
    return client


def as_service(*scopes: Scope) -> APIClient:
    return with_key(service_keys.create("Platform", scopes)[1])


def code_of(response: Any, status: int) -> str:
    """The stable code of a problem detail, after a look at its form."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status
    assert {"type", "title", "status", "detail", "code"} <= body.keys()
    return str(body["code"])
