"""The process's open channels: each vendor's connections live as long as the worker does."""

from __future__ import annotations

import structlog
from django.conf import settings

from delivery.channels.base import Channel
from delivery.channels.registry import configured_channels

logger = structlog.get_logger(__name__)

_open: dict[str, Channel] = {}


async def open_channels() -> None:
    """Opens every configured channel in the running event loop; nothing happens where they are open."""
    if _open:
        return
    for name, channel in configured_channels(settings).items():
        await channel.open()
        _open[name] = channel


async def close_channels() -> None:
    """Closes the vendors' connections. What is in flight must have ended."""
    while _open:
        _, channel = _open.popitem()
        await channel.close()


def open_channel(name: str) -> Channel | None:
    """The open channel of that name; None where it has no credentials here."""
    return _open.get(name)
