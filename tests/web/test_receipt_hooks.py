"""The addresses where vendors post receipts: who is believed, what is answered, what is logged."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any
from urllib.parse import urlencode

import pymongo
import pytest
from bson import ObjectId
from django.test import Client

from delivery import receipts
from delivery.hooks import ONESIGNAL_MAX_BYTES, TWILIO_MAX_BYTES
from tests.pipeline.test_receipts import SID, Case

pytestmark = pytest.mark.django_db(transaction=True)

ORIGIN = "https://alerts.example.com"
TOKEN = "twilio-auth-token-0123456789"
HOOK_TOKEN = "hook-token-0123456789"
PHONE = "+4915112345678"
HOSTS = ["alerts.example.com", "10.1.2.3", "testserver"]


@pytest.fixture(autouse=True)
def hooks_on(settings: Any, vendors: Any) -> None:
    settings.PUBLIC_BASE_URL = ORIGIN
    settings.TWILIO_AUTH_TOKEN = TOKEN
    settings.ONESIGNAL_HOOK_TOKEN = HOOK_TOKEN
    settings.ALLOWED_HOSTS = HOSTS


@pytest.fixture
def client() -> Client:
    return Client(enforce_csrf_checks=True)


def form(status: str = "delivered", **fields: str) -> dict[str, str]:
    return {"MessageSid": SID, "MessageStatus": status, "To": PHONE, "AccountSid": "AC1", **fields}


def sign(url: str, fields: dict[str, str], token: str = TOKEN) -> str:
    signed = url + "".join(name + fields[name] for name in sorted(fields))
    return base64.b64encode(hmac.new(token.encode(), signed.encode(), hashlib.sha1).digest()).decode()


def callback(client: Client, path: str, fields: dict[str, str], signature: str | None = None, **headers: Any) -> Any:
    """A status callback as Twilio posts it; signed over our public address unless another signature is given."""
    given = sign(ORIGIN + path, fields) if signature is None else signature
    return client.post(
        path,
        urlencode(fields),
        content_type="application/x-www-form-urlencoded; charset=UTF-8",
        headers={"X-Twilio-Signature": given, **headers},
    )


def path_of(case: Case) -> str:
    return f"/hooks/twilio/{case.reference}/"


def sent_sms() -> Case:
    case = Case()
    case.record(case.sent_patch())
    return case


# --- Twilio ----------------------------------------------------------------------------------------------------------
def test_signed_callback_turns_sent_into_delivered(client: Client) -> None:
    case = sent_sms()
    answer = callback(client, path_of(case), form())
    assert (answer.status_code, answer.content) == (204, b"")
    assert case.delivery["state"] == "delivered"


def test_signed_callback_turns_sent_into_failed_with_its_reason(client: Client) -> None:
    case = sent_sms()
    assert callback(client, path_of(case), form("undelivered", ErrorCode="30007")).status_code == 204
    assert (case.delivery["state"], case.delivery["error_code"]) == ("failed", "30007")
    assert case.delivery["error_message"] == "The carrier filtered the message"


@pytest.mark.parametrize("signature", ["", "forged", sign(ORIGIN, form())])
def test_callback_without_the_right_signature_changes_nothing(
    client: Client, signature: str, caplog: pytest.LogCaptureFixture
) -> None:
    case = sent_sms()
    before = case.row

    answer = callback(client, path_of(case), form(), signature)

    assert answer.status_code == 403
    assert case.row == before
    (line,) = [r.getMessage() for r in caplog.records if "refused" in r.getMessage()]
    assert "PUBLIC_BASE_URL" in line
    assert not any(secret in caplog.text for secret in (TOKEN, PHONE, SID, signature or TOKEN))


def test_signature_of_another_account_or_other_fields_is_refused(client: Client) -> None:
    case = sent_sms()
    url = ORIGIN + path_of(case)
    assert callback(client, path_of(case), form(), sign(url, form(), "another-token")).status_code == 403
    assert callback(client, path_of(case), form("delivered"), sign(url, form("failed"))).status_code == 403
    assert callback(client, path_of(sent_sms()), form(), sign(url, form())).status_code == 403


def test_field_with_spaces_and_an_empty_one_are_signed_as_they_are(client: Client) -> None:
    case = sent_sms()
    assert callback(client, path_of(case), form(ChannelPrefix="  x ", Empty="")).status_code == 204
    assert case.delivery["state"] == "delivered"


@pytest.mark.parametrize("signed_as", [f"{ORIGIN}:443", ORIGIN])
@pytest.mark.parametrize("origin", [ORIGIN, f"{ORIGIN}:443"])
def test_port_may_be_signed_or_not(client: Client, settings: Any, origin: str, signed_as: str) -> None:
    settings.PUBLIC_BASE_URL = origin
    case = sent_sms()
    path = path_of(case)
    assert callback(client, path, form(), sign(signed_as + path, form())).status_code == 204


@pytest.mark.parametrize(
    "headers", [{"Host": "10.1.2.3:8000"}, {"X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil.example"}]
)
def test_what_a_proxy_makes_of_the_address_does_not_matter(client: Client, headers: dict[str, str]) -> None:
    case = sent_sms()
    assert callback(client, path_of(case), form(), **headers).status_code == 204
    assert case.delivery["state"] == "delivered"


def test_query_is_part_of_what_is_signed(client: Client) -> None:
    case = sent_sms()
    path = f"{path_of(case)}?a=1&b=%20x"
    assert callback(client, path, form()).status_code == 204
    assert callback(client, f"{path}&c=3", form(), sign(ORIGIN + path, form())).status_code == 403


def test_json_callback_is_signed_through_the_query(client: Client) -> None:
    case = sent_sms()
    body = json.dumps(form()).encode()
    path = f"{path_of(case)}?bodySHA256={hashlib.sha256(body).hexdigest()}"
    headers = {"X-Twilio-Signature": sign(ORIGIN + path, {})}

    assert client.post(path, body + b" ", content_type="application/json", headers=headers).status_code == 403
    assert client.post(path, body, content_type="application/json", headers=headers).status_code == 204
    assert case.delivery["state"] == "delivered"


@pytest.mark.parametrize("path", [f"/hooks/twilio/{ObjectId()}/{ObjectId()}/{ObjectId()}/", "/hooks/twilio/x/"])
def test_callback_about_nothing_of_ours_is_not_repeated(
    client: Client, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert callback(client, path, form()).status_code == 204
    assert any("of ours" in record.getMessage() for record in caplog.records)


def test_status_that_says_nothing_is_not_repeated(client: Client) -> None:
    case = sent_sms()
    assert callback(client, path_of(case), form("receiving")).status_code == 204
    assert case.delivery["state"] == "sent"


def test_callback_that_is_too_large_is_not_read(client: Client) -> None:
    case = sent_sms()
    assert callback(client, path_of(case), form(Padding="x" * TWILIO_MAX_BYTES)).status_code == 413
    assert case.delivery["state"] == "sent"


@pytest.mark.parametrize("setting", ["PUBLIC_BASE_URL", "TWILIO_AUTH_TOKEN"])
def test_callbacks_are_off_without_their_settings(client: Client, settings: Any, setting: str) -> None:
    case = sent_sms()
    setattr(settings, setting, "")
    assert callback(client, path_of(case), form(), sign(ORIGIN + path_of(case), form(), TOKEN)).status_code == 404
    assert case.delivery["state"] == "sent"


def test_only_post_is_taken(client: Client) -> None:
    assert client.get(path_of(sent_sms())).status_code == 405
    assert client.get("/hooks/onesignal/").status_code == 405


# --- OneSignal -------------------------------------------------------------------------------------------------------
def event(case: Case | None, kind: str = "message.push.received", **changes: Any) -> dict[str, Any]:
    name = str(case.reference) if case else "weekly-promo"
    return {"event": {"kind": kind, "id": "e-1"}, "message": {"id": SID, "name": name}, **changes}


def stream(client: Client, content: Any, authorization: str = f"Bearer {HOOK_TOKEN}") -> Any:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return client.post(
        "/hooks/onesignal/", body, content_type="application/json", headers={"Authorization": authorization}
    )


def sent_push() -> Case:
    case = Case("onesignal")
    case.record(case.sent_patch())
    return case


@pytest.mark.parametrize("authorization", [f"Bearer {HOOK_TOKEN}", HOOK_TOKEN])
def test_event_turns_sent_into_delivered(client: Client, authorization: str) -> None:
    case = sent_push()
    assert stream(client, event(case), authorization).status_code == 204
    assert case.delivery["state"] == "delivered"


def test_list_of_events_is_carried_out_one_by_one(client: Client) -> None:
    first, second, third = sent_push(), sent_push(), sent_push()
    failed = event(second, "message.push.failed")
    failed["event"]["data"] = {"failure_reason": "Invalid token"}

    answer = stream(client, [event(first), failed, event(third, "message.push.sent"), event(None)])

    assert answer.status_code == 204
    assert [case.delivery["state"] for case in (first, second, third)] == ["delivered", "failed", "sent"]
    assert "Invalid token" in second.delivery["error_message"]


@pytest.mark.parametrize("authorization", ["", "Bearer ", "Bearer wrong", f"Bearer {HOOK_TOKEN}x", "Bearer ünicode"])
def test_event_without_our_header_is_refused(
    client: Client, authorization: str, caplog: pytest.LogCaptureFixture
) -> None:
    case = sent_push()
    assert stream(client, event(case), authorization).status_code == 403
    assert case.delivery["state"] == "sent"
    assert HOOK_TOKEN not in caplog.text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"", "cannot be read"),
        ("sent", "Event 0 is not an object"),
        ([event(None), 7], "Event 1 is not an object"),
        ([event(None), {"message": {}}], "Event 1: event.kind is missing"),
    ],
)
def test_event_that_cannot_be_read_is_400_and_says_why(client: Client, content: Any, words: str) -> None:
    answer = stream(client, content)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


def test_one_malformed_event_of_a_list_leaves_the_others_to_the_repeat(client: Client) -> None:
    case = sent_push()
    assert stream(client, [event(case), {}]).status_code == 400
    assert case.delivery["state"] == "sent"


@pytest.mark.parametrize("kind", ["message.iam.clicked", "message.push.something_new"])
def test_other_kinds_are_taken_and_left(client: Client, kind: str) -> None:
    case = sent_push()
    assert stream(client, event(case, kind)).status_code == 204
    assert case.delivery["state"] == "sent"


def test_event_for_another_channels_delivery_changes_nothing(client: Client) -> None:
    case = sent_sms()
    assert stream(client, event(case)).status_code == 204
    assert case.delivery["state"] == "sent"


def test_events_that_are_too_large_are_not_read(client: Client) -> None:
    assert stream(client, event(None, padding="x" * ONESIGNAL_MAX_BYTES)).status_code == 413


def test_event_stream_is_off_without_its_token(client: Client, settings: Any) -> None:
    case = sent_push()
    settings.ONESIGNAL_HOOK_TOKEN = ""
    assert stream(client, event(case), "").status_code == 404
    assert case.delivery["state"] == "sent"


# --- The database is away ---------------------------------------------------------------------------------------------
def test_vendor_is_asked_to_repeat_what_could_not_be_stored(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    sms, push = sent_sms(), sent_push()
    away: pymongo.MongoClient[Any] = pymongo.MongoClient("mongodb://127.0.0.1:1/", serverSelectionTimeoutMS=50)
    with monkeypatch.context() as patch:
        patch.setattr(receipts, "PATIENCE_SECONDS", 0.0)
        patch.setattr(receipts, "collection", lambda model: away["notifyhub"]["notifications_notification"])
        for answer in (callback(client, path_of(sms), form()), stream(client, event(push))):
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    away.close()

    assert callback(client, path_of(sms), form()).status_code == 204
    assert stream(client, event(push)).status_code == 204
    assert [sms.delivery["state"], push.delivery["state"]] == ["delivered"] * 2
    lines = [record.getMessage() for record in caplog.records if record.name in {"delivery.hooks", "django.request"}]
    assert ["repeat" in lines[0], "again" in lines[1], len(lines)] == [True, True, 2]  # An outage is told once.
