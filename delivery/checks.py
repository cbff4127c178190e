"""What `manage.py check` says about the channels. The ids are stable: a deployment may silence one by its id."""

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


@checks.register()
def check_channels(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """W001 a channel is off, I001 Discord can only post to webhooks, E001 a channel is half or wrongly configured."""
    messages: list[checks.CheckMessage] = []
    for name, credentials in CREDENTIALS.items():
        try:
            if is_on(name, settings):
                configured_channel(name, settings)
            else:
                hint = f"Set {', '.join(credentials)} to switch it on."
                text = f"{name.label} is off: it has no credentials."
                messages.append(checks.Warning(text, hint=hint, id="notifyhub.W001"))
        except ImproperlyConfigured as error:
            messages.append(checks.Error(str(error), id="notifyhub.E001"))
    if not settings.DISCORD_BOT_TOKEN:
        text = f"{Channel.DISCORD.label} posts to webhooks only: direct messages need a bot."
        messages.append(checks.Info(text, hint="Set DISCORD_BOT_TOKEN to switch them on.", id="notifyhub.I001"))
    return messages
