"""The sandbox vendors: they speak and refuse as the vendors do, misbehave on demand and count what is seen twice."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import h2.connection
import h2.events
import h2.settings
import jwt
import pytest
from pyreqwest.client import ClientBuilder, SyncClient, SyncClientBuilder
from pyreqwest.exceptions import PyreqwestError

from devstack.ports import VENDOR_PORTS, Ports
from devstack.vendors.client import Sandbox, SandboxError
from devstack.vendors.process import VendorProcess

DEVICE = "ab" * 32
PHONE = "+919876543210"
USER = "175928847299117063"
WEBHOOK = "223704706495545344/3d89bb7572e0fb30d8128367b3b1b44fecd1726de135cbe28a41f8b2f777c372"
APNS_PAYLOAD = {"aps": {"alert": {"title": "Buy", "body": "5 RELIANCE"}}, "event": "E-1"}
BOT_AGENT = "DiscordBot (https://example.com, 1.0)"


@pytest.fixture(scope="module")
def vendors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VendorProcess]:
    with VendorProcess(tmp_path_factory.mktemp("vendors")) as running:
        yield running


@pytest.fixture
def sandbox(vendors: VendorProcess) -> Iterator[Sandbox]:
    yield vendors.sandbox
    for name in ("apns", "fcm", "twilio", "discord", "onesignal"):
        vendors.sandbox.behave_well(name)
    vendors.sandbox.reset()


class Answer:
    """A response read to its end."""

    def __init__(self, response: Any) -> None:
        self.status: int = response.status
        self.headers: dict[str, str] = {name.lower(): value for name, value in response.headers.items()}
        self.text: str = response.text()

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Caller:
    """A client of all vendors that sends what the test says, right or wrong."""

    def __init__(self, env: dict[str, str]) -> None:
        self.env = env
        self.http: SyncClient = SyncClientBuilder().build()
        self.http2 = self.fresh_http2()
        self.provider_token = self.sign_provider_token()
        self._fcm_token = ""

    def fresh_http2(self) -> SyncClient:
        """A client with a connection of its own to APNs."""
        authority = Path(self.env["APNS_CA_FILE"]).read_bytes()
        return SyncClientBuilder().add_root_certificate_pem(authority).http2(True).build()

    def close(self) -> None:
        self.http.close()
        self.http2.close()

    def post(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        client = self.http2 if url.startswith("https") else self.http
        return Answer(client.post(url).headers(headers).body_bytes(body).build().send())

    def post_json(self, url: str, headers: dict[str, str], content: Any) -> Answer:
        return self.post(url, {"content-type": "application/json", **headers}, json.dumps(content).encode())

    # APNs

    def sign_provider_token(self, **claims: Any) -> str:
        key = Path(self.env["APNS_KEY_FILE"]).read_text()
        content = {"iss": self.env["APNS_TEAM_ID"], "iat": int(time.time()), **claims}
        return jwt.encode(content, key, algorithm="ES256", headers={"kid": self.env["APNS_KEY_ID"]})

    def apns(self, headers: dict[str, str] | None = None, payload: Any = None, device: str = DEVICE) -> Answer:
        usual = {
            "authorization": f"bearer {self.provider_token}",
            "apns-topic": self.env["APNS_TOPIC"],
            "apns-push-type": "alert",
        }
        sent = {name: value for name, value in {**usual, **(headers or {})}.items() if value}
        body = json.dumps(APNS_PAYLOAD if payload is None else payload).encode()
        return self.post(f"{self.env['APNS_BASE_URL']}/3/device/{device}", sent, body)

    # FCM

    def oauth(self, **changes: Any) -> Answer:
        account = json.loads(Path(self.env["FCM_CREDENTIALS_FILE"]).read_text())
        moment = int(time.time())
        key = changes.pop("key", account["private_key"])
        claims = {
            "iss": account["client_email"],
            "scope": "https://www.googleapis.com/auth/firebase.messaging",
            "aud": account["token_uri"],
            "iat": moment,
            "exp": moment + 3600,
            **changes,
        }
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion": jwt.encode(claims, key, algorithm="RS256"),
        }
        return Answer(self.http.post(self.env["FCM_TOKEN_URL"]).form(form).build().send())

    def fcm(self, message: dict[str, Any], token: str | None = None) -> Answer:
        if token is None:
            self._fcm_token = token = self._fcm_token or self.oauth().json["access_token"]
        project = json.loads(Path(self.env["FCM_CREDENTIALS_FILE"]).read_text())["project_id"]
        url = f"{self.env['FCM_BASE_URL']}/v1/projects/{project}/messages:send"
        return self.post_json(url, {"authorization": f"Bearer {token}"}, {"message": message})

    # Twilio

    def sms(self, password: str | None = None, **changes: str) -> Answer:
        sid = self.env["TWILIO_ACCOUNT_SID"]
        form = {"To": PHONE, "From": self.env["TWILIO_FROM"], "Body": "Buy 5 RELIANCE", **changes}
        request = self.http.post(f"{self.env['TWILIO_BASE_URL']}/2010-04-01/Accounts/{sid}/Messages.json")
        request = request.basic_auth(sid, password or self.env["TWILIO_AUTH_TOKEN"])
        return Answer(request.form({name: value for name, value in form.items() if value}).build().send())

    # Discord

    def webhook(self, content: Any, query: str = "?wait=true") -> Answer:
        url = f"{self.env['DISCORD_BASE_URL']}/api/v10/webhooks/{WEBHOOK}{query}"
        return self.post_json(url, {}, content)

    def bot(self, path: str, content: Any, **headers: str) -> Answer:
        usual = {"authorization": f"Bot {self.env['DISCORD_BOT_TOKEN']}", "user-agent": BOT_AGENT}
        return self.post_json(f"{self.env['DISCORD_BASE_URL']}/api/v10{path}", {**usual, **headers}, content)

    def direct_message(self, content: str, **fields: Any) -> Answer:
        channel = self.bot("/users/@me/channels", {"recipient_id": USER}).json["id"]
        return self.bot(f"/channels/{channel}/messages", {"content": content, **fields})

    # OneSignal

    def onesignal(self, authorization: str | None = None, **changes: Any) -> Answer:
        content = {
            "app_id": self.env["ONESIGNAL_APP_ID"],
            "include_subscription_ids": ["1dd608f2-c6a1-11e3-851d-000c2940e62c"],
            "contents": {"en": "Buy 5 RELIANCE"},
            **changes,
        }
        content = {name: value for name, value in content.items() if value is not None}
        key = authorization or f"Key {self.env['ONESIGNAL_API_KEY']}"
        return self.post_json(f"{self.env['ONESIGNAL_BASE_URL']}/notifications", {"authorization": key}, content)


@pytest.fixture(scope="module")
def caller(vendors: VendorProcess) -> Iterator[Caller]:
    made = Caller(vendors.env)
    yield made
    made.close()


# APNs


def test_no_vendor_takes_a_port_that_a_server_may_have_claimed_and_not_bound_yet(
    vendors: VendorProcess, tmp_path: Path
) -> None:
    addresses = {value for value in vendors.env.values() if value.startswith(("http://127", "https://127"))}
    theirs = {urlsplit(address).port for address in addresses}
    ports = Ports(["mongodb", "kafka"], tmp_path / "ports.json")
    try:
        assert theirs
        assert theirs <= set(VENDOR_PORTS)
        assert not {ports["mongodb"], ports["kafka"]} & set(VENDOR_PORTS)
    finally:
        ports.release()


def test_apns_accepts_an_alert_and_records_it(caller: Caller, sandbox: Sandbox) -> None:
    identity = str(uuid4())
    expires_at = str(int(time.time()) + 300)

    answer = caller.apns({"apns-id": identity, "apns-expiration": expires_at, "apns-collapse-id": "N-1"})

    assert (answer.status, answer.text) == (200, "")
    assert answer.headers["apns-id"] == identity
    [recorded] = sandbox.accepted("apns", DEVICE)
    assert recorded["body"] == APNS_PAYLOAD
    assert recorded["key"] == "N-1"
    assert recorded["headers"]["apns-expiration"] == expires_at
    assert "authorization" not in recorded["headers"]


@pytest.mark.parametrize(
    ("headers", "payload", "status", "reason"),
    [
        ({"authorization": ""}, None, 403, "MissingProviderToken"),
        ({"authorization": "bearer not-a-token"}, None, 403, "InvalidProviderToken"),
        ({"apns-topic": ""}, None, 400, "MissingTopic"),
        ({"apns-topic": "com.example.other"}, None, 400, "TopicDisallowed"),
        ({"apns-push-type": "shout"}, None, 400, "InvalidPushType"),
        ({"apns-push-type": "background"}, None, 400, "BadPriority"),
        ({"apns-push-type": "background", "apns-priority": "5"}, None, 400, "InvalidPushType"),
        ({"apns-priority": "7"}, None, 400, "BadPriority"),
        ({"apns-expiration": "2026-11-21T00:00:00Z"}, None, 400, "BadExpirationDate"),
        ({"apns-collapse-id": "x" * 65}, None, 400, "BadCollapseId"),
        ({"apns-id": "no-uuid"}, None, 400, "BadMessageId"),
        ({}, {"event": "E-1"}, 400, "PayloadEmpty"),
        ({}, {"aps": {"alert": "x" * 4097}}, 413, "PayloadTooLarge"),
    ],
)
def test_apns_refuses(
    caller: Caller, sandbox: Sandbox, headers: dict[str, str], payload: Any, status: int, reason: str
) -> None:
    answer = caller.apns(headers, payload)

    assert (answer.status, answer.json) == (status, {"reason": reason})
    assert sandbox.stats("apns")["refused"] == {reason: 1}
    assert sandbox.accepted("apns") == []


def test_apns_refuses_a_malformed_device_token_and_a_wrong_path(caller: Caller, sandbox: Sandbox) -> None:
    assert caller.apns(device="not-hex").json == {"reason": "BadDeviceToken"}
    url = f"{caller.env['APNS_BASE_URL']}/2/device/{DEVICE}"
    assert caller.post(url, {}, b"{}").json == {"reason": "BadPath"}
    assert sandbox.stats("apns")["accepted"] == 0


def test_apns_refuses_old_foreign_and_too_many_provider_tokens(caller: Caller, sandbox: Sandbox) -> None:
    def status_and_reason(token: str) -> tuple[int, str]:
        answer = caller.apns({"authorization": f"bearer {token}"})
        return answer.status, answer.json["reason"] if answer.text else ""

    assert caller.apns().status == 200
    hour_old = caller.sign_provider_token(iat=int(time.time()) - 3700)
    assert status_and_reason(hour_old) == (403, "ExpiredProviderToken")
    assert status_and_reason(caller.sign_provider_token(iss="OTHERTEAM1")) == (403, "InvalidProviderToken")
    another = caller.sign_provider_token(iat=int(time.time()) - 5)
    assert status_and_reason(another) == (429, "TooManyProviderTokenUpdates")
    assert caller.apns().status == 200  # The older token is still good.


def test_apns_lets_a_client_re_sign_when_told_that_its_token_expired(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.behave("apns", rules=[{"match": {"first_n": 1}, "code": "ExpiredProviderToken"}])
    assert caller.apns().json == {"reason": "ExpiredProviderToken"}
    caller.provider_token = caller.sign_provider_token(iat=int(time.time()) - 1)
    assert caller.apns().status == 200


def test_apns_dead_token_answers_410_with_a_timestamp_in_milliseconds(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.behave("apns", rules=[{"match": {"address": DEVICE}, "code": "dead", "timestamp_ms": 1_700_000_000_123}])
    answer = caller.apns()
    assert answer.status == 410
    assert answer.json == {"reason": "Unregistered", "timestamp": 1_700_000_000_123}
    assert caller.apns(device="cd" * 32).status == 200


def test_apns_warns_of_a_relative_expiration(caller: Caller, sandbox: Sandbox) -> None:
    assert caller.apns({"apns-expiration": "300"}).status == 200
    assert sandbox.stats("apns")["warnings"] == {"apns-expiration is in the past": 1}


def test_apns_serves_many_parallel_streams_on_one_connection(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.behave("apns", latency_ms=50)
    authority = Path(caller.env["APNS_CA_FILE"]).read_bytes()

    async def send_all() -> list[int]:
        async with ClientBuilder().add_root_certificate_pem(authority).http2(True).build() as client:

            async def send(number: int) -> int:
                request = client.post(f"{caller.env['APNS_BASE_URL']}/3/device/{number:064x}")
                request = request.header("authorization", f"bearer {caller.provider_token}")
                request = request.header("apns-topic", caller.env["APNS_TOPIC"]).body_json(APNS_PAYLOAD)
                return (await request.build().send()).status

            first = await send(0)  # Establishes trust: before it, one stream is all a client gets.
            return [first, *await asyncio.gather(*(send(number) for number in range(1, 201)))]

    assert asyncio.run(send_all()) == [200] * 201
    stats = sandbox.stats("apns")
    assert stats["accepted"] == len({entry["address"] for entry in sandbox.accepted("apns")}) == 201
    assert stats["connections_opened"] == 1
    assert stats["peak_in_flight"] > 100


class RawHttp2:
    """One HTTP/2 connection, frame by frame."""

    def __init__(self, env: dict[str, str]) -> None:
        context = ssl.create_default_context(cafile=env["APNS_CA_FILE"])
        context.set_alpn_protocols(["h2"])
        port = int(env["APNS_BASE_URL"].rsplit(":", 1)[1])
        plain = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket = context.wrap_socket(plain, server_hostname="127.0.0.1")
        self.http2 = h2.connection.H2Connection()
        self.http2.initiate_connection()
        self.env = env

    def send(self, stream_id: int, token: str, device: str = DEVICE) -> None:
        headers = [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "127.0.0.1"),
            (":path", f"/3/device/{device}"),
            ("authorization", f"bearer {token}"),
            ("apns-topic", self.env["APNS_TOPIC"]),
        ]
        self.http2.send_headers(stream_id, headers)
        self.http2.send_data(stream_id, json.dumps(APNS_PAYLOAD).encode(), end_stream=True)
        self.socket.sendall(self.http2.data_to_send())

    def until(self, kind: type[Any]) -> Any:
        """Read until such an event comes, and return it."""
        while True:
            self.socket.sendall(self.http2.data_to_send())
            received = self.socket.recv(65536)
            assert received, f"closed before {kind.__name__} came"
            for event in self.http2.receive_data(received):
                if isinstance(event, kind):
                    return event


def test_apns_allows_one_stream_until_a_valid_token_and_a_thousand_then(caller: Caller, sandbox: Sandbox) -> None:
    raw = RawHttp2(caller.env)
    limit = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS

    assert raw.until(h2.events.RemoteSettingsChanged).changed_settings[limit].new_value == 1
    raw.send(1, "not-a-token")
    assert dict(raw.until(h2.events.ResponseReceived).headers)[b":status"] == b"403"
    assert raw.http2.remote_settings.max_concurrent_streams == 1
    raw.send(3, caller.provider_token)
    assert raw.until(h2.events.RemoteSettingsChanged).changed_settings[limit].new_value == 1000
    raw.http2.ping(b"12345678")
    assert raw.until(h2.events.PingAckReceived).ping_data == b"12345678"
    raw.socket.close()


def test_apns_goaway_names_the_last_stream_and_lets_it_finish(caller: Caller, sandbox: Sandbox) -> None:
    raw = RawHttp2(caller.env)
    refused_device = "ef" * 32
    sandbox.behave(
        "apns", latency_ms=100, rules=[{"match": {"address": refused_device}, "goaway": "Shutdown", "latency_ms": 0}]
    )
    raw.send(1, caller.provider_token)
    raw.send(3, caller.provider_token, refused_device)

    ended = raw.until(h2.events.ConnectionTerminated)

    assert ended.last_stream_id == 1
    assert json.loads(ended.additional_data) == {"reason": "Shutdown"}
    assert [entry["address"] for entry in sandbox.accepted("apns")] == [DEVICE]


# FCM


def test_fcm_accepts_a_message_and_records_it(caller: Caller, sandbox: Sandbox) -> None:
    message = {
        "token": "device-1",
        "notification": {"title": "Buy", "body": "5 RELIANCE"},
        "data": {"suggested_qty": "5"},
        "android": {"ttl": "300s", "priority": "HIGH", "notification": {"tag": "N-1"}},
    }
    answer = caller.fcm(message)
    assert answer.status == 200
    [recorded] = sandbox.accepted("fcm", "device-1")
    assert answer.json == {"name": recorded["message_id"]}
    assert recorded["body"] == message


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"data": {"qty": 5}}, "message.data[0].value"),
        ({"data": {"google.x": "1"}}, "message.data"),
        ({"data": {"from": "1"}}, "message.data"),
        ({"android": {"ttl": 300}}, "message.android.ttl"),
        ({"android": {"ttl": "300"}}, "message.android.ttl"),
        ({"android": {"ttl": "2419201s"}}, "message.android.ttl"),
        ({"android": {"priority": 10}}, "message.android.priority"),
        ({"android": {"tag": "x"}}, "message.android"),
        ({"apns": {"headers": {"apns-expiration": 1}}}, "message.apns.headers[0].value"),
        ({"webpush": {"headers": {"TTL": 60}}}, "message.webpush.headers[0].value"),
        ({"title": "x"}, "message"),
        ({"topic": "news"}, "message"),
        ({"token": "not a token"}, "message.token"),
    ],
)
def test_fcm_names_the_field_it_refuses(caller: Caller, sandbox: Sandbox, change: dict[str, Any], field: str) -> None:
    answer = caller.fcm({"token": "device-1", **change})

    assert (answer.status, answer.json["error"]["status"]) == (400, "INVALID_ARGUMENT")
    [bad_request] = [d for d in answer.json["error"]["details"] if d["@type"].endswith("google.rpc.BadRequest")]
    assert bad_request["fieldViolations"][0]["field"] == field
    assert sandbox.stats("fcm")["refused"] == {"INVALID_ARGUMENT": 1}


def test_fcm_refuses_a_payload_that_is_too_big_without_details(caller: Caller, sandbox: Sandbox) -> None:
    answer = caller.fcm({"token": "device-1", "data": {"text": "x" * 4097}})
    assert answer.status == 400
    assert "details" not in answer.json["error"]


def test_fcm_token_endpoint_checks_the_assertion(caller: Caller, sandbox: Sandbox, other_rsa_key: str) -> None:
    assert caller.oauth().json["token_type"] == "Bearer"
    assert caller.oauth(key=other_rsa_key).json["error_description"] == "Invalid JWT Signature."
    for wrong in ({"iss": "someone@else"}, {"aud": "https://example.com"}, {"exp": 1_700_000_000}, {"iat": 1}):
        assert (caller.oauth(**wrong).status, caller.oauth(**wrong).json["error"]) == (400, "invalid_grant")
    assert caller.oauth(scope="email").json["error"] == "invalid_scope"


@pytest.fixture(scope="module")
def other_rsa_key(tmp_path_factory: pytest.TempPathFactory) -> str:
    from devstack.vendors.credentials import load_or_create

    return load_or_create(tmp_path_factory.mktemp("other")).fcm_private_key


def test_fcm_refuses_forged_and_expired_bearer_tokens(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.behave("fcm", token_lifetime_seconds=0)
    expired = caller.oauth().json["access_token"]
    for token in (expired, "ya29.forged", expired[:-1]):
        answer = caller.fcm({"token": "device-1"}, token=token)
        assert (answer.status, answer.json["error"]["status"]) == (401, "UNAUTHENTICATED")


@pytest.mark.parametrize(
    ("rule", "status", "canonical", "code"),
    [
        ({"code": "dead"}, 404, "NOT_FOUND", "UNREGISTERED"),
        ({"code": "throttled", "retry_after": 1.2}, 429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"),
        ({"status": 503}, 503, "UNAVAILABLE", "UNAVAILABLE"),
        ({"code": "SENDER_ID_MISMATCH"}, 403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"),
        ({"code": "THIRD_PARTY_AUTH_ERROR"}, 401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"),
    ],
)
def test_fcm_answers_a_rule_in_its_own_words(
    caller: Caller, sandbox: Sandbox, rule: dict[str, Any], status: int, canonical: str, code: str
) -> None:
    sandbox.behave("fcm", rules=[rule])
    answer = caller.fcm({"token": "device-1"})
    error = answer.json["error"]
    assert (answer.status, error["code"], error["status"]) == (status, status, canonical)
    assert error["details"][0]["errorCode"] == code
    assert answer.headers.get("retry-after") == ("2" if "retry_after" in rule else None)


# Twilio


def test_twilio_accepts_a_message_and_records_it(caller: Caller, sandbox: Sandbox) -> None:
    answer = caller.sms(ValidityPeriod="300")
    assert answer.status == 201
    [recorded] = sandbox.accepted("sms", PHONE)
    assert (answer.json["sid"], answer.json["status"]) == (recorded["message_id"], "queued")
    assert answer.json["sid"].startswith("SM")
    assert recorded["body"]["Body"] == "Buy 5 RELIANCE"


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"password": "wrong"}, 401, 20003),
        ({"To": ""}, 400, 21604),
        ({"To": "09876543210"}, 400, 21211),
        ({"From": ""}, 400, 21603),
        ({"From": "+15005550001"}, 400, 21606),
        ({"Body": ""}, 400, 21602),
        ({"Body": "x" * 1601}, 400, 21617),
        ({"ValidityPeriod": "36001"}, 400, 90007),
        ({"StatusCallback": "not a url"}, 400, 21609),
    ],
)
def test_twilio_refuses(caller: Caller, sandbox: Sandbox, change: dict[str, str], status: int, code: int) -> None:
    answer = caller.sms(**change)
    assert (answer.status, answer.json["status"], answer.json["code"]) == (status, status, code)
    assert answer.json["more_info"].endswith(f"/{code}")
    assert sandbox.stats("twilio")["refused"] == {str(code): 1}


def test_twilio_wants_a_form_and_not_json(caller: Caller, sandbox: Sandbox) -> None:
    sid = caller.env["TWILIO_ACCOUNT_SID"]
    request = caller.http.post(f"{caller.env['TWILIO_BASE_URL']}/2010-04-01/Accounts/{sid}/Messages.json")
    request = request.basic_auth(sid, caller.env["TWILIO_AUTH_TOKEN"]).body_json({"To": PHONE, "Body": "x"})
    assert Answer(request.build().send()).json["code"] == 21604


def test_twilio_throttles_without_retry_after_unless_told(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.behave("twilio", rules=[{"code": "throttled"}])
    answer = caller.sms()
    assert (answer.status, answer.json["code"], answer.headers.get("retry-after")) == (429, 20429, None)


# Discord


def test_discord_webhook_answers_the_message_or_nothing(caller: Caller, sandbox: Sandbox) -> None:
    waited = caller.webhook({"content": "hello"})
    silent = caller.webhook({"content": "hello again"}, query="")
    first, second = sandbox.accepted("discord", f"https://discord.com/api/webhooks/{WEBHOOK}")
    assert (waited.status, waited.json["id"], waited.json["content"]) == (200, first["message_id"], "hello")
    assert (silent.status, silent.text, second["body"]["content"]) == (204, "", "hello again")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ({}, 50006),
        ({"content": ""}, 50006),
        ({"content": "x" * 2001}, 50035),
        ({"content": 5}, 50035),
        ({"embeds": [{"title": "x"}] * 11}, 50035),
        ({"embeds": [{"title": "x" * 257}]}, 50035),
        ({"embeds": [{"description": "x" * 3001}] * 2}, 50035),
        ({"content": "x", "nonce": "n" * 26}, 50035),
        ([], 50109),
    ],
)
def test_discord_refuses_a_bad_form(caller: Caller, sandbox: Sandbox, content: Any, code: int) -> None:
    answer = caller.webhook(content)
    assert (answer.status, answer.json["code"]) == (400, code)
    assert sandbox.stats("discord")["accepted"] == 0


def test_discord_bot_needs_its_token_its_user_agent_and_an_opened_channel(caller: Caller, sandbox: Sandbox) -> None:
    opening = {"recipient_id": USER}
    path = "/users/@me/channels"
    assert caller.bot(path, opening, authorization="Bot wrong").json == {"message": "401: Unauthorized", "code": 0}
    assert caller.bot(path, opening, **{"user-agent": "python"}).json["code"] == 40333
    assert caller.bot(path, {"recipient_id": "me"}).json["code"] == 50035
    assert caller.bot(f"/channels/{USER}/messages", {"content": "x"}).json["code"] == 10003
    assert caller.bot(path, opening).json["id"] == caller.bot(path, opening).json["id"] != USER


def test_discord_throttles_in_body_and_headers(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.behave("discord", rules=[{"code": "throttled", "retry_after": 1.337, "scope": "global"}])
    answer = caller.webhook({"content": "x"})
    assert answer.status == 429
    assert (answer.json["retry_after"], answer.json["global"]) == (1.337, True)
    assert (answer.headers["retry-after"], answer.headers["x-ratelimit-scope"]) == ("2", "global")


def test_discord_dead_has_a_code_for_each_kind_of_address(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.behave("discord", rules=[{"code": "dead"}])
    webhook, person = caller.webhook({"content": "x"}), caller.direct_message("x")
    assert (webhook.status, webhook.json["code"]) == (404, 10015)
    assert (person.status, person.json["code"]) == (403, 50007)


# OneSignal


def test_onesignal_accepts_a_notification_for_each_subscription(caller: Caller, sandbox: Sandbox) -> None:
    ids = [str(uuid4()), str(uuid4())]
    answer = caller.onesignal(include_subscription_ids=ids, idempotency_key=str(uuid4()), ttl=300)
    recorded = sandbox.accepted("onesignal")
    assert answer.status == 200
    assert [(entry["address"], entry["message_id"]) for entry in recorded] == [(i, answer.json["id"]) for i in ids]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"authorization": "Key wrong"}, 403),
        ({"authorization": "Bearer x"}, 403),
        ({"app_id": "another"}, 400),
        ({"include_subscription_ids": None}, 400),
        ({"include_subscription_ids": ["no-uuid"]}, 400),
        ({"included_segments": ["All"]}, 400),
        ({"include_subscription_ids": None, "include_aliases": {"external_id": ["F-1"]}}, 400),
        ({"contents": {"de": "Kauf"}}, 400),
        ({"data": {"text": "x" * 2048}}, 400),
        ({"ttl": "300"}, 400),
        ({"ttl": 2_419_201}, 400),
        ({"collapse_id": "x" * 65}, 400),
        ({"idempotency_key": "no-uuid"}, 400),
    ],
)
def test_onesignal_refuses(caller: Caller, sandbox: Sandbox, change: dict[str, Any], status: int) -> None:
    answer = caller.onesignal(**change)
    assert answer.status == status
    assert answer.json["errors"]
    assert sandbox.stats("onesignal")["accepted"] == 0


def test_onesignal_says_200_with_an_empty_id_for_the_unsubscribed(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.behave("onesignal", rules=[{"code": "dead"}])
    answer = caller.onesignal()
    assert answer.status == 200
    assert answer.json == {"id": "", "errors": ["All included players are not subscribed"]}
    assert sandbox.accepted("onesignal") == []


def test_onesignal_throttles_with_retry_after_and_limit(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.behave("onesignal", rules=[{"code": "throttled", "retry_after": 3}])
    answer = caller.onesignal()
    assert (answer.status, answer.headers["retry-after"]) == (429, "3")
    assert {"errors", "limit"} <= answer.json.keys()


# What a person sees twice


def test_apns_repeat_under_its_collapse_id_is_no_duplicate(caller: Caller, sandbox: Sandbox) -> None:
    for headers in ({"apns-collapse-id": "N-1"}, {"apns-collapse-id": "N-1"}):
        assert caller.apns(headers).status == 200
    stats = sandbox.stats("apns")
    assert (stats["accepted"], stats["repeats_under_key"], stats["duplicates"]) == (2, 1, 0)

    caller.apns({"apns-collapse-id": "N-2"})  # A fresh key for the same alert: the person sees it again.
    caller.apns({"apns-collapse-id": "N-1"}, payload={"aps": {"alert": "news"}}, device="cd" * 32)
    assert (sandbox.stats("apns")["repeats_under_key"], sandbox.stats("apns")["duplicates"]) == (1, 1)


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ({"android": {"notification": {"tag": "N-1"}}}, (1, 0)),
        ({"apns": {"headers": {"apns-collapse-id": "N-1"}}}, (1, 0)),
        ({"android": {"collapse_key": "N-1"}}, (0, 1)),
        ({"android": {"notification": {"tag": "N-1"}}, "apns": {"headers": {}}}, (0, 1)),
        ({}, (0, 1)),
    ],
)
def test_fcm_repeat_is_a_duplicate_unless_the_device_replaces_it(
    caller: Caller, sandbox: Sandbox, platform: dict[str, Any], expected: tuple[int, int]
) -> None:
    for _ in range(2):
        assert caller.fcm({"token": "device-1", "data": {"event": "E-1"}, **platform}).status == 200
    stats = sandbox.stats("fcm")
    assert (stats["repeats_under_key"], stats["duplicates"]) == expected


def test_same_sms_and_same_webhook_post_are_duplicates(caller: Caller, sandbox: Sandbox) -> None:
    for text in ("A", "A", "B"):
        caller.sms(Body=text)
        caller.webhook({"content": text})
    assert sandbox.stats("twilio")["duplicates"] == sandbox.stats("discord")["duplicates"] == 1


def test_discord_replays_an_enforced_nonce_within_its_window(caller: Caller, sandbox: Sandbox) -> None:
    nonce = {"nonce": "5f1d7e0c9a3b4c2d8e6f7a1b", "enforce_nonce": True}
    first, again = caller.direct_message("hello", **nonce), caller.direct_message("hello", **nonce)
    stats = sandbox.stats("discord")
    assert first.json["id"] == again.json["id"]
    assert (stats["accepted"], stats["replays"], stats["duplicates"]) == (1, 1, 0)

    sandbox.behave("discord", nonce_window_seconds=0)
    assert caller.direct_message("hello", **nonce).json["id"] != first.json["id"]
    assert sandbox.stats("discord")["duplicates"] == 1


def test_discord_nonce_without_enforcement_protects_nobody(caller: Caller, sandbox: Sandbox) -> None:
    for _ in range(2):
        caller.direct_message("hello", nonce="1")
    assert sandbox.stats("discord")["duplicates"] == 1


def test_onesignal_replays_an_idempotency_key(caller: Caller, sandbox: Sandbox) -> None:
    key = str(uuid4())
    first, again = caller.onesignal(idempotency_key=key), caller.onesignal(idempotency_key=key)
    assert first.json["id"] == again.json["id"]
    assert ("idempotent-replayed" in first.headers, again.headers["idempotent-replayed"]) == (False, "true")
    caller.onesignal(idempotency_key=str(uuid4()))  # A fresh key for the same alert.
    stats = sandbox.stats("onesignal")
    assert (stats["accepted"], stats["replays"], stats["duplicates"]) == (2, 1, 1)


# Faults


@pytest.mark.parametrize(("fault", "accepted"), [("reset", 0), ("accept_then_reset", 1)])
@pytest.mark.parametrize("vendor", ["apns", "twilio"])
def test_dropped_connection_with_and_without_acceptance(
    caller: Caller, sandbox: Sandbox, vendor: str, fault: str, accepted: int
) -> None:
    sandbox.behave(vendor, rules=[{"match": {"first_n": 1}, fault: True}])
    with pytest.raises(PyreqwestError):
        caller.apns() if vendor == "apns" else caller.sms()
    stats = sandbox.stats(vendor)
    assert (stats["accepted"], stats["faults"], stats["in_flight"]) == (accepted, {fault: 1}, 0)
    assert (caller.apns() if vendor == "apns" else caller.sms()).status in (200, 201)


def test_hanging_request_is_neither_answered_nor_accepted(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.behave("onesignal", rules=[{"hang": True}])
    with socket.create_connection(("127.0.0.1", int(caller.env["ONESIGNAL_BASE_URL"].rsplit(":", 1)[1]))) as raw:
        body = json.dumps(
            {
                "app_id": caller.env["ONESIGNAL_APP_ID"],
                "include_subscription_ids": [str(uuid4())],
                "contents": {"en": "x"},
            }
        )
        key = caller.env["ONESIGNAL_API_KEY"]
        raw.sendall(
            f"POST /notifications HTTP/1.1\r\nhost: x\r\nauthorization: Key {key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
        )
        raw.settimeout(0.2)
        with pytest.raises(TimeoutError):
            raw.recv(1)
        stats = sandbox.stats("onesignal")
        assert (stats["in_flight"], stats["accepted"], stats["faults"]) == (1, 0, {"hang": 1})


def test_malformed_and_overridden_answers(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.behave("fcm", rules=[{"match": {"first_n": 1}, "malformed": True}, {"body_override": {"name": "x"}}])
    with pytest.raises(json.JSONDecodeError):
        _ = caller.fcm({"token": "device-1"}).json
    assert caller.fcm({"token": "device-2"}).json == {"name": "x"}
    sandbox.behave("fcm", rules=[{"status": 502, "body_override": "<html>Bad Gateway</html>"}])
    answer = caller.fcm({"token": "device-3"})
    assert (answer.status, answer.text) == (502, "<html>Bad Gateway</html>")
    assert sandbox.stats("fcm")["accepted"] == 2


def test_fraction_picks_the_same_addresses_for_the_same_seed(caller: Caller, sandbox: Sandbox) -> None:
    def dead(seed: int) -> list[int]:
        sandbox.behave("twilio", seed=seed, rules=[{"match": {"fraction": 0.3}, "code": "dead"}])
        return [n for n in range(100) if caller.sms(To=f"+9198765{n:05}").status == 400]

    assert dead(1) == dead(1) != dead(2)
    assert 10 < len(dead(1)) < 50


def test_rules_count_every_nth_and_the_first_of_each_address(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.behave("twilio", rules=[{"match": {"every": 3}, "status": 503}])
    assert [caller.sms(Body=str(n)).status for n in range(6)] == [201, 201, 503, 201, 201, 503]
    sandbox.behave("twilio", rules=[{"match": {"first_n_per_address": 1}, "code": "unavailable"}])
    other = PHONE[:-1] + "1"
    assert [caller.sms(To=to).status for to in (PHONE, other, PHONE, other)] == [503, 503, 201, 201]


def test_rules_of_another_route_hit_the_token_endpoint(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.behave("fcm", rules=[{"match": {"route": "token"}, "code": "unavailable"}])
    assert caller.oauth().status == 503


def test_invalid_requests_are_refused_whatever_the_rules_say(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.behave("twilio", rules=[{"status": 503}])
    assert caller.sms(To="").json["code"] == 21604


@pytest.mark.parametrize(
    "behaviour",
    [
        {"latency": 30},
        {"rules": [{"cod": "dead"}]},
        {"rules": [{"match": {"adress": "x"}, "code": "dead"}]},
        {"rules": [{"code": "NO_SUCH_CODE"}]},
        {"rules": [{"match": {"every": 0}}]},
    ],
)
def test_behaviour_that_makes_no_sense_is_refused(sandbox: Sandbox, behaviour: dict[str, Any]) -> None:
    with pytest.raises(SandboxError, match="error"):
        sandbox.behave("fcm", **behaviour)


def test_bodies_can_be_forgotten_while_duplicates_still_count(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.behave("twilio", keep_bodies=False)
    answers = [caller.sms(), caller.sms()]
    assert [entry["body"] for entry in sandbox.accepted("twilio")] == [None, None]
    assert sandbox.stats("twilio")["duplicates"] == 1
    assert answers[0].json["body"] == "Buy 5 RELIANCE"


def test_accepted_messages_are_read_on_from_an_index(caller: Caller, sandbox: Sandbox) -> None:
    for text in "abc":
        caller.sms(Body=text)
    assert [entry["body"]["Body"] for entry in sandbox.accepted("twilio", since_index=1)] == ["b", "c"]


# The process


def test_killed_vendors_come_back_on_the_same_ports_and_remember(tmp_path: Path) -> None:
    with VendorProcess(tmp_path) as running:
        before = dict(running.env)
        caller = Caller(before)
        key = str(uuid4())
        first = caller.onesignal(idempotency_key=key)
        caller.onesignal(idempotency_key=key)
        caller.sms()
        channel = caller.bot("/users/@me/channels", {"recipient_id": USER}).json["id"]

        running.kill()
        with pytest.raises(PyreqwestError):
            caller.sms()
        running.start()

        assert running.env == before
        assert running.sandbox.stats("onesignal")["replays"] == 1
        assert caller.onesignal(idempotency_key=key).json["id"] == first.json["id"]
        assert running.sandbox.stats("onesignal")["replays"] == 2
        assert caller.sms().status == 201
        assert running.sandbox.stats("twilio")["duplicates"] == 1
        assert caller.bot(f"/channels/{channel}/messages", {"content": "hello"}).status == 200
        assert caller.apns().status == 200
        caller.close()


def test_private_files_are_the_owners_alone(vendors: VendorProcess) -> None:
    for name in ("FCM_CREDENTIALS_FILE", "APNS_KEY_FILE"):
        assert Path(vendors.env[name]).stat().st_mode & 0o077 == 0
    assert (vendors.directory / "vendors.env").stat().st_mode & 0o077 == 0
