"""Every channel as the contract tests need it, and how to open one against the sandbox vendors."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from delivery.channels.base import Channel, Message, Outcome
from delivery.channels.policy import DEFAULT_POLICIES
from delivery.channels.registry import configured_channel
from delivery.channels.rendering import key_uuid
from devstack.vendors.process import VendorProcess
from followers.choices import Channel as Name

SENT, RETRY, THROTTLED, REFUSED = Outcome.SENT, Outcome.RETRY, Outcome.THROTTLED, Outcome.REFUSED
DEAD, MISCONFIGURED, UNKNOWN = Outcome.DEAD, Outcome.MISCONFIGURED, Outcome.UNKNOWN

NOW = datetime.now(UTC).replace(microsecond=0)  # The real time: the vendors check tokens against their own clock.
VALID_SECONDS = 7_200  # Longer than any run of the tests: the vendors check against their own clock.
KEY = "0123456789abcdef01234567"
EXPIRES_EPOCH = str(int(NOW.timestamp()) + VALID_SECONDS)


@dataclass(frozen=True)
class Case:
    """A channel as the tests need it. `refusals`: the sandbox's code and what it must become."""

    name: Name
    address: Callable[[int], str]
    payload: dict[str, Any]  # For message 0.
    refusals: dict[str, Outcome]
    key: str = ""  # As the vendor sees it; empty = the channel has none.
    headers: dict[str, str] = field(default_factory=dict)
    retry_after: float | None = 7.0  # What is left of the 7 s that the sandbox asks for.
    requests_before: int = 0  # Once, before the first message: an access token, a direct message's channel.
    malformed: Outcome = UNKNOWN  # Accepted, but the answer cannot be read.


TEXT = "BUY RELIANCE\nBuy 5 at 2,945.50"
DISCORD_TEXT = {"content": "**BUY RELIANCE**\nBuy 5 at 2,945.50", "allowed_mentions": {"parse": []}}
DATA = {"symbol": "RELIANCE", "suggested_qty": "5"}

CASES = {
    "apns": Case(
        Name.APNS,
        lambda i: f"{i:064x}",
        payload={
            **DATA,
            "aps": {
                "alert": {"title": "BUY RELIANCE", "body": "Buy 5 at 2,945.50"},
                "sound": "default",
                "interruption-level": "active",
            },
        },
        key=KEY,
        headers={
            "apns-topic": "com.example.notifyhub",
            "apns-push-type": "alert",
            "apns-priority": "10",
            "apns-expiration": EXPIRES_EPOCH,
            "apns-collapse-id": KEY,
            "apns-id": key_uuid(KEY),
        },
        refusals={
            "Unregistered": DEAD,
            "BadDeviceToken": DEAD,
            "BadCollapseId": REFUSED,
            "PayloadTooLarge": REFUSED,
            "InvalidProviderToken": MISCONFIGURED,
            "BadEnvironmentKeyInToken": MISCONFIGURED,
            "TooManyProviderTokenUpdates": THROTTLED,
            "ServiceUnavailable": RETRY,
            "InternalServerError": RETRY,
        },
        retry_after=None,  # Apple names no time.
        malformed=SENT,  # A 200 has no body; the id is in a header.
    ),
    "fcm": Case(
        Name.FCM,
        lambda i: f"token-of-device-{i}:APA91b",
        payload={
            "token": "token-of-device-0:APA91b",
            "notification": {"title": "BUY RELIANCE", "body": "Buy 5 at 2,945.50"},
            "data": DATA,
            "android": {
                "priority": "HIGH",
                "ttl": f"{VALID_SECONDS}s",
                "notification": {"tag": KEY, "notification_priority": "PRIORITY_HIGH"},
            },
            "apns": {
                "headers": {"apns-priority": "10", "apns-expiration": EXPIRES_EPOCH, "apns-collapse-id": KEY},
            },
            "webpush": {
                "headers": {"TTL": str(VALID_SECONDS), "Urgency": "high"},
                "notification": {"tag": KEY},
            },
        },
        key=f"{KEY} {KEY} {KEY}",
        refusals={
            "UNREGISTERED": DEAD,
            "INVALID_ARGUMENT": DEAD,
            "SENDER_ID_MISMATCH": DEAD,
            "PERMISSION_DENIED": MISCONFIGURED,
            "THIRD_PARTY_AUTH_ERROR": MISCONFIGURED,
            "NOT_FOUND": MISCONFIGURED,
            "QUOTA_EXCEEDED": THROTTLED,
            "UNAVAILABLE": RETRY,
            "INTERNAL": RETRY,
        },
        requests_before=1,
    ),
    "sms": Case(
        Name.SMS,
        lambda i: f"+1415{5550000 + i}",
        payload={"To": "+14155550000", "From": "+15005550006", "Body": TEXT, "ValidityPeriod": str(VALID_SECONDS)},
        refusals={
            "21211": DEAD,
            "21614": DEAD,
            "21610": DEAD,
            "21408": REFUSED,
            "90007": REFUSED,
            "20003": MISCONFIGURED,
            "21606": MISCONFIGURED,
            "20429": THROTTLED,
            "20500": UNKNOWN,
            "20503": UNKNOWN,
        },
    ),
    "discord-webhook": Case(
        Name.DISCORD,
        lambda i: f"https://discord.com/api/webhooks/{10**17 + i}/webhook-secret-{i}",
        payload=DISCORD_TEXT,
        refusals={
            "10015": DEAD,
            "50027": DEAD,
            "50035": REFUSED,
            "200000": REFUSED,
            "20028": THROTTLED,
            "429": THROTTLED,
            "130000": UNKNOWN,
            "40004": UNKNOWN,
        },
    ),
    "discord-bot": Case(
        Name.DISCORD,
        lambda i: str(2 * 10**17 + i),
        payload={**DISCORD_TEXT, "nonce": KEY, "enforce_nonce": True},
        key=KEY,
        refusals={
            "50007": DEAD,
            "50278": DEAD,
            "50035": REFUSED,
            "50001": REFUSED,
            "0": MISCONFIGURED,
            "40001": MISCONFIGURED,
            "429": THROTTLED,
            "130000": RETRY,
        },
        requests_before=1,
    ),
    "onesignal": Case(
        Name.ONESIGNAL,
        lambda i: f"00000000-0000-4000-8000-{i:012d}",
        payload={
            "include_subscription_ids": ["00000000-0000-4000-8000-000000000000"],
            "headings": {"en": "BUY RELIANCE"},
            "contents": {"en": "Buy 5 at 2,945.50"},
            "data": DATA,
            "ttl": VALID_SECONDS,
            "priority": 10,
            "idempotency_key": key_uuid(KEY),
        },
        key=key_uuid(KEY),
        refusals={
            "not_subscribed": DEAD,
            "bad_request": REFUSED,
            "not_found": REFUSED,
            "unauthenticated": MISCONFIGURED,
            "access_denied": MISCONFIGURED,
            "rate_limited": THROTTLED,
            "unavailable": RETRY,
            "internal": RETRY,
        },
    ),
}


@asynccontextmanager
async def opened(vendors: VendorProcess, name: Name, policy: dict[str, Any], **settings: str) -> AsyncIterator[Channel]:
    """The channel as the settings build it, with parts of its policy and of the settings replaced."""
    policies = {n: dataclasses.replace(default, **policy) for n, default in DEFAULT_POLICIES.items()}
    channel = configured_channel(
        name, SimpleNamespace(CHANNEL_POLICIES=policies, PUBLIC_BASE_URL="", **vendors.env | settings)
    )
    await channel.open()
    try:
        yield channel
    finally:
        await channel.close()


def message(case: Case, i: int = 0, **changes: Any) -> Message:
    values: dict[str, Any] = {
        "key": KEY if i == 0 else f"{i:024x}",
        "address": case.address(i),
        "title": "BUY RELIANCE",
        "body": "Buy 5 at 2,945.50",
        "data": DATA,
        "critical": False,
        "expires_at": NOW + timedelta(seconds=VALID_SECONDS),
    }
    return Message(**(values | changes))
