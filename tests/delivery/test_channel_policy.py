"""How long a retry waits, and what `configured_channels` makes of the settings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from django.core.exceptions import ImproperlyConfigured

from delivery import outcomes
from delivery.channels.base import Outcome, Result
from delivery.channels.credentials import CREDENTIALS
from delivery.channels.policy import DEFAULT_POLICIES, ChannelPolicy, backoff_seconds
from delivery.channels.registry import configured_channels
from followers.choices import VENDOR_CHANNELS, Channel
from tests.delivery.test_channel_codes import pem


@pytest.mark.parametrize(("n", "longest"), [(1, 1 + 2), (2, 1 + 4), (5, 1 + 32), (9, 1 + 300), (10_000, 1 + 300)])
def test_retry_n_waits_base_and_a_random_part_that_doubles_up_to_the_cap(n: int, longest: float) -> None:
    policy = ChannelPolicy(retry_base_seconds=1, retry_cap_seconds=300)
    random = Random(7)
    waits = [backoff_seconds(policy, n, None, random) for _ in range(500)]
    assert min(waits) >= 1
    assert longest * 0.9 < max(waits) <= longest


def test_what_the_vendor_asks_for_outranks_the_formula() -> None:
    policy = ChannelPolicy(retry_base_seconds=10)
    assert backoff_seconds(policy, 3, 0.35, Random(1)) == 0.35
    assert backoff_seconds(policy, 3, 900.0, Random(1)) == 900.0


@pytest.mark.parametrize(("earlier", "longest"), [(0, 2), (1, 4), (4, 32), (20, 300)])
def test_429s_without_a_retry_after_wait_longer_each_time_though_they_spend_no_attempt(
    earlier: int, longest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = ChannelPolicy(retry_base_seconds=1, retry_cap_seconds=300)
    monkeypatch.setattr(outcomes, "_random", Random(7))
    at = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)
    row = {"_id": 1, "expires_at": at + timedelta(days=1)}
    log = [{"outcome": outcome} for outcome in ("throttled", "retry", *["throttled"] * earlier)]
    delivery = {"attempts": 1, "attempt_log": log}
    throttled = Result(Outcome.THROTTLED, code="TooManyRequests")

    patches = [outcomes.patch_for(row, delivery, throttled, policy, True, at) for _ in range(500)]

    waits = [(patch.fields["next_attempt_at"] - at).total_seconds() for patch in patches]
    assert {patch.spent for patch in patches} == {0}
    assert min(waits) >= 1
    assert longest * 0.9 < max(waits) <= 1 + longest + 0.001


def test_every_vendor_has_a_policy_and_waits_as_documented() -> None:
    assert set(DEFAULT_POLICIES) == {channel.value for channel in VENDOR_CHANNELS}
    bases = {name: policy.retry_base_seconds for name, policy in DEFAULT_POLICIES.items()}
    assert bases == {"apns": 10, "fcm": 10, "sms": 1, "discord": 1, "onesignal": 1}
    assert DEFAULT_POLICIES["sms"].rate_per_second == 100
    assert {(p.max_attempts, p.timeout_seconds, p.slow_seconds) for p in DEFAULT_POLICIES.values()} == {(15, 10, 2)}


OPTIONAL = ("DISCORD_BOT_TOKEN", "APNS_CA_FILE", "FCM_TOKEN_URL", "PUBLIC_BASE_URL")
BASE_URLS = tuple(f"{vendor}_BASE_URL" for vendor in ("FCM", "APNS", "TWILIO", "DISCORD", "ONESIGNAL"))
NAMES = (*OPTIONAL, *BASE_URLS, *(name for names in CREDENTIALS.values() for name in names))


def channel_settings(**given: Any) -> Any:
    return SimpleNamespace(CHANNEL_POLICIES=DEFAULT_POLICIES, **(dict.fromkeys(NAMES, "") | given))


@pytest.fixture
def complete(tmp_path: Any) -> dict[str, str]:
    """Credentials for every channel."""
    account = {
        "project_id": "p",
        "client_email": "hub@p.iam.gserviceaccount.com",
        "private_key": pem(rsa.generate_private_key(public_exponent=65537, key_size=2048)).decode(),
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    (tmp_path / "account.json").write_bytes(orjson.dumps(account))
    (tmp_path / "key.p8").write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
    return {
        "FCM_CREDENTIALS_FILE": str(tmp_path / "account.json"),
        "APNS_KEY_FILE": str(tmp_path / "key.p8"),
        "APNS_KEY_ID": "KEY1234567",
        "APNS_TEAM_ID": "TEAM123456",
        "APNS_TOPIC": "app.hub",
        "TWILIO_ACCOUNT_SID": "AC1",
        "TWILIO_AUTH_TOKEN": "secret",
        "TWILIO_FROM": "+14155550100",
        "ONESIGNAL_APP_ID": "app",
        "ONESIGNAL_API_KEY": "key",
    }


def test_with_credentials_every_channel_is_on(complete: dict[str, str]) -> None:
    channels = configured_channels(channel_settings(**complete))
    assert set(channels) == set(VENDOR_CHANNELS)
    assert all(channel.name is name for name, channel in channels.items())


def test_without_credentials_only_discord_webhooks_are_on_whatever_the_base_urls_say() -> None:
    urls = dict.fromkeys(BASE_URLS, "http://127.0.0.1:1")
    assert set(configured_channels(channel_settings(**urls))) == {Channel.DISCORD}


@pytest.mark.parametrize("missing", [name for names in CREDENTIALS.values() if len(names) > 1 for name in names])
def test_half_configured_is_an_error_of_one_line_that_names_the_missing_setting(
    complete: dict[str, str], missing: str
) -> None:
    del complete[missing]
    with pytest.raises(ImproperlyConfigured) as error:
        configured_channels(channel_settings(**complete))
    assert missing in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("setting", ["FCM_CREDENTIALS_FILE", "APNS_KEY_FILE", "APNS_CA_FILE"])
def test_a_file_that_is_missing_or_holds_something_else_is_an_error_that_names_the_setting(
    complete: dict[str, str], tmp_path: Any, setting: str
) -> None:
    (tmp_path / "other").write_text("something else")
    paths = [tmp_path / "nowhere"] if setting == "APNS_CA_FILE" else [tmp_path / "nowhere", tmp_path / "other"]
    for path in paths:
        with pytest.raises(ImproperlyConfigured, match=setting) as error:
            configured_channels(channel_settings(**complete | {setting: str(path)}))
        assert "\n" not in str(error.value)
