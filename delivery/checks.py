"""What Django's system checks say about the channels. The ids are stable: a deployment may silence one by its id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from delivery.channels.credentials import CREDENTIALS, is_on
from delivery.channels.registry import configured_channel
from followers.choices import Channel

TAG = "notifyhub"
"""Our daemons run the checks of this tag alone: the others load every page and form of the admin."""


@checks.register(TAG)
def check_channels(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """E001: a channel is half or wrongly configured, a key file that cannot be read for instance."""
    messages: list[checks.CheckMessage] = []
    for name in CREDENTIALS:
        try:
            if is_on(name, settings):
                configured_channel(name, settings)
        except ImproperlyConfigured as error:
            messages.append(checks.Error(str(error), id="notifyhub.E001"))
    return messages


def report_channels(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """W001: a channel is off; I001: Discord can only post to webhooks.

    Registered by `manage.py check` alone: a deployment that has no use for a channel should not read so at each start.
    """
    messages: list[checks.CheckMessage] = []
    for name, credentials in CREDENTIALS.items():
        if not any(getattr(settings, setting) for setting in credentials) and credentials:
            hint = f"Set {', '.join(credentials)} to switch it on."
            messages.append(
                checks.Warning(f"{name.label} is off: it has no credentials.", hint=hint, id="notifyhub.W001")
            )
    if not settings.DISCORD_BOT_TOKEN:
        text = f"{Channel.DISCORD.label} posts to webhooks only: direct messages need a bot."
        messages.append(checks.Info(text, hint="Set DISCORD_BOT_TOKEN to switch them on.", id="notifyhub.I001"))
    return messages
