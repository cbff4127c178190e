"""Which settings switch a channel on. Loads nothing of the channels, so that the settings themselves can ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from followers.choices import Channel as Name

CREDENTIALS: Mapping[Name, tuple[str, ...]] = {
    Name.APNS: ("APNS_KEY_FILE", "APNS_KEY_ID", "APNS_TEAM_ID", "APNS_TOPIC"),
    Name.FCM: ("FCM_CREDENTIALS_FILE",),
    Name.SMS: ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_FROM"),
    Name.DISCORD: (),  # A webhook's URL is its own credential; DISCORD_BOT_TOKEN adds direct messages.
    Name.ONESIGNAL: ("ONESIGNAL_APP_ID", "ONESIGNAL_API_KEY"),
}
"""The settings that switch a channel on, all of them together. A base URL never does."""


def is_on(name: Name, settings: Any) -> bool:
    """Whether a channel has its credentials. Raises ImproperlyConfigured if it has only some of them."""
    missing = [setting for setting in CREDENTIALS[name] if not getattr(settings, setting)]
    if missing and len(missing) < len(CREDENTIALS[name]):
        raise ImproperlyConfigured(f"{name.label} is half configured: {' and '.join(missing)} must be set as well.")
    return not missing
