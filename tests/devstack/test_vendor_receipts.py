"""What the sandbox's Twilio and OneSignal tell later: in what order, how signed, how often, and to whom."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

import pytest

from devstack.vendors.client import Sandbox, SandboxError
from devstack.vendors.process import VendorProcess
from tests.devstack.test_vendors import PHONE, Caller

WAIT_SECONDS = 20
SUBSCRIPTION = "1dd608f2-c6a1-11e3-851d-000c2940e62c"


@dataclass
class Hook:
    """A client's own server: what was posted there, and how it answers."""

    origin: str
    requests: queue.Queue[Any]
    answers: list[int]  # In this order; 204 once they are used up.

    def next(self) -> tuple[str, dict[str, str], bytes]:
        return self.requests.get(timeout=WAIT_SECONDS)

    def next_form(self) -> dict[str, str]:
        return dict(parse_qsl(self.next()[2].decode(), keep_blank_values=True))

    def next_statuses(self, count: int) -> list[str]:
        return [self.next_form()["MessageStatus"] for _ in range(count)]


@pytest.fixture
def hook() -> Iterator[Hook]:
    requests: queue.Queue[Any] = queue.Queue()
    answers: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            requests.put((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(answers.pop(0) if answers else 204)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield Hook(f"http://127.0.0.1:{server.server_port}", requests, answers)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def vendors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VendorProcess]:
    with VendorProcess(tmp_path_factory.mktemp("vendors")) as process:
        yield process


@pytest.fixture
def sandbox(vendors: VendorProcess) -> Iterator[Sandbox]:
    vendors.sandbox.reset()
    yield vendors.sandbox
    vendors.sandbox.behave_well("twilio")
    vendors.sandbox.behave_well("onesignal")
    vendors.sandbox.stream_events("")


@pytest.fixture
def caller(vendors: VendorProcess) -> Iterator[Caller]:
    made = Caller(vendors.env)
    yield made
    made.close()


def test_twilio_tells_of_a_message_with_a_callback_and_signs_it(caller: Caller, sandbox: Sandbox, hook: Hook) -> None:
    url = f"{hook.origin}/hooks/a/?x=1"
    sid = caller.sms(StatusCallback=f"{url}#rc=2&rp=all").json["sid"]

    path, headers, body = hook.next()

    fields = dict(parse_qsl(body.decode(), keep_blank_values=True))
    assert path == "/hooks/a/?x=1"
    assert (fields["MessageSid"], fields["MessageStatus"], fields["To"]) == (sid, "sent", PHONE)
    assert "ErrorCode" not in fields
    signed = url + "".join(key + value for key, value in sorted(fields.items()))
    key = caller.env["TWILIO_AUTH_TOKEN"].encode()
    digest = hmac.new(key, signed.encode(), hashlib.sha1).digest()
    assert headers["x-twilio-signature"] == base64.b64encode(digest).decode()
    assert hook.next_form()["MessageStatus"] == "delivered"


def test_twilio_tells_nothing_without_a_callback(caller: Caller, sandbox: Sandbox, hook: Hook) -> None:
    caller.sms()
    caller.sms(Body="with", StatusCallback=hook.origin)
    hook.next_statuses(2)
    assert hook.requests.empty()


def test_rule_says_what_is_told_and_in_which_order(caller: Caller, sandbox: Sandbox, hook: Hook) -> None:
    other = "+14155550199"
    sandbox.behave(
        "twilio",
        rules=[
            {"match": {"address": PHONE}, "receipts": ["delivered", "delivered", "sent"]},
            {"match": {"address": other}, "receipts": ["undelivered:30003"]},
        ],
    )
    caller.sms(StatusCallback=hook.origin)
    assert hook.next_statuses(3) == ["delivered", "delivered", "sent"]
    caller.sms(To=other, StatusCallback=hook.origin)
    told = hook.next_form()
    assert (told["MessageStatus"], told["ErrorCode"]) == ("undelivered", "30003")


def test_receipt_before_the_answer(caller: Caller, sandbox: Sandbox, hook: Hook) -> None:
    sandbox.behave("twilio", rules=[{"match": {}, "receipts": ["delivered"], "receipts_first": True}])

    answer = caller.sms(StatusCallback=hook.origin)

    # No waiting: it is there when the answer is.
    assert hook.requests.get_nowait()
    assert answer.status == 201
    assert sandbox.stats("twilio")["receipts"] == {"delivered 204": 1}


def test_receipt_of_a_message_whose_answer_was_lost(caller: Caller, sandbox: Sandbox, hook: Hook) -> None:
    sandbox.behave("twilio", rules=[{"match": {}, "accept_then_reset": True}])
    with pytest.raises(Exception, match=r"."):
        caller.sms(StatusCallback=hook.origin)
    assert hook.next_statuses(2) == ["sent", "delivered"]


@pytest.mark.parametrize(("fragment", "requests"), [("", 1), ("#rc=2&rp=ct", 1), ("#rc=2&rp=5xx", 3), ("#rc=1", 1)])
def test_twilio_repeats_after_503_only_if_the_address_says_so(
    caller: Caller, sandbox: Sandbox, hook: Hook, fragment: str, requests: int
) -> None:
    sandbox.behave("twilio", rules=[{"match": {}, "receipts": ["delivered"], "receipts_first": True}])
    hook.answers[:] = [503] * 5

    caller.sms(StatusCallback=f"{hook.origin}/{fragment}")

    assert hook.requests.qsize() == requests
    assert sandbox.stats("twilio")["receipts"] == {"delivered 503": 1}


def test_nothing_leaves_this_machine(caller: Caller, sandbox: Sandbox) -> None:
    assert caller.sms(StatusCallback="https://example.com/hook").status == 201
    stats = sandbox.stats("twilio")
    assert stats["warnings"] == {"StatusCallback is not on this machine": 1}
    assert stats["receipts"] == {}
    with pytest.raises(SandboxError, match="on this machine"):
        sandbox.stream_events("http://192.0.2.1/hook")


def test_unreachable_client_is_counted(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.behave("twilio", rules=[{"match": {}, "receipts": ["delivered"], "receipts_first": True}])
    caller.sms(StatusCallback="http://127.0.0.1:1/")
    assert sandbox.stats("twilio")["receipts"] == {"delivered unreachable": 1}


def test_unknown_word_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError, match="no receipts"):
        sandbox.behave("twilio", rules=[{"match": {}, "receipts": ["arrived"]}])
    with pytest.raises(SandboxError, match="no receipts"):
        sandbox.behave("fcm", rules=[{"match": {}, "receipts": ["delivered"]}])


def test_onesignal_streams_events_with_the_header_and_the_messages_name(
    caller: Caller, sandbox: Sandbox, hook: Hook
) -> None:
    sandbox.stream_events(f"{hook.origin}/events", {"authorization": "Bearer secret"})
    sandbox.behave("onesignal", rules=[{"match": {}, "receipts": ["failed:Invalid token", "received"]}])

    message_id = caller.onesignal(name="N-1").json["id"]

    path, headers, body = hook.next()
    told = json.loads(body)
    assert (path, headers["authorization"]) == ("/events", "Bearer secret")
    assert told["message"] == {"id": message_id, "name": "N-1"}
    assert (told["event"]["kind"], told["event"]["subscription_id"]) == ("message.push.failed", SUBSCRIPTION)
    assert told["event"]["data"] == {"failure_reason": "Invalid token"}
    assert json.loads(hook.next()[2])["event"]["kind"] == "message.push.received"


def test_onesignal_tells_nothing_of_a_replay(caller: Caller, sandbox: Sandbox, hook: Hook) -> None:
    sandbox.stream_events(hook.origin)
    key = "0b9f8ef0-0000-4000-8000-000000000001"
    first = caller.onesignal(idempotency_key=key).json["id"]
    kinds = [json.loads(hook.next()[2])["event"]["kind"] for _ in range(2)]
    assert kinds == ["message.push.sent", "message.push.received"]

    assert caller.onesignal(idempotency_key=key).json["id"] == first
    other = caller.onesignal(contents={"en": "Another"}).json["id"]
    assert json.loads(hook.next()[2])["message"]["id"] == other
