"""The example of a production system's settings: Django's own deployment checks have nothing to say about it."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme
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


def check_deployment(**changes: str) -> str:
    """What `manage.py check --deploy` says, with these settings alone."""
    env = {**{k: os.environ[k] for k in ("PATH", "HOME") if k in os.environ}, **production_settings(), **changes}
    command = [sys.executable, "manage.py", "check", "--deploy"]
    return subprocess.run(
        command, cwd=PROJECT_ROOT, env=env, capture_output=True, text=True, timeout=60, check=False
    ).stderr


def test_the_deployment_checks_are_clean(tmp_path: Path) -> None:
    # Given the certificate that the addresses name.
    authority = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(authority))
    url = production_settings()["MONGODB_URL"].replace("/etc/notifyhub/ca.pem", str(authority))

    told = check_deployment(MONGODB_URL=url)

    complaints = re.findall(r"\((\w+\.[EW]\d+)\)", told)
    assert set(complaints) == {CHANNELS_OFF}, told


def test_a_certificate_that_is_not_there_is_one_line_that_names_it() -> None:
    (line,) = check_deployment().splitlines()
    assert "MONGODB_URL" in line
    assert "/etc/notifyhub/ca.pem" in line
    assert "word" not in line  # The password.


@pytest.mark.django_db(transaction=True)
def test_plain_http_goes_to_https_but_for_what_is_asked_from_inside(settings: Any, client: Client) -> None:
    settings.SECURE_SSL_REDIRECT = True
    moved = Client().get("/admin/login/")

    assert (moved.status_code, moved["location"]) == (301, "https://testserver/admin/login/")
    assert Client().get("/healthz").status_code == 200
    assert Client().get("/metrics").status_code == 200
    assert Client().get("/readyz").status_code == 200
