"""How the sandbox vendors behave in the demo: as quick as the real ones on a good day, with their usual troubles."""

from __future__ import annotations

from typing import Any

from devstack.vendors.client import Sandbox

VENDORS = {"apns": "apns", "fcm": "fcm", "sms": "twilio", "discord": "discord", "onesignal": "onesignal"}
"""Channel → the sandbox's vendor."""

LATENCY_MS, JITTER_MS = 30, 50
DEAD_ADDRESSES = 0.004
THROTTLED, UNAVAILABLE = 0.0015, 0.004
"""Shares of requests, below one in a hundred: often enough to be seen, rare enough to leave the p99 to the rest."""


def rules(channel: str) -> list[dict[str, Any]]:
    """Dead addresses, a throttled request now and then, and a few 503s."""
    throttled: dict[str, Any] = {"match": _share(THROTTLED), "code": "throttled"}
    if channel not in {"apns", "sms"}:  # Those two give no Retry-After.
        throttled["retry_after"] = 2
    return [
        {"match": {"fraction": DEAD_ADDRESSES, "fraction_of": "addresses"}, "code": "dead"},
        throttled,
        {"match": _share(UNAVAILABLE), "code": "unavailable"},
    ]


def _share(fraction: float) -> dict[str, Any]:
    return {"fraction": fraction, "fraction_of": "requests"}


def set_behaviour(sandbox: Sandbox) -> None:
    """Tell every vendor. Bodies of accepted messages are not kept: the demo may run for a day."""
    for seed, (channel, vendor) in enumerate(VENDORS.items()):
        sandbox.behave(
            vendor, latency_ms=LATENCY_MS, jitter_ms=JITTER_MS, seed=seed, keep_bodies=False, rules=rules(channel)
        )
