"""The example of a production system's settings: Django's own deployment checks have nothing to say about it."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from typing import Any

import pytest
from django.test import Client

from tests.deploy.manifests import DEPLOY, PROJECT_ROOT, named_settings

CHANNELS_OFF = "notifyhub.W001"
"""The example switches no channel on: which ones a system has is its own affair."""


def production_settings() -> dict[str, str]:
    """The example with its placeholders filled in."""
    lines = re.findall(r"^([A-Z_]+)=(.*)$", (DEPLOY / "production.env.example").read_text(), re.MULTILINE)
    key = base64.urlsafe_b64encode(bytes(range(32))).decode()
    filled = {name: re.sub(r"^<url-safe base64.*>$", key, value) for name, value in lines}
    filled["DJANGO_SECRET_KEY"] = "n0t-a-secret-but-as-long-and-as-varied-as-one-ought-to-be"
    return {name: value.replace("<password>", "word") for name, value in filled.items()}


def test_every_setting_in_it_exists() -> None:
    assert production_settings().keys() <= named_settings()


def test_no_placeholder_is_left() -> None:
    assert not [value for value in production_settings().values() if "<" in value]


def test_the_deployment_checks_are_clean() -> None:
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    env = {**{k: os.environ[k] for k in ("PATH", "HOME") if k in os.environ}, **production_settings()}
    ended = subprocess.run(command, cwd=PROJECT_ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)

    complaints = re.findall(r"\((\w+\.[EW]\d+)\)", ended.stderr)
    assert set(complaints) <= {CHANNELS_OFF}, ended.stderr
    assert complaints  # Or nothing was checked at all.


@pytest.mark.django_db(transaction=True)
def test_plain_http_goes_to_https_but_for_what_is_asked_from_inside(settings: Any, client: Client) -> None:
    settings.SECURE_SSL_REDIRECT = True
    moved = Client().get("/admin/login/")

    assert (moved.status_code, moved["location"]) == (301, "https://testserver/admin/login/")
    assert Client().get("/healthz").status_code == 200
    assert Client().get("/metrics").status_code == 200
    assert Client().get("/readyz").status_code == 200
