"""What must not stand in a log line does not, however it came there; what one searches for does."""

from __future__ import annotations

import json
import logging

import pytest
import structlog

from notifyhub import settings as ours
from notifyhub.masking import mask, masked

APNS = "a3f1" * 16
FCM = "dGh1c19pc19h:APA91bHPRgkFLJu6X1y2z3" + "Qw9" * 40
HOOK = "https://discord.com/api/webhooks/123456789012345678/aB3dE-fG_h1JkLmNoPqRsTuVwXyZ0123456789"
ONESIGNAL = "3f2b8c1e-5a0d-4f1b-9c77-0a1b2c3d4e5f"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"Token {APNS} is dead", APNS),
        (f"{{'invalid_player_ids': ['{ONESIGNAL}']}}", ONESIGNAL),
        (f"subscription={ONESIGNAL.upper()}", ONESIGNAL.upper()),
        (f"to {FCM}!", FCM),
        ("The number +4915112345678 is unknown", "15112345678"),
        ("POST /2010-04-01/Messages?To=%2B4915112345678", "15112345678"),
        (f"POST {HOOK} failed", "aB3dE-fG_h1JkLmNoPqRsTuVwXyZ0123456789"),
        (f"Authorization: Bearer {JWT}", JWT),
        (f"subprotocol {JWT}", "c2lnbmF0dXJl"),
        ("Authorization: Basic dXNlcjpwYXNzd29yZA==", "dXNlcjpwYXNzd29yZA=="),
        ("Authorization: Api-Key abcdEFGH.0123456789", "abcdEFGH.0123456789"),
        ("mongodb://hub:s3cr3t-pass@db1/notifyhub", "s3cr3t-pass"),
        ("GET /ws/inbox/?ticket=Zm9vYmFyMTIz", "Zm9vYmFyMTIz"),
        ('{"access_token": "ya29.a0AfH6SMBx"}', "ya29.a0AfH6SMBx"),
    ],
)
def test_a_secret_is_never_whole(text: str, secret: str) -> None:
    assert secret not in masked(text)
    assert masked(masked(text)) == masked(text)


@pytest.mark.parametrize(
    "text",
    [
        "6b056d98cea1462776fac4f2",
        "de4eaa358271490ba92c905fcaafb839",
        "2026-11-24T10:57:28.257531+00:00",
        "delivery.channels.onesignal_receipts.a_function_with_a_very_long_name_indeed_it_has",
        "https://api.push.apple.com:443/3/device",
        "RELIANCE +50 @ 2945.50",
    ],
)
def test_what_one_searches_for_stays(text: str) -> None:
    assert masked(text) == text


def line(record: logging.LogRecord) -> dict[str, object]:
    options = dict(ours.LOGGING["formatters"]["json"])
    formatter = options.pop("()")(**options)
    return dict(json.loads(formatter.format(record)))


def record_of(message: str, *args: object, exc_info: object = None) -> logging.LogRecord:
    return logging.LogRecord("somebody", logging.ERROR, __file__, 1, message, args, exc_info)  # type: ignore[arg-type]


def test_lines_of_libraries_and_their_exceptions_are_masked_too() -> None:
    try:
        raise ValueError(f"No such device: {APNS}")
    except ValueError as error:
        said = line(record_of("Sending to %s failed", "+4915112345678", exc_info=(type(error), error, None)))

    assert said["message"] == "Sending to +49…78 failed"
    assert "No such device: a3f1…f1" in str(said["exception"])


def test_a_uuid_stays_whole_where_it_names_the_trade() -> None:
    event = {"event": f"Subscription {ONESIGNAL} is gone.", "correlation_id": ONESIGNAL, "event_id": ONESIGNAL}

    said = mask(None, "info", event)

    assert said == {**event, "event": "Subscription 3f2b8c1e…4e5f is gone."}


def test_fields_that_are_secrets_by_name_are_hidden_whatever_they_look_like() -> None:
    with structlog.testing.capture_logs():
        event = {"token": "short", "headers": {"Authorization": "x", "Accept": "json"}, "to": ["+4915112345678"]}
    structured = logging.LogRecord("ours", logging.INFO, __file__, 1, {"event": "Sent.", **event}, (), None)  # type: ignore[arg-type]
    structured._logger, structured._name = None, "info"  # type: ignore[attr-defined]

    said = line(structured)

    assert (said["token"], said["headers"], said["to"]) == ("…", {"Authorization": "…", "Accept": "json"}, ["+49…78"])


def test_a_correlation_id_is_kept_whatever_it_looks_like() -> None:
    structlog.contextvars.bind_contextvars(correlation_id=APNS)
    try:
        said = line(record_of("Hello"))
    finally:
        structlog.contextvars.clear_contextvars()
    assert said["correlation_id"] == APNS
