"""Support can read why a delivery failed or is unknown, whatever code stands in it."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from delivery import deliver, sending
from delivery.channels import (
    answers,
    apns,
    base,
    discord,
    fcm,
    google_token,
    onesignal,
    onesignal_receipts,
    transport,
    twilio_receipts,
    twilio_sms,
)
from delivery.channels.base import Outcome
from delivery.explanations import OAUTH, STATES, TRANSPORT, doubt, explain, known
from delivery.explanations_vendors import VENDOR_CODES, Explanation
from followers.choices import VENDOR_CHANNELS, Channel
from notifications.choices import DeliveryState, Reason

TABLES: Mapping[Channel, list[str]] = {
    Channel.APNS: [*apns.REASONS],
    Channel.FCM: [*fcm.CODES, "INVALID_ARGUMENT", "NOT_FOUND"],
    Channel.SMS: [
        *(str(code) for code in (*twilio_sms.CODES, *twilio_receipts.CODES)),
        "canceled",
        *twilio_receipts.LOST,
    ],
    Channel.DISCORD: [str(code) for code in discord.CODES],
    Channel.ONESIGNAL: [
        *onesignal.INVALID_IDS,
        "not_subscribed",
        *onesignal_receipts.CODES.values(),
        *(f"http_{s}" for s in onesignal.STATUSES),
    ],
}
MODULES = {
    Channel.APNS: apns, Channel.FCM: fcm, Channel.SMS: twilio_sms, Channel.DISCORD: discord,
    Channel.ONESIGNAL: onesignal,
}  # fmt: skip
SHARED_MODULES = (answers, base, google_token, deliver, sending)
EVERY_CHANNEL = [
    *(reason.value for reason in Reason),
    *(f"http_{status}" for status in (301, 400, 401, 403, 404, 409, 413, 418, 429, 500, 502, 503, 504)),
]


def codes() -> Iterator[tuple[Channel, str]]:
    for channel in VENDOR_CHANNELS:
        own = literal_codes(*SHARED_MODULES, MODULES[channel])
        yield from ((channel, code) for code in {*TABLES[channel], *EVERY_CHANNEL, *own, *transport_codes()})
    for code in (*transport_codes(), *(f"http_{status}" for status in (400, 401, 403, 429, 500))):
        yield Channel.FCM, f"token_{code}"
        yield Channel.DISCORD, f"dm_{code}"
    yield from ((Channel.FCM, f"token_{code}") for code in (*OAUTH, "timeout", "unauthorized_client"))


def transport_codes() -> set[str]:
    """Every text that delivery.channels.transport raises one of its errors with."""
    return set(_arguments(transport, {"NeverSentError", "NoAnswerError", "InvalidRequestError"}, position=0))


def literal_codes(*modules: ModuleType) -> set[str]:
    """Every code that is written out where a result or a refusal is made, beside those in the tables."""
    found = {code for module in modules for code in _arguments(module, {"Result", "refusal"}, position=1)}
    found |= set(_arguments(deliver, {"_failed"}, position=3))
    # What a prefix or a status is still put to is walked with its endings.
    return {code for code in found if not code.startswith(("token_", "dm_")) and not code.endswith("_")}


def _arguments(module: ModuleType, functions: set[str], position: int) -> Iterator[str]:
    for node in ast.walk(ast.parse(Path(inspect.getfile(module)).read_text())):
        if not isinstance(node, ast.Call) or getattr(node.func, "id", "") not in functions:
            continue
        named = [k.value for k in node.keywords if k.arg == "code"]
        for argument in [*node.args[position : position + 1], *named]:
            for part in ast.walk(argument):
                if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value.isidentifier():
                    yield part.value


def test_the_codes_are_really_found_in_the_sources() -> None:
    assert {"timeout", "connection_lost", "connect_error", "refused_stream", "invalid_request"} <= transport_codes()
    assert {"unreadable_answer", "invalid_address", "internal_error", "rendering_failed"} <= literal_codes(
        *SHARED_MODULES, discord
    )
    assert transport_codes() == set(TRANSPORT)


@pytest.mark.parametrize(("channel", "code"), sorted(set(codes())))
def test_every_code_has_its_own_words(channel: Channel, code: str) -> None:
    words = known(channel, code)
    assert words is not None, f"{channel}: {code} has no explanation."
    _is_readable(words)


@pytest.mark.parametrize("channel", VENDOR_CHANNELS)
def test_no_table_explains_what_no_vendor_says_in_a_way_nobody_reads(channel: Channel) -> None:
    for words in VENDOR_CODES[channel].values():
        _is_readable(words)


def _is_readable(words: Explanation) -> None:
    for text in words:
        assert text.endswith("."), text
        assert text[0].isupper(), text
        assert ".." not in text
        assert "  " not in text
        for jargon in ("HTTP", "lease", "OAuth", "payload", "token of", "4xx", "5xx", "null"):
            assert jargon not in text, text


@pytest.mark.parametrize("code", ["21999", "SOMETHING_NEW", ""])
def test_a_code_that_nobody_knows_is_explained_by_what_is_certain(code: str) -> None:
    assert known(Channel.SMS, code) is None
    words = explain(Channel.SMS, code)
    assert code in words.what
    _is_readable(words)


def test_a_code_means_what_its_own_vendor_says() -> None:
    assert "Discord" in explain(Channel.DISCORD, "20016").what
    assert known(Channel.SMS, "20016") is None


@pytest.mark.parametrize("channel", VENDOR_CHANNELS)
def test_what_a_dead_address_means_is_said(channel: Channel) -> None:
    tables: dict[Channel, Mapping[Any, tuple[Outcome, str]]] = {
        Channel.APNS: apns.REASONS, Channel.FCM: fcm.CODES, Channel.SMS: twilio_sms.CODES,
        Channel.DISCORD: discord.CODES, Channel.ONESIGNAL: {"not_subscribed": onesignal.UNSUBSCRIBED},
    }  # fmt: skip
    for code, (outcome, _) in tables[channel].items():
        said = "switched off" in explain(channel, str(code)).what
        assert said is (outcome is Outcome.DEAD), code


def test_every_state_has_words_and_a_doubt_says_whether_a_repeat_shows() -> None:
    assert set(STATES) == set(DeliveryState)
    assert "shows it once" in doubt(Channel.FCM)
    assert "second message" in doubt(Channel.SMS)
    assert "second message" in doubt(Channel.DISCORD)
