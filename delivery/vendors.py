"""The process's open channels: each vendor's connections and gate live as long as the worker does."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import structlog
from django.conf import settings
from pymongo.errors import PyMongoError
from redis import asyncio as async_redis

from delivery.breakers import ensure_breakers, forced_breakers, note_change
from delivery.channels.base import Channel
from delivery.channels.registry import configured_channels
from delivery.guards.breaker import State
from delivery.guards.gate import Gate
from delivery.guards.rates import RateLimit
from delivery.guards.shared import Shared, connect
from delivery.guards.watch import Watch
from delivery.lease import worker_name
from delivery.stopping import start_again
from notifications.telemetry import BREAKER_CHANGES

logger = structlog.get_logger(__name__)

DEFAULT_THREADS = 8


@dataclass(frozen=True, slots=True)
class Vendor:
    """An open channel and its gate in this process."""

    channel: Channel
    gate: Gate


@dataclass(slots=True)
class _Process:
    """What is open beside the vendors themselves."""

    loop: asyncio.AbstractEventLoop
    redis: async_redis.Redis
    watch: asyncio.Task[None]
    stop_watch: asyncio.Event


_open: dict[str, Vendor] = {}
_process: _Process | None = None
_journal_entries: set[asyncio.Task[None]] = set()


async def open_channels(threads: int = DEFAULT_THREADS) -> None:
    """Opens every configured channel in the running event loop; nothing happens where they are open.

    Parameters:
      threads: How many batches this process can have in hand.
    """
    global _process  # noqa: PLW0603  One set of connections a process, opened and closed by the worker's middleware.
    start_again()
    if _process is not None:
        return
    # A batch in hand has one visit to a thread at a time, its lease another. The loop's own pool is for four batches.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2 * threads, "delivery"))
    client = connect()
    channels = list(configured_channels(settings).values())
    shared = Shared(client, [f"{c.name}:{c.account}" for c in channels], worker_name())
    for channel in channels:
        await channel.open()
        _open[channel.name] = Vendor(channel, _gate(channel, shared, client, threads))
    await _note_breakers(channels)
    watch = Watch([vendor.gate for vendor in _open.values()], shared, forced_breakers)
    await watch.step()  # Before the first hint: a breaker may be open.
    stop = asyncio.Event()
    _process = _Process(asyncio.get_running_loop(), client, asyncio.create_task(watch.run(stop)), stop)


def _gate(channel: Channel, shared: Shared, client: async_redis.Redis, threads: int) -> Gate:
    rate, name = channel.policy.rate_per_second, f"{channel.name}:{channel.account}"
    limit = RateLimit(client, name, rate) if rate else None
    return Gate(channel, shared, limit, threads, settings.BREAKER_PAUSE_SECONDS, _journal)


async def _note_breakers(channels: list[Channel]) -> None:
    """Staff see a channel's breaker as soon as somebody can send on it; sending does not depend on that."""
    try:
        await asyncio.to_thread(ensure_breakers, {str(c.name): c.account for c in channels})
    except PyMongoError as error:
        logger.warning("The breakers could not be noted; the admin lists them after the next start.", error=str(error))


def _journal(channel: Channel, before: State, after: State) -> None:
    """Logs a change of a breaker, and keeps it for staff without holding anything up."""
    logger.warning(
        "A circuit breaker has changed.",
        channel=channel.name,
        account=channel.account,
        status_before=before.status.value,
        status_after=after.status.value,
        reason=after.reason,
    )
    BREAKER_CHANGES.labels(channel.name, after.status.value).inc()
    task = asyncio.get_running_loop().create_task(_keep_change(channel, before, after))
    _journal_entries.add(task)
    task.add_done_callback(_journal_entries.discard)


async def _keep_change(channel: Channel, before: State, after: State) -> None:
    keep = partial(note_change, str(channel.name), channel.account, before, after, worker_name())
    try:
        await asyncio.to_thread(keep)
    except PyMongoError as error:
        logger.warning("A breaker's change is missing in its history.", channel=channel.name, error=str(error)[:200])


async def close_channels() -> None:
    """Closes the vendors' connections. What is in flight must have ended."""
    global _process
    process, _process = _process, None
    if process is not None:
        process.stop_watch.set()
        await process.watch
        await asyncio.gather(*_journal_entries)
        await process.redis.aclose()
    while _open:
        _, vendor = _open.popitem()
        await vendor.channel.close()


def send_waiting_away() -> None:
    """The worker is stopping: what waits for a slot goes back at once. From any thread."""
    if _process is not None:
        _process.loop.call_soon_threadsafe(_send_all_away)


def _send_all_away() -> None:
    for vendor in _open.values():
        vendor.gate.slots.send_all_away()


def open_vendor(channel: str) -> Vendor | None:
    """The open vendor of a channel; None where it has no credentials here."""
    return _open.get(channel)
