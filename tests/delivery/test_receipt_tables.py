"""What vendors' receipts mean for us, and which of Twilio's are genuine."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urldefrag

import pytest
from bson import ObjectId

from delivery.channels import onesignal_receipts, twilio_receipts
from delivery.channels.base import Channel, Message, Outcome
from delivery.channels.onesignal import OneSignalChannel, OneSignalConfig
from delivery.channels.policy import ChannelPolicy
from delivery.channels.receipts import Reference, parse_reference
from delivery.channels.twilio_receipts import is_genuine
from delivery.channels.twilio_sms import TwilioConfig, TwilioSmsChannel

SENT, DELIVERED, REFUSED = Outcome.SENT, Outcome.DELIVERED, Outcome.REFUSED
RETRY, DEAD, MISCONFIGURED = Outcome.RETRY, Outcome.DEAD, Outcome.MISCONFIGURED
NOW = datetime(2026, 11, 21, 9, 15, tzinfo=UTC)
POLICY = ChannelPolicy()
REFERENCE = Reference(ObjectId(), ObjectId(), ObjectId())

# --- Signatures: the example of Twilio's documentation, and the vectors of its own libraries' tests -------------------
TOKEN = "12345"
URL = "https://mycompany.com/myapp.php?foo=1&bar=2"
WITH_PORT = URL.replace(".com", ".com:1234")
FORM = {
    "CallSid": ["CA1234567890ABCDE"],
    "Caller": ["+14158675309"],
    "Digits": ["1234"],
    "From": ["+14158675309"],
    "To": ["+18005551212"],
}
SIGNATURE = "RSOYDt4T1cUTdK1PDd93/VVr8B8="
BODY = b'{"property": "value", "boolean": true}'
BODY_URL = f"{URL}&bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620"
BODY_SIGNATURE = "a9nBmqA0ju/hNViExpshrM61xv4="


@pytest.mark.parametrize(
    ("signature", "url", "form"),
    [
        (SIGNATURE, URL, FORM),
        (SIGNATURE, WITH_PORT, FORM),  # Signed without the port that the address has.
        ("kvajT1Ptam85bY51eRf/AJRuM3w=", URL, FORM),  # Signed with :443.
        ("0ZXoZLH/DfblKGATFgpif+LLRf4=", URL.replace("https", "http"), FORM),  # Signed with :80.
        ("Zmvh+3yNM1Phv2jhDCwEM3q5ebU=", WITH_PORT.replace("https", "http"), FORM),
        (
            "IK+Dwps556ElfBT0I3Rgjkr1wJU=",
            URL,
            {"Sid": ["CA123"], "SidAccount": ["AC123"], "Digits": ["5678", "1234", "1234"]},
        ),
    ],
)
def test_twilios_own_signatures_are_genuine(signature: str, url: str, form: Any) -> None:
    assert is_genuine(signature, TOKEN, url, form, b"")


@pytest.mark.parametrize(
    ("signature", "token", "url", "form"),
    [
        ("", TOKEN, URL, FORM),
        ("FAIL", TOKEN, URL, FORM),
        ("Ünicode=", TOKEN, URL, FORM),
        (SIGNATURE, "12346", URL, FORM),
        (SIGNATURE, TOKEN, URL + "&x=1", FORM),
        (SIGNATURE, TOKEN, URL.replace("https", "http"), FORM),
        (SIGNATURE, TOKEN, URL, {**FORM, "Digits": ["1234 "]}),
        (SIGNATURE, TOKEN, URL, {**FORM, "Digits": ["12345"]}),
        (SIGNATURE, TOKEN, URL, {**FORM, "Empty": [""]}),
        (SIGNATURE, TOKEN, URL, {name: value for name, value in FORM.items() if name != "To"}),
    ],
)
def test_anything_else_is_not(signature: str, token: str, url: str, form: Any) -> None:
    assert not is_genuine(signature, token, url, form, b"")


def test_json_body_is_signed_through_its_digest_in_the_query() -> None:
    assert is_genuine(BODY_SIGNATURE, TOKEN, BODY_URL, {}, BODY)
    assert not is_genuine(BODY_SIGNATURE, TOKEN, BODY_URL, {}, BODY + b" ")
    assert not is_genuine(SIGNATURE, TOKEN, URL, {}, BODY)


# --- Twilio ----------------------------------------------------------------------------------------------------------
def twilio(**fields: str) -> Any:
    return twilio_receipts.receipt({"MessageSid": ["SM1"], **{name: [value] for name, value in fields.items()}})


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        ("accepted", "", SENT),
        ("scheduled", "", SENT),
        ("queued", "", SENT),
        ("sending", "", SENT),
        ("sent", "", SENT),
        ("delivered", "", DELIVERED),
        ("read", "", DELIVERED),
        ("canceled", "", REFUSED),
        ("undelivered", "30001", RETRY),
        ("undelivered", "30003", RETRY),
        ("failed", "30008", RETRY),
        ("undelivered", "30500", RETRY),
        ("undelivered", "30005", DEAD),
        ("failed", "30006", DEAD),
        ("undelivered", "30004", REFUSED),
        ("undelivered", "30007", REFUSED),
        ("failed", "30036", REFUSED),
        ("failed", "30002", MISCONFIGURED),
        ("failed", "21610", DEAD),  # A messaging service tells later what a number refuses at once.
        ("failed", "20429", RETRY),
        ("failed", "39999", REFUSED),  # Twilio keeps splitting its codes.
        ("failed", "", REFUSED),
        ("failed", "many", REFUSED),
    ],
)
def test_twilio_status(status: str, code: str, outcome: Outcome) -> None:
    receipt = twilio(MessageStatus=status, **({"ErrorCode": code} if code else {}))

    assert (receipt.outcome, receipt.status, receipt.provider_message_id) == (outcome, status, "SM1")
    lost = outcome not in {SENT, DELIVERED}
    assert bool(receipt.message) == bool(receipt.code) == lost
    if code.isdigit():
        assert receipt.code == code


@pytest.mark.parametrize("status", ["receiving", "received", "", "partially_delivered"])
def test_twilio_status_that_says_nothing_of_a_message_of_ours(status: str) -> None:
    assert twilio(MessageStatus=status) is None


def test_twilios_older_names_are_read_too() -> None:
    receipt = twilio_receipts.receipt({"SmsSid": ["SM2"], "SmsStatus": ["delivered"]})
    assert receipt is not None
    assert (receipt.outcome, receipt.provider_message_id) == (DELIVERED, "SM2")


# --- OneSignal -------------------------------------------------------------------------------------------------------
def event(kind: str, reason: str = "", name: str = str(REFERENCE)) -> dict[str, Any]:
    return {
        "event": {"kind": kind, "id": "e-1", "data": {"failure_reason": reason}},
        "message": {"id": "m-1", "name": name},
    }


@pytest.mark.parametrize(
    ("kind", "outcome", "code"),
    [
        ("message.push.sent", SENT, ""),
        ("message.push.received", DELIVERED, ""),
        ("message.push.clicked", DELIVERED, ""),
        ("message.push.failed", REFUSED, "push_failed"),
        ("message.push.unsubscribed", DEAD, "unsubscribed"),
    ],
)
def test_onesignal_event(kind: str, outcome: Outcome, code: str) -> None:
    receipt = onesignal_receipts.receipt(event(kind))

    assert receipt is not None
    assert (receipt.outcome, receipt.code, receipt.provider_message_id) == (outcome, code, "m-1")
    assert onesignal_receipts.reference(event(kind)) == REFERENCE


def test_onesignals_reason_is_kept_without_addresses() -> None:
    token = "fcm-token-" + "0123456789abcdef" * 4
    receipt = onesignal_receipts.receipt(event("message.push.failed", f"Invalid token {token}"))
    assert receipt is not None
    assert "Invalid token" in receipt.message
    assert token not in receipt.message


def test_onesignal_event_in_the_flat_form_of_its_own_examples() -> None:
    flat = {"event.kind": "message.push.received", "message.id": "m-2", "message.name": str(REFERENCE)}
    receipt = onesignal_receipts.receipt(flat)
    assert receipt is not None
    assert (receipt.outcome, receipt.provider_message_id) == (DELIVERED, "m-2")
    assert onesignal_receipts.reference(flat) == REFERENCE


@pytest.mark.parametrize("kind", ["message.iam.clicked", "message.email.sent", "message.push.something_new"])
def test_other_events_of_onesignal_say_nothing(kind: str) -> None:
    assert onesignal_receipts.receipt(event(kind)) is None


@pytest.mark.parametrize("malformed", [{}, {"event": "sent"}, {"event": {"kind": 7}}, {"event": {"kind": ["x"]}}])
def test_event_without_a_kind_is_an_error_that_names_it(malformed: Any) -> None:
    with pytest.raises(onesignal_receipts.EventError, match=r"event\.kind"):
        onesignal_receipts.receipt(malformed)


# --- What is sent so that receipts find us ---------------------------------------------------------------------------
def requested(channel: Channel, reference: str) -> bytes:
    soon = NOW + timedelta(minutes=5)
    message = Message("0" * 24, "+14155550100", "Title", "Body", {}, False, soon, reference=reference)
    return channel.request(message, NOW).body


def sms_channel(origin: str) -> TwilioSmsChannel:
    return TwilioSmsChannel(TwilioConfig("AC1", "secret", "+14155550101", "https://twilio.invalid", origin), POLICY)


def test_twilio_is_given_an_address_with_our_ids_and_asked_to_repeat_itself() -> None:
    form = parse_qs(requested(sms_channel("https://alerts.example.com"), str(REFERENCE)).decode())
    (callback,) = form["StatusCallback"]
    address, fragment = urldefrag(callback)
    assert address == f"https://alerts.example.com/hooks/twilio/{REFERENCE}/"
    assert fragment == "rc=5&rp=ct,rt,5xx"


def test_twilio_is_asked_for_nothing_without_a_public_address() -> None:
    assert b"StatusCallback" not in requested(sms_channel(""), str(REFERENCE))


def test_onesignal_is_given_our_ids_as_the_messages_name() -> None:
    channel = OneSignalChannel(OneSignalConfig("app", "key", "https://onesignal.invalid"), POLICY)
    assert json.loads(requested(channel, str(REFERENCE)))["name"] == str(REFERENCE)


# --- References ------------------------------------------------------------------------------------------------------
def test_reference_is_read_as_it_was_given_out() -> None:
    assert parse_reference(str(REFERENCE)) == REFERENCE
    assert len(json.dumps(str(REFERENCE))) < 80


@pytest.mark.parametrize("text", ["", "a/b/c", "weekly-promo", str(ObjectId()), "/".join(["0" * 23 + "z"] * 3), "//"])
def test_anything_else_is_no_reference(text: str) -> None:
    assert parse_reference(text) is None
