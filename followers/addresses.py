"""The addresses of every channel: what is a good one, how it is written in one way, and how it is shown.

One spelling per address matters: an endpoint is found, and taken over from its former owner, by the hash of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from uuid import UUID

from django.core.exceptions import ValidationError

from followers.choices import Channel

_E164 = re.compile(r"\+[1-9][0-9]{6,14}")  # ITU-T E.164: at most 15 digits after the plus sign.
_SEPARATORS = re.compile(r"[\s().-]")
_APNS_TOKEN = re.compile(r"(?:[0-9a-f]{2}){16,100}")  # 32 bytes today; Apple calls the length variable.
_DISCORD_WEBHOOK = re.compile(
    r"https://(?:(?:canary|ptb)\.)?discord(?:app)?\.com/api(?:/v[0-9]{1,2})?/webhooks/([0-9]{1,20})/([A-Za-z0-9_-]{1,200})/?"
)
_SNOWFLAKE = re.compile(r"[1-9][0-9]{14,19}")  # 64 bits; the oldest accounts have 15 digits or more.
MAX_FCM_TOKEN = 4096


def normalise_address(channel: str, address: str) -> str:
    """The address in the one way it is stored. Raises ValidationError, which never repeats the address."""
    check = _CHECKS.get(channel)
    if check is None:
        raise ValidationError(f"The channel “{channel}” has no addresses.", code="no_addresses")
    return check(address.strip())


def mask_address(address: str) -> str:
    """Enough of an address to recognise it, never enough to use it. Takes whatever is stored."""
    webhook = discord_webhook_parts(address)
    if webhook is not None:
        return f"webhook …{webhook[0][-4:]}"  # The id is no secret; nothing of the token is shown.
    if len(address) >= 16:
        return f"{address[:4]}…{address[-4:]}"
    return f"…{address[-2:]}" if len(address) >= 8 else "…"


def discord_webhook_parts(address: str) -> tuple[str, str] | None:
    """(id, token) of a Discord webhook's URL; None for anything else, a webhook of another host included."""
    match = _DISCORD_WEBHOOK.fullmatch(address)
    return (match[1], match[2]) if match else None


def _sms(address: str) -> str:
    number = _SEPARATORS.sub("", address)
    if not _E164.fullmatch(number):
        raise ValidationError("A phone number is needed in the form +14155550100 (E.164).", code="not_e164")
    return number


def _apns(address: str) -> str:
    token = address.lower()
    if not _APNS_TOKEN.fullmatch(token):
        raise ValidationError("An APNs device token is needed, in hexadecimal digits.", code="not_apns_token")
    return token


def _fcm(address: str) -> str:
    if not address or len(address) > MAX_FCM_TOKEN or any(character.isspace() for character in address):
        raise ValidationError(
            f"An FCM registration token is needed: up to {MAX_FCM_TOKEN} characters without spaces.",
            code="not_fcm_token",
        )
    return address


def _discord(address: str) -> str:
    webhook = discord_webhook_parts(address)
    if webhook is not None:
        return "https://discord.com/api/webhooks/{}/{}".format(*webhook)
    if _SNOWFLAKE.fullmatch(address) and int(address) < 2**64:
        return address
    raise ValidationError(
        "A Discord webhook is needed (https://discord.com/api/webhooks/…), or the number of a Discord user.",
        code="not_discord",
    )


def _onesignal(address: str) -> str:
    try:
        return str(UUID(address))
    except ValueError:
        raise ValidationError("A OneSignal subscription id is needed (a UUID).", code="not_subscription_id") from None


_CHECKS: dict[str, Callable[[str], str]] = {
    Channel.SMS: _sms,
    Channel.APNS: _apns,
    Channel.FCM: _fcm,
    Channel.DISCORD: _discord,
    Channel.ONESIGNAL: _onesignal,
}
