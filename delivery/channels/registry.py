"""Who is configured: from the settings to the channels that can send."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
from django.core.exceptions import ImproperlyConfigured

from delivery.channels.apns import ApnsChannel, ApnsConfig
from delivery.channels.base import Channel
from delivery.channels.credentials import CREDENTIALS, is_on
from delivery.channels.discord import DiscordChannel, DiscordConfig
from delivery.channels.fcm import FcmChannel, FcmConfig
from delivery.channels.onesignal import OneSignalChannel, OneSignalConfig
from delivery.channels.policy import ChannelPolicy
from delivery.channels.twilio_sms import TwilioConfig, TwilioSmsChannel
from followers.choices import Channel as Name

GOOGLE_TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address, no secret.


def configured_channels(settings: Any) -> dict[Name, Channel]:
    """The channels whose credentials the settings hold, not yet opened; one without any is absent.

    Raises ImproperlyConfigured, in one line that names the setting, for a channel that is half configured.
    """
    return {name: configured_channel(name, settings) for name in CREDENTIALS if is_on(name, settings)}


def configured_channel(name: Name, settings: Any) -> Channel:
    """One channel that is on. Raises ImproperlyConfigured as above."""
    return _BUILDERS[name](settings, settings.CHANNEL_POLICIES[name.value])


def _apns(settings: Any, policy: ChannelPolicy) -> Channel:
    config = ApnsConfig(
        key_pem=_read("APNS_KEY_FILE", settings),
        key_id=settings.APNS_KEY_ID,
        team_id=settings.APNS_TEAM_ID,
        topic=settings.APNS_TOPIC,
        base_url=settings.APNS_BASE_URL.rstrip("/"),
        ca_pem=_read("APNS_CA_FILE", settings) if settings.APNS_CA_FILE else None,
    )
    try:
        return ApnsChannel(config, policy)
    except ValueError as error:
        raise ImproperlyConfigured(f"APNS_KEY_FILE must hold Apple's .p8 key: {_line(error)}") from error


def _fcm(settings: Any, policy: ChannelPolicy) -> Channel:
    account = _service_account(settings)
    token_url = settings.FCM_TOKEN_URL or account.get("token_uri") or GOOGLE_TOKEN_URL
    if not urlsplit(token_url).path.strip("/"):
        token_url = f"{token_url.rstrip('/')}/token"  # An origin alone, like the base URLs.
    config = FcmConfig(
        project_id=account["project_id"],
        client_email=account["client_email"],
        private_key_pem=account["private_key"].encode(),
        base_url=settings.FCM_BASE_URL.rstrip("/"),
        token_url=token_url,
        audience=account.get("token_uri") or token_url,
    )
    try:
        return FcmChannel(config, policy)
    except ValueError as error:
        raise ImproperlyConfigured(f"FCM_CREDENTIALS_FILE holds no usable private key: {_line(error)}") from error


def _service_account(settings: Any) -> dict[str, str]:
    """The service account's JSON file, as the Firebase console gives it out."""
    try:
        account: dict[str, str] = orjson.loads(_read("FCM_CREDENTIALS_FILE", settings))
    except orjson.JSONDecodeError as error:
        raise ImproperlyConfigured("FCM_CREDENTIALS_FILE must be a service account's JSON file.") from error
    for field in ("project_id", "client_email", "private_key"):
        if not isinstance(account, dict) or not isinstance(account.get(field), str):
            raise ImproperlyConfigured(f"FCM_CREDENTIALS_FILE must be a service account's JSON file with “{field}”.")
    return account


def _sms(settings: Any, policy: ChannelPolicy) -> Channel:
    config = TwilioConfig(
        account_sid=settings.TWILIO_ACCOUNT_SID,
        auth_token=settings.TWILIO_AUTH_TOKEN,
        sender=settings.TWILIO_FROM,
        base_url=settings.TWILIO_BASE_URL.rstrip("/"),
        callback_origin=settings.PUBLIC_BASE_URL,
    )
    return TwilioSmsChannel(config, policy)


def _discord(settings: Any, policy: ChannelPolicy) -> Channel:
    return DiscordChannel(DiscordConfig(settings.DISCORD_BASE_URL.rstrip("/"), settings.DISCORD_BOT_TOKEN), policy)


def _onesignal(settings: Any, policy: ChannelPolicy) -> Channel:
    config = OneSignalConfig(
        settings.ONESIGNAL_APP_ID, settings.ONESIGNAL_API_KEY, settings.ONESIGNAL_BASE_URL.rstrip("/")
    )
    return OneSignalChannel(config, policy)


_BUILDERS: Mapping[Name, Callable[[Any, ChannelPolicy], Channel]] = {
    Name.APNS: _apns,
    Name.FCM: _fcm,
    Name.SMS: _sms,
    Name.DISCORD: _discord,
    Name.ONESIGNAL: _onesignal,
}


def _read(setting: str, settings: Any) -> bytes:
    path = getattr(settings, setting)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ImproperlyConfigured(f"{setting} names a file that cannot be read: {path} ({error.strerror}).") from error


def _line(error: Exception) -> str:
    """The first line of an error: what libraries say about keys runs over several."""
    return (str(error).splitlines() or [type(error).__name__])[0]
