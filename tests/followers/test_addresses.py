"""What each channel takes for an address, how it is written, and how little of it is shown."""

from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError

from followers.addresses import discord_webhook_parts, mask_address, normalise_address

TOKEN = "0123456789abcdef" * 4
WEBHOOK = "https://discord.com/api/webhooks/123456789012345678/aB3_-x" + "y" * 62
UUID = "3b241101-e2bb-4255-8caf-4136c566a962"


@pytest.mark.parametrize(
    ("channel", "given", "stored"),
    [
        ("sms", "+14155550100", "+14155550100"),
        ("sms", " +1 (415) 555-0100 ", "+14155550100"),
        ("sms", "+91 98123.45678", "+919812345678"),
        ("apns", TOKEN.upper(), TOKEN),
        ("fcm", "dK3:APA91b_x-y", "dK3:APA91b_x-y"),
        ("fcm", "x" * 4096, "x" * 4096),
        ("onesignal", UUID.upper(), UUID),
        ("discord", "123456789012345678", "123456789012345678"),
        ("discord", WEBHOOK, WEBHOOK),
        ("discord", WEBHOOK.replace("discord.com", "discordapp.com"), WEBHOOK),
        ("discord", WEBHOOK.replace("discord.com", "canary.discord.com"), WEBHOOK),
        ("discord", WEBHOOK.replace("discord.com", "ptb.discord.com"), WEBHOOK),
        ("discord", WEBHOOK.replace("/api/", "/api/v10/") + "/", WEBHOOK),
    ],
)
def test_an_address_is_stored_in_one_way(channel: str, given: str, stored: str) -> None:
    assert normalise_address(channel, given) == stored
    assert normalise_address(channel, stored) == stored


@pytest.mark.parametrize(
    ("channel", "address"),
    [
        ("sms", ""),
        ("sms", "4155550199"),
        ("sms", "+0155550100"),
        ("sms", "+1234567890123456"),
        ("sms", "+1415555010x"),
        ("sms", "+١٤١٥٥٥٥٠١٠٠"),
        ("apns", ""),
        ("apns", "xyz" * 20),
        ("apns", TOKEN[:-1]),
        ("fcm", ""),
        ("fcm", "a b"),
        ("fcm", "x" * 4097),
        ("onesignal", "F-1"),
        ("discord", ""),
        ("discord", "F-1"),
        ("discord", "1234"),
        ("discord", "99999999999999999999"),
        ("discord", WEBHOOK.replace("https", "http")),
        ("discord", WEBHOOK.replace("discord.com", "discord.com.evil.example")),
        ("discord", WEBHOOK.replace("discord.com", "evil.example")),
        ("discord", WEBHOOK.replace("discord.com", "evil@discord.com")),
        ("discord", WEBHOOK.replace("discord.com", "evildiscord.com")),
        ("discord", WEBHOOK.replace("discord.com", "discordxcom")),
        ("discord", WEBHOOK + "/../../users"),
        ("discord", WEBHOOK + "?wait=false"),
        ("discord", "https://discord.com/api/webhooks/x/token"),
        ("in_app", "anything"),
        ("pigeon", "anything"),
    ],
)
def test_anything_else_is_refused_without_being_repeated(channel: str, address: str) -> None:
    with pytest.raises(ValidationError) as error:
        normalise_address(channel, address)
    assert error.value.code
    assert len(address) < 3 or address not in str(error.value.messages)


def test_a_webhook_is_taken_apart() -> None:
    assert discord_webhook_parts("https://discord.com/api/webhooks/12/a-B_3") == ("12", "a-B_3")
    assert discord_webhook_parts("https://elsewhere.example/api/webhooks/12/a-B_3") is None


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("+14155550100", "…00"),
        (TOKEN, "0123…cdef"),
        (WEBHOOK, "webhook …5678"),
        (UUID, "3b24…a962"),
        ("123456789012345678", "1234…5678"),
        ("short", "…"),
        ("", "…"),
    ],
)
def test_a_masked_address_is_recognised_but_not_usable(address: str, shown: str) -> None:
    assert mask_address(address) == shown
