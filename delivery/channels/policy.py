"""How patient each channel is: its limits, and how long a retry waits. Plain values, free of Django."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class ChannelPolicy:
    """The limits of one channel. Times are in seconds."""

    retry_base_seconds: float = 1.0
    retry_cap_seconds: float = 300.0
    """The largest random part of a wait: as long as an open breaker's longest pause between two probes, so that no
    single alert is more patient than its whole channel. Doubling from one second, the first eight retries still fall
    into the five minutes for which a trade is worth copying, and fifteen stretch over some twenty minutes."""
    max_attempts: int = 15
    timeout_seconds: float = 10.0
    """For the whole of one send, with whatever token must be fetched first. FCM asks for at least 10 s."""
    connect_timeout_seconds: float = 3.0
    """Of the total; a vendor that cannot be reached is known to have got nothing."""
    read_timeout_seconds: float = 10.0
    """For the silence after the request went out."""
    slow_seconds: float = 2.0
    """An answer that takes longer counts against the channel's breaker."""
    concurrency: int = 100
    """Sends in flight at once, in one process; over HTTP/1.1 also the most connections it opens."""
    rate_per_second: float | None = None
    """Sends a second over all workers; None = as many as the vendor takes."""
    resend_in_doubt: bool = True
    """What follows where nobody knows whether the vendor accepted an alert (no answer, a worker that died): sent again
    if the vendor shows a repeat once, or left to a person. Without a vendor key it is always left to a person."""


DEFAULT_POLICIES: dict[str, ChannelPolicy] = {
    # Apple suggests 15 minutes after a 5xx, which outlives most alerts. One connection carries all streams.
    "apns": ChannelPolicy(retry_base_seconds=10.0, concurrency=200),
    # Google asks for at least 10 s before a retry, and for a client timeout of at least 10 s.
    # A project may send 600,000 a minute.
    "fcm": ChannelPolicy(retry_base_seconds=10.0, concurrency=200, rate_per_second=10_000.0),
    # Twilio queues at one message a second and sender whatever we do; a burst here only earns 20429. Fifty in flight
    # carry 100 a second at the half second it takes to answer, and leave few in doubt after a crash.
    "sms": ChannelPolicy(concurrency=50, rate_per_second=100.0),
    # A bot may call 50 times a second; at some 200 ms an answer, ten in flight reach that.
    "discord": ChannelPolicy(concurrency=20),
    "onesignal": ChannelPolicy(concurrency=100),
}
"""By channel name, used for whatever the settings do not override."""


def backoff_seconds(policy: ChannelPolicy, n: int, retry_after: float | None, random: Random) -> float:
    """The wait before retry `n` (1 for the first), in seconds.

    base + uniform(0, min(cap, base·2ⁿ)): the base keeps the pause a vendor asks for, the random part spreads a batch
    that failed together. What the vendor itself asked for (`retry_after`) outranks all of that.
    """
    if retry_after is not None:
        return max(0.0, retry_after)
    base = policy.retry_base_seconds
    doublings = min(max(n, 0), 64)  # 2⁶⁴ seconds are beyond every cap; without a limit the float overflows.
    return base + random.uniform(0.0, min(policy.retry_cap_seconds, base * 2.0**doublings))
