"""The small parts that the channels share: waits, scrubbed words, texts that fit, and Apple's provider token."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from delivery.channels.answers import retry_after_seconds, scrub
from delivery.channels.apns_token import ProviderToken
from delivery.channels.rendering import fitted, key_uuid, shorten
from tests.delivery.test_channel_codes import NOW, pem


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("The 'To' number +1 (415) 555-0100 is invalid", "The 'To' number … is invalid"),
        ("see https://discord.com/api/webhooks/1/abc for it", "see … for it"),
        ("token dK3jf9aK:APA91bHun4MxP5egoKMwt is bad", "token … is bad"),
        ("Requested entity was not found.", "Requested entity was not found."),
    ],
)
def test_scrub_removes_what_looks_like_an_address(text: str, left: str) -> None:
    assert scrub(text, "") == left


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "12"}, 12.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Sat, 21 Nov 2026 09:15:30 GMT", "date": "Sat, 21 Nov 2026 09:15:00 GMT"}, 30.0),
        ({"retry-after": "Sat, 21 Nov 2026 09:14:30 GMT", "date": "Sat, 21 Nov 2026 09:15:00 GMT"}, 0.0),
        ({"retry-after": "Sat, 21 Nov 2026 09:15:30 GMT"}, None),
    ],
)
def test_retry_after(headers: Mapping[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers) == seconds


@pytest.mark.parametrize("text", ["x" * 500, "₹" * 500, "😀" * 500, '"' * 500, "short", ""])
def test_a_text_is_cut_to_fit_its_bytes(text: str) -> None:
    payload = fitted(lambda part: orjson.dumps({"body": part}), text, 100)
    assert len(payload) <= 100
    shown = orjson.loads(payload)["body"]
    assert shown == text if len(text) < 50 else text.startswith(shown.removesuffix("…")) and len(shown) > 20


def test_what_can_never_fit_is_left_to_the_vendor() -> None:
    assert fitted(lambda part: b"x" * 200 + part.encode(), "text", 100) == b"x" * 200 + "…".encode()


def test_shorten_counts_characters() -> None:
    assert shorten("12345", 5) == "12345"
    assert shorten("123456", 5) == "1234…"


def test_a_key_has_always_the_same_uuid() -> None:
    assert key_uuid("a" * 24) == key_uuid("a" * 24) != key_uuid("b" * 24)
    assert UUID(key_uuid("a" * 24)).version == 4


def test_the_provider_token_is_kept_for_fifty_minutes_and_then_renewed() -> None:
    token = ProviderToken(pem(ec.generate_private_key(ec.SECP256R1())), "KEY1234567", "TEAM")
    first = token.authorization(NOW)
    assert token.authorization(NOW + timedelta(minutes=49, seconds=59)) == first
    second = token.authorization(NOW + timedelta(minutes=50))
    assert second != first
    claims = jwt.decode(second.removeprefix("bearer "), options={"verify_signature": False})
    assert claims == {"iss": "TEAM", "iat": int((NOW + timedelta(minutes=50)).timestamp())}
    assert jwt.get_unverified_header(second.removeprefix("bearer "))["kid"] == "KEY1234567"


def test_a_refused_provider_token_is_renewed_at_most_every_twenty_minutes() -> None:
    token = ProviderToken(pem(ec.generate_private_key(ec.SECP256R1())), "KEY1234567", "TEAM")
    first = token.authorization(NOW)
    assert not token.renew(first, NOW + timedelta(minutes=19))
    assert token.renew(first, NOW + timedelta(minutes=20))
    second = token.authorization(NOW + timedelta(minutes=20))
    assert second != first
    # Answers about the first token that come in late neither sign another one, nor keep their senders from repeating.
    assert token.renew(first, NOW + timedelta(minutes=20))
    assert token.authorization(NOW + timedelta(minutes=20)) == second
