"""Each vendor's answers, as the vendor documents them, and what they must mean for us."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from delivery.channels.apns import ApnsChannel, ApnsConfig
from delivery.channels.base import Channel, Message, Outcome, Result
from delivery.channels.discord import DiscordChannel, DiscordConfig
from delivery.channels.fcm import FcmChannel, FcmConfig
from delivery.channels.onesignal import OneSignalChannel, OneSignalConfig
from delivery.channels.policy import ChannelPolicy
from delivery.channels.twilio_sms import TwilioConfig, TwilioSmsChannel

NOW = datetime(2026, 11, 21, 9, 15, tzinfo=UTC)
POLICY = ChannelPolicy()
APNS_TOKEN = "ab" * 32
WEBHOOK = "https://discord.com/api/webhooks/123456789012345678/very-secret_token"
FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"

SENT, RETRY, THROTTLED, REFUSED = Outcome.SENT, Outcome.RETRY, Outcome.THROTTLED, Outcome.REFUSED
DEAD, MISCONFIGURED, UNKNOWN = Outcome.DEAD, Outcome.MISCONFIGURED, Outcome.UNKNOWN


def pem(key: Any) -> bytes:
    data: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return data


APNS = ApnsChannel(ApnsConfig(pem(ec.generate_private_key(ec.SECP256R1())), "KEY1234567", "TEAM", "app.hub"), POLICY)
FCM = FcmChannel(
    FcmConfig(
        "project",
        "hub@project.iam.gserviceaccount.com",
        pem(rsa.generate_private_key(public_exponent=65537, key_size=2048)),
        "https://fcm.invalid",
        "https://oauth.invalid/token",
        "https://oauth.invalid/token",
    ),
    POLICY,
)
SMS = TwilioSmsChannel(TwilioConfig("AC1", "secret", "+14155550100", "https://twilio.invalid"), POLICY)
DISCORD = DiscordChannel(DiscordConfig("https://discord.invalid", "bot-secret"), POLICY)
ONESIGNAL = OneSignalChannel(OneSignalConfig("app", "key", "https://onesignal.invalid"), POLICY)


def message(address: str, **changes: Any) -> Message:
    values: dict[str, Any] = {
        "key": "0123456789abcdef01234567",
        "address": address,
        "title": "BUY RELIANCE",
        "body": "5 at 2,945.50",
        "data": {"symbol": "RELIANCE"},
        "critical": False,
        "expires_at": NOW + timedelta(minutes=5),
    }
    return Message(**(values | changes))


def classify(
    channel: Channel, address: str, status: int, answer: Any = None, headers: Mapping[str, str] | None = None, **of: Any
) -> Result:
    body = answer if isinstance(answer, bytes) else b"" if answer is None else json.dumps(answer).encode()
    return channel.classify(status, headers or {}, body, message(address, **of))


def fcm_error(status: str, code: str = "", field: str = "") -> dict[str, Any]:
    details: list[dict[str, Any]] = [{"@type": FCM_ERROR, "errorCode": code}] if code else []
    if field:
        details.append({"@type": BAD_REQUEST, "fieldViolations": [{"field": field, "description": "Invalid"}]})
    return {"error": {"status": status, "message": "Said by Google", "details": details}}


@pytest.mark.parametrize(
    ("status", "reason", "outcome"),
    [
        (410, "Unregistered", DEAD),
        (410, "ExpiredToken", DEAD),
        (400, "BadDeviceToken", DEAD),
        (400, "DeviceTokenNotForTopic", DEAD),
        (400, "BadCollapseId", REFUSED),
        (400, "BadExpirationDate", REFUSED),
        (400, "BadMessageId", REFUSED),
        (400, "BadPriority", REFUSED),
        (400, "BadTopic", REFUSED),
        (400, "InvalidPushType", REFUSED),
        (400, "MissingTopic", REFUSED),
        (400, "PayloadEmpty", REFUSED),
        (404, "BadPath", REFUSED),
        (405, "MethodNotAllowed", REFUSED),
        (413, "PayloadTooLarge", REFUSED),
        (400, "TopicDisallowed", MISCONFIGURED),
        (403, "BadCertificate", MISCONFIGURED),
        (403, "BadCertificateEnvironment", MISCONFIGURED),
        (403, "Forbidden", MISCONFIGURED),
        (403, "InvalidProviderToken", MISCONFIGURED),
        (403, "MissingProviderToken", MISCONFIGURED),
        (403, "BadEnvironmentKeyInToken", MISCONFIGURED),
        (403, "BadEnvironmentKeyIdInToken", MISCONFIGURED),
        (403, "ExpiredProviderToken", MISCONFIGURED),
        (403, "SomethingNew", MISCONFIGURED),
        (403, "UnrelatedKeyIdInToken", RETRY),
        (429, "TooManyProviderTokenUpdates", THROTTLED),
        (429, "TooManyRequests", THROTTLED),
        (400, "IdleTimeout", RETRY),
        (503, "Shutdown", RETRY),
        (500, "InternalServerError", RETRY),
        (503, "ServiceUnavailable", RETRY),
        (418, "SomethingNew", REFUSED),
    ],
)
def test_apns_reason(status: int, reason: str, outcome: Outcome) -> None:
    result = classify(APNS, APNS_TOKEN, status, {"reason": reason})
    assert (result.outcome, result.code) == (outcome, reason)


@pytest.mark.parametrize(
    ("registered", "outcome"), [(timedelta(hours=-1), DEAD), (timedelta(hours=1), RETRY), (None, DEAD)]
)
def test_apns_gives_a_token_up_only_if_it_was_registered_before_apple_dropped_it(
    registered: timedelta | None, outcome: Outcome
) -> None:
    dropped_ms = int(NOW.timestamp() * 1000)
    updated_at = None if registered is None else NOW + registered
    answer = {"reason": "Unregistered", "timestamp": dropped_ms}
    assert classify(APNS, APNS_TOKEN, 410, answer, endpoint_updated_at=updated_at).outcome is outcome


def test_apns_throttling_is_about_one_device() -> None:
    assert classify(APNS, APNS_TOKEN, 429, {"reason": "TooManyRequests"}).extra == {"throttled": "endpoint"}


@pytest.mark.parametrize(
    ("status", "answer", "outcome", "code"),
    [
        (404, fcm_error("NOT_FOUND", "UNREGISTERED"), DEAD, "UNREGISTERED"),
        (404, fcm_error("NOT_FOUND"), MISCONFIGURED, "NOT_FOUND"),
        (404, b"<html>", MISCONFIGURED, "http_404"),
        (400, fcm_error("INVALID_ARGUMENT", "INVALID_ARGUMENT"), DEAD, "INVALID_ARGUMENT"),
        (400, fcm_error("INVALID_ARGUMENT", "INVALID_ARGUMENT", "message.token"), DEAD, "INVALID_ARGUMENT"),
        (400, fcm_error("INVALID_ARGUMENT", "INVALID_ARGUMENT", "message.data"), REFUSED, "INVALID_ARGUMENT"),
        (400, fcm_error("INVALID_ARGUMENT", "", "message.android.ttl"), REFUSED, "INVALID_ARGUMENT"),
        (400, fcm_error("INVALID_ARGUMENT"), REFUSED, "INVALID_ARGUMENT"),
        (403, fcm_error("PERMISSION_DENIED", "SENDER_ID_MISMATCH"), DEAD, "SENDER_ID_MISMATCH"),
        (403, fcm_error("PERMISSION_DENIED"), MISCONFIGURED, "PERMISSION_DENIED"),
        (401, fcm_error("UNAUTHENTICATED"), MISCONFIGURED, "UNAUTHENTICATED"),
        (401, fcm_error("UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"), MISCONFIGURED, "THIRD_PARTY_AUTH_ERROR"),
        (429, fcm_error("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"), THROTTLED, "QUOTA_EXCEEDED"),
        (503, fcm_error("UNAVAILABLE", "UNAVAILABLE"), RETRY, "UNAVAILABLE"),
        (500, fcm_error("INTERNAL", "INTERNAL"), RETRY, "INTERNAL"),
        (502, b"<html>Bad gateway</html>", RETRY, "http_502"),
    ],
)
def test_fcm_error(status: int, answer: Any, outcome: Outcome, code: str) -> None:
    result = classify(FCM, "token", status, answer)
    assert (result.outcome, result.code) == (outcome, code)


@pytest.mark.parametrize(("headers", "wait"), [({}, 60.0), ({"retry-after": "7"}, 7.0)])
def test_fcm_quota_waits_as_asked_or_a_minute(headers: Mapping[str, str], wait: float) -> None:
    answer = fcm_error("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
    assert classify(FCM, "token", 429, answer, headers).retry_after_seconds == wait


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        (401, 20003, MISCONFIGURED),
        (403, 20403, MISCONFIGURED),
        (400, 10001, MISCONFIGURED),
        (400, 21606, MISCONFIGURED),
        (400, 21212, MISCONFIGURED),
        (400, 21608, MISCONFIGURED),
        (429, 20429, THROTTLED),
        (400, 21211, DEAD),
        (400, 21614, DEAD),
        (400, 21610, DEAD),
        (400, 21408, REFUSED),
        (400, 21612, REFUSED),
        (400, 90007, REFUSED),
        (400, 21999, REFUSED),
        (500, 20500, UNKNOWN),
    ],
)
def test_twilio_code(status: int, code: int, outcome: Outcome) -> None:
    result = classify(SMS, "+919812345678", status, {"code": code, "message": "Said by Twilio", "status": status})
    assert (result.outcome, result.code) == (outcome, str(code))


@pytest.mark.parametrize("status", [500, 502, 503])
def test_twilio_in_trouble_may_have_sent_the_sms(status: int) -> None:
    assert classify(SMS, "+919812345678", status, b"<html>").outcome is UNKNOWN


@pytest.mark.parametrize(
    ("status", "code", "webhook", "direct"),
    [
        (404, 10015, DEAD, DEAD),
        (401, 50027, DEAD, DEAD),
        (404, 10003, DEAD, DEAD),
        (404, 10013, DEAD, DEAD),
        (400, 50033, DEAD, DEAD),
        (403, 50007, DEAD, DEAD),
        (403, 50278, DEAD, DEAD),
        (403, 50001, REFUSED, REFUSED),
        (403, 50013, REFUSED, REFUSED),
        (401, 0, MISCONFIGURED, MISCONFIGURED),
        (401, 40001, MISCONFIGURED, MISCONFIGURED),
        (401, 50014, MISCONFIGURED, MISCONFIGURED),
        (403, 40333, MISCONFIGURED, MISCONFIGURED),
        (400, 50035, REFUSED, REFUSED),
        (400, 50006, REFUSED, REFUSED),
        (400, 50109, REFUSED, REFUSED),
        (400, 200000, REFUSED, REFUSED),
        (400, 240000, REFUSED, REFUSED),
        (400, 0, REFUSED, REFUSED),
        (429, 20016, THROTTLED, THROTTLED),
        (400, 20028, THROTTLED, THROTTLED),
        (400, 20029, THROTTLED, THROTTLED),
        (400, 40003, THROTTLED, THROTTLED),
        (400, 40062, THROTTLED, THROTTLED),
        (429, 0, THROTTLED, THROTTLED),
        (400, 40004, UNKNOWN, RETRY),
        (503, 130000, UNKNOWN, RETRY),
        (502, 0, UNKNOWN, RETRY),
    ],
)
def test_discord_code(status: int, code: int, webhook: Outcome, direct: Outcome) -> None:
    answer = {"code": code, "message": "Said by Discord"}
    assert classify(DISCORD, WEBHOOK, status, answer).outcome is webhook
    assert classify(DISCORD, "123456789012345678", status, answer).outcome is direct


def test_discord_waits_for_the_seconds_of_the_body() -> None:
    answer = {"message": "You are being rate limited.", "retry_after": 0.35, "global": False}
    result = classify(DISCORD, WEBHOOK, 429, answer, {"retry-after": "1"})
    assert (result.retry_after_seconds, result.extra) == (0.35, {"throttled": "endpoint"})


def test_discord_global_limit_stops_the_channel() -> None:
    result = classify(DISCORD, WEBHOOK, 429, {"retry_after": 2.0, "global": True})
    assert (result.retry_after_seconds, result.extra) == (2.0, {"throttled": "channel"})


SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"


@pytest.mark.parametrize(
    ("status", "answer", "outcome"),
    [
        (200, {"id": "n-1"}, SENT),
        (200, {"id": "", "errors": ["All included players are not subscribed"]}, DEAD),
        (200, {"id": "", "errors": {"invalid_player_ids": [SUBSCRIPTION]}}, DEAD),
        (200, {"id": "n-1", "errors": {"invalid_player_ids": [SUBSCRIPTION]}}, DEAD),
        (200, {"id": "n-1", "errors": {"invalid_aliases": {"external_id": ["x"]}}}, SENT),
        (200, b"<html>", UNKNOWN),
        (400, {"errors": ["Message Notifications must have English language content"]}, REFUSED),
        (404, {"errors": ["Not found"]}, REFUSED),
        (401, {"errors": ["Access denied."]}, MISCONFIGURED),
        (403, {"errors": ["Access denied."]}, MISCONFIGURED),
        (429, {"errors": ["API rate limit exceeded"], "limit": "x"}, THROTTLED),
        (503, {"errors": ["Service unavailable"]}, RETRY),
        (500, b"", RETRY),
    ],
)
def test_onesignal_answer(status: int, answer: Any, outcome: Outcome) -> None:
    assert classify(ONESIGNAL, SUBSCRIPTION, status, answer).outcome is outcome


EVERY_CHANNEL = [
    (APNS, APNS_TOKEN),
    (FCM, "fcm-token"),
    (SMS, "+919812345678"),
    (DISCORD, WEBHOOK),
    (ONESIGNAL, SUBSCRIPTION),
]
every_channel = pytest.mark.parametrize(("channel", "address"), EVERY_CHANNEL, ids=lambda x: getattr(x, "name", ""))


@every_channel
@pytest.mark.parametrize(
    "body", [b"", b"null", b"[1]", b'{"error": 3, "errors": 4, "code": "x", "reason": []}', b"\xff"]
)
@pytest.mark.parametrize("status", [200, 204, 302, 400, 401, 404, 429, 500])
def test_no_answer_is_too_strange_to_classify(channel: Channel, address: str, status: int, body: bytes) -> None:
    assert classify(channel, address, status, body).outcome in Outcome


@every_channel
def test_a_redirect_means_a_wrong_base_url(channel: Channel, address: str) -> None:
    assert classify(channel, address, 302, None, {"location": "https://elsewhere.invalid"}).outcome is MISCONFIGURED


@every_channel
def test_the_address_is_not_repeated_in_a_result(channel: Channel, address: str) -> None:
    words = f"The number {address} (token {address}) at {WEBHOOK} is not good"
    answer = {"message": words, "code": 21211, "errors": [words], "error": {"message": words, "status": "X"}}
    result = classify(channel, address, 400, answer)
    assert address not in result.message
    assert "very-secret" not in result.message
