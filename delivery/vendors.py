"""The process's open channels: each vendor's connections live as long as the worker does."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings

from delivery.bulkhead import Bulkhead
from delivery.channels.base import Channel
from delivery.channels.registry import configured_channels
from delivery.stopping import start_again


@dataclass(frozen=True, slots=True)
class Vendor:
    """An open channel and its share of this process."""

    channel: Channel
    bulkhead: Bulkhead


_open: dict[str, Vendor] = {}


async def open_channels() -> None:
    """Opens every configured channel in the running event loop; nothing happens where they are open."""
    start_again()
    if _open:
        return
    for name, channel in configured_channels(settings).items():
        await channel.open()
        _open[name] = Vendor(channel, Bulkhead(channel.policy, settings.WORKER_THREADS))


async def close_channels() -> None:
    """Closes the vendors' connections. What is in flight must have ended."""
    while _open:
        _, vendor = _open.popitem()
        await vendor.channel.close()


def open_vendor(channel: str) -> Vendor | None:
    """The open vendor of a channel; None where it has no credentials here."""
    return _open.get(channel)
