"""Settings: typed, complete in .env.example, and one readable line for a wrong or missing one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from delivery.channels.policy import DEFAULT_POLICIES
from notifyhub.environment import Environment, ImproperlyConfigured

PROJECT_ROOT = Path(__file__).resolve().parents[2]
POLICY_SETTINGS = (
    "RETRY_BASE_SECONDS",
    "RETRY_CAP_SECONDS",
    "MAX_ATTEMPTS",
    "TIMEOUT_SECONDS",
    "CONNECT_TIMEOUT_SECONDS",
    "READ_TIMEOUT_SECONDS",
    "SLOW_SECONDS",
    "CONCURRENCY",
    "RATE_PER_SECOND",
    "IN_DOUBT",
)


def run(*command: str, **changes: str | None) -> subprocess.CompletedProcess[str]:
    """A process of its own, with the test's environment changed; None takes a setting away."""
    env = {**os.environ, **{k: v for k, v in changes.items() if v is not None}}
    for name in (k for k, v in changes.items() if v is None):
        env.pop(name, None)
    return subprocess.run(
        [sys.executable, *command], cwd=PROJECT_ROOT, env=env, capture_output=True, text=True, timeout=60, check=False
    )


WRONG = {
    "DJANGO_SECRET_KEY": None,
    "MONGODB_URL": None,
    "REDIS_URL": None,
    "ENDPOINT_ENCRYPTION_KEYS": None,
    "ENDPOINT_HASH_KEY": "c2hvcnQ=",
    "DRAMATIQ_BROKER_URL": "amqp://localhost",
    "LEASE_SECONDS": "soon",
    "FCM_TIMEOUT_SECONDS": "45",
    "FAN_OUT_CHUNK": "0",
    "LOG_LEVEL": "LOUD",
    "DJANGO_DEBUG": "perhaps",
    "TWILIO_BASE_URL": "https://api.twilio.com/2010-04-01",
    "SQUARE_OFF_SECONDS_BY_EXCHANGE": "XNSE=900",
    "PUBLIC_BASE_URL": "http://alerts.example.com",
    "PLATFORM_JWKS_URL": "https://login.example.com/jwks.json",  # Without an issuer and an audience.
}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("http://alerts.example.com", "https://"),
        ("alerts.example.com", "origin"),
        ("https://alerts.example.com/hooks", "origin"),
        ("https://me:secret@alerts.example.com", "origin"),
        ("https://alerts.example.com:port", "origin"),
        ("", None),
        ("https://alerts.example.com", None),
        ("https://alerts.example.com:8443/", None),
        ("http://127.0.0.1:8000", None),
        ("http://localhost:8000", None),
        ("http://[::1]:8000", None),
    ],
)
def test_public_address_is_https_or_this_machine(
    monkeypatch: pytest.MonkeyPatch, value: str, words: str | None
) -> None:
    monkeypatch.setenv("PUBLIC_BASE_URL", value)
    environment = Environment(PROJECT_ROOT / "none.env")
    if words is None:
        assert environment.public_origin("PUBLIC_BASE_URL") == value.rstrip("/")
        return
    with pytest.raises(ImproperlyConfigured, match=words) as error:
        environment.public_origin("PUBLIC_BASE_URL")
    assert "PUBLIC_BASE_URL" in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "is_plain_allowed", "words"),
    [
        ("http://login.example.com/jwks.json", False, "https://"),
        ("ftp://login.example.com/jwks.json", True, "https://"),
        ("login.example.com/jwks.json", True, "https://"),
        ("https:///jwks.json", False, "an address such as"),
        ("https://me:secret@login.example.com/jwks.json", False, "an address such as"),
        ("https://login.example.com:port/jwks.json", False, "an address such as"),
        ("", False, None),
        ("https://login.example.com/jwks.json", False, None),
        ("http://login.example.com/jwks.json", True, None),
        ("http://127.0.0.1:8000/jwks.json", False, None),
    ],
)
def test_address_of_the_platforms_keys_is_https_or_this_machine(
    monkeypatch: pytest.MonkeyPatch, value: str, is_plain_allowed: bool, words: str | None
) -> None:
    monkeypatch.setenv("PLATFORM_JWKS_URL", value)
    environment = Environment(PROJECT_ROOT / "none.env")
    if words is None:
        assert environment.secure_url("PLATFORM_JWKS_URL", is_plain_allowed) == value
        return
    with pytest.raises(ImproperlyConfigured, match=words) as error:
        environment.secure_url("PLATFORM_JWKS_URL", is_plain_allowed)
    assert "PLATFORM_JWKS_URL" in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("setting", WRONG)
def test_wrong_or_missing_setting_is_one_line_that_names_it(setting: str) -> None:
    ended = run("manage.py", "check", **{setting: WRONG[setting]})

    assert ended.returncode == 1
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert setting in line


def test_database_name_must_be_given() -> None:
    ended = run("manage.py", "check", MONGODB_URL="mongodb://127.0.0.1:27017/?replicaSet=rs0")
    assert ended.returncode == 1
    assert "MONGODB_URL" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["consume_trades", "dispatch_due", "rundramatiq"])
def test_every_process_refuses_to_start_on_a_half_configured_channel(command: str) -> None:
    ended = run("manage.py", command, TWILIO_ACCOUNT_SID="AC" + "0" * 32, TWILIO_AUTH_TOKEN="")

    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "TWILIO_AUTH_TOKEN" in line


def test_web_process_says_it_in_one_line_too() -> None:
    ended = run("-m", "uvicorn", "notifyhub.asgi:application", "--port", "1", MONGODB_URL=None)
    assert ended.returncode != 0
    assert "MONGODB_URL" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_example_file_names_every_setting() -> None:
    source = (PROJECT_ROOT / "notifyhub" / "settings.py").read_text()
    read = set(re.findall(r'env\.\w+\(\s*"([A-Z_]+)"', source))
    example = (PROJECT_ROOT / ".env.example").read_text()
    named = set(re.findall(r"^([A-Z_]+)=", example, re.MULTILINE))

    assert read - named == set()
    for setting in POLICY_SETTINGS:
        assert f"*_{setting}" in example
    per_channel = set(re.findall(r"name\.upper\(\)\}_([A-Z_]+)", source))
    assert per_channel == set(POLICY_SETTINGS)


def test_channel_policies_come_from_their_settings() -> None:
    read = "settings.CHANNEL_POLICIES['fcm']"
    script = (
        f"from django.conf import settings; p = {read}; print(p.max_attempts, p.timeout_seconds, p.rate_per_second)"
    )
    ended = run("manage.py", "shell", "-v", "0", "-c", script, FCM_MAX_ATTEMPTS="3", FCM_TIMEOUT_SECONDS="2.5")
    assert ended.stdout.split() == ["3", "2.5", "10000.0"], "Unless told otherwise, what FCM lets a project send."
    assert set(DEFAULT_POLICIES) == {"apns", "fcm", "sms", "discord", "onesignal"}


@pytest.mark.parametrize(("value", "resends"), [("review", False), ("resend", True), (None, True)])
def test_what_follows_a_doubt_is_a_setting_of_each_channel(value: str | None, resends: bool) -> None:
    script = (
        "from django.conf import settings; p = settings.CHANNEL_POLICIES;"
        "print(p['fcm'].resend_in_doubt, p['apns'].resend_in_doubt)"
    )
    ended = run("manage.py", "shell", "-v", "0", "-c", script, FCM_IN_DOUBT=value)
    assert ended.stdout.split() == [str(resends), "True"]


def test_check_says_which_channels_are_off_and_other_commands_do_not() -> None:
    told = run("manage.py", "check").stderr
    assert "SMS is off" in told
    assert "TWILIO_ACCOUNT_SID" in told
    assert run("manage.py", "rundramatiq", "--help").stderr == ""


def test_key_file_that_cannot_be_read_is_an_error() -> None:
    ended = run("manage.py", "check", FCM_CREDENTIALS_FILE="/nowhere/key.json")
    assert ended.returncode == 1
    assert "FCM_CREDENTIALS_FILE" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("text", "read"), [("", None), ("08:00-21:00", ("08:00", "21:00")), ("22:30-06:15", ("22:30", "06:15"))]
)
def test_legal_hours_are_a_span_of_the_day_or_none(monkeypatch, text, read):
    monkeypatch.setenv("SMS_LEGAL_HOURS", text)

    assert Environment(PROJECT_ROOT / "no.env").hours("SMS_LEGAL_HOURS") == read


@pytest.mark.parametrize("text", ["8-21", "08:00", "08:00-24:00", "08:00-08:00", "08:00 - 21:00", "08:60-21:00"])
def test_legal_hours_that_cannot_be_read_are_refused(monkeypatch, text):
    monkeypatch.setenv("SMS_LEGAL_HOURS", text)

    with pytest.raises(ImproperlyConfigured, match="SMS_LEGAL_HOURS must be a span"):
        Environment(PROJECT_ROOT / "no.env").hours("SMS_LEGAL_HOURS")


SHOW_SECURITY = """
from django.conf import settings as s
print(s.SESSION_COOKIE_SECURE, s.CSRF_COOKIE_SECURE, s.SECURE_HSTS_SECONDS, s.SECURE_HSTS_INCLUDE_SUBDOMAINS)
"""
SECURITY = ("DJANGO_SECURE_COOKIES", "DJANGO_HSTS_SECONDS", "DJANGO_HSTS_SUBDOMAINS")


@pytest.mark.parametrize(
    ("debug", "shown"),
    [(None, "True True 31536000 False"), ("false", "True True 31536000 False"), ("true", "False False 0 False")],
)
def test_cookies_and_hsts_are_secure_unless_it_is_a_developers_machine(debug: str | None, shown: str) -> None:
    unset: dict[str, str | None] = dict.fromkeys(SECURITY)

    said = run("-c", SHOW_SECURITY, DJANGO_SETTINGS_MODULE="notifyhub.settings", DJANGO_DEBUG=debug, **unset)

    assert said.stdout.strip() == shown, said.stderr


def test_each_of_them_can_be_set() -> None:
    chosen = dict(zip(SECURITY, ("false", "3600", "true"), strict=True))

    said = run("-c", SHOW_SECURITY, DJANGO_SETTINGS_MODULE="notifyhub.settings", DJANGO_DEBUG="false", **chosen)

    assert said.stdout.strip() == "False False 3600 True", said.stderr
