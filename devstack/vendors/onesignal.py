"""OneSignal's create-notification call, as in its OpenAPI document and documentation.onesignal.com.

Keys: "Idempotent notification requests": within 30 days the same `idempotency_key` gives the first answer again.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import orjson

from devstack.vendors.apns import is_uuid
from devstack.vendors.behaviour import BehaviourError, Rule
from devstack.vendors.credentials import Credentials
from devstack.vendors.messages import Call, Message, RefusedError, Repeat, Reply, Request
from devstack.vendors.onesignal_events import EVENTS, USUAL, EventStream, event
from devstack.vendors.receipts import Receipt, Repeats, is_on_this_machine
from devstack.vendors.recorder import Recorder
from devstack.vendors.vendor import Vendor, retry_after_header, unknown_code

PATHS = frozenset(("/notifications", "/api/v1/notifications"))
TARGETINGS = ("include_subscription_ids", "include_aliases", "included_segments", "filters")
TARGET_CHANNELS = frozenset(("push", "email", "sms"))
MAX_IDS = 2000
MAX_DATA_BYTES = 2048
MAX_TTL_SECONDS = 2_419_200
MAX_COLLAPSE_ID = 64
KEY_WINDOW_SECONDS = 30 * 86_400
NOT_SUBSCRIBED = "All included players are not subscribed"

# Our word for an answer → HTTP status and text. OneSignal has no codes: clients know answers by status and text.
ERRORS: dict[str, tuple[int, str]] = {
    "not_subscribed": (200, NOT_SUBSCRIBED),
    "bad_request": (400, "Message Notifications must have Any/English language content"),
    "unauthenticated": (
        401,
        "Access denied.  Please include an 'Authorization: ...' header with a valid API key.",
    ),
    "access_denied": (403, "Access denied.  The API key is not valid for this app."),
    "not_found": (404, "Not found"),
    "rate_limited": (429, "API rate limit exceeded"),
    "internal": (500, "Internal server error"),
    "unavailable": (503, "Service temporarily unavailable"),
}
CODE_OF_STATUS = {status: code for code, (status, _) in ERRORS.items() if code != "not_subscribed"}
RATE_LIMIT = 150  # Requests a second of a free app, named in the 429's body.


class OneSignal(Vendor):
    name: ClassVar[str] = "onesignal"
    code_words: ClassVar[Mapping[str, str]] = {
        "dead": "not_subscribed",
        "throttled": "rate_limited",
        "unavailable": "unavailable",
        "auth": "access_denied",
    }
    usual_receipts: ClassVar[Sequence[str]] = USUAL
    receipt_words: ClassVar[frozenset[str]] = EVENTS

    def __init__(self, recorder: Recorder, credentials: Credentials) -> None:
        super().__init__(recorder)
        self._app_id = credentials.onesignal_app_id
        self._authorization = f"Key {credentials.onesignal_api_key}"
        self._stream: EventStream | None = None

    def receive(self, request: Request) -> Call:
        if request.path not in PATHS or request.method != "POST":
            raise refused("not_found")
        self._authenticate(request.headers.get("authorization", ""))
        try:
            body = orjson.loads(request.body)
        except orjson.JSONDecodeError:
            raise invalid("Request body is not valid JSON") from None
        if not isinstance(body, dict) or not request.headers.get("content-type", "").startswith("application/json"):
            raise invalid("app_id not found. You may be missing a Content-Type: application/json header.")
        if body.get("app_id") != self._app_id:
            raise invalid(f"app_id not found: {body.get('app_id')}")
        addresses = read_addresses(body)
        check_fields(body)
        key = str(body.get("idempotency_key") or body.get("external_id") or "")
        messages = [self._message(address, body, key) for address in addresses]
        return Call("send", addresses[0], request.session, messages)

    def _authenticate(self, authorization: str) -> None:
        if not authorization:
            raise refused("unauthenticated")
        if not hmac.compare_digest(authorization.encode(), self._authorization.encode()):
            raise refused("access_denied")

    def _message(self, address: str, body: dict[str, Any], key: str) -> Message:
        seen = {name: body[name] for name in ("contents", "headings", "data", "template_id") if name in body}
        return Message(
            address=address,
            content=orjson.dumps(seen, option=orjson.OPT_SORT_KEYS),
            body=body,
            key=key,
            repeat=Repeat.REPLAYED if key else Repeat.SHOWN,
            # A key stands for one call: sent again with other recipients, nobody is sent anything.
            identity=key,
            replay_seconds=KEY_WINDOW_SECONDS,
        )

    def accepted(self, call: Call, message_id: str, replayed: bool) -> Reply:
        headers = (("idempotent-replayed", "true"),) if replayed else ()
        return Reply.json(200, {"id": message_id, "external_id": call.messages[0].key or None}, headers)

    def stream_events(self, content: Mapping[str, Any]) -> None:
        """Set the event stream up, as in the dashboard: `url` and `headers`; without an address there is none."""
        url, headers = str(content.get("url") or ""), content.get("headers") or {}
        if url and not is_on_this_machine(url):
            raise BehaviourError("an event stream's url must be on this machine")
        self._stream = EventStream(url, tuple(headers.items())) if url else None

    def receipt(self, word: str, message: Message, message_id: str) -> Receipt | None:
        if self._stream is None:
            return None
        return event(word, self._stream, message.body, message.address, message_id)

    def receipt_repeats(self, call: Call) -> Repeats:
        return Repeats(count=5, on_5xx=True)  # "A few times with increasing delays".

    def refusal(self, code: str | None, rule: Rule) -> RefusedError:
        found = code or CODE_OF_STATUS.get(rule.status or 0)
        if found is None or found not in ERRORS:
            raise unknown_code(self.name, found, sorted(ERRORS))
        return refused(found, rule.message, rule.retry_after)


def read_addresses(body: Mapping[str, Any]) -> list[str]:
    """Whom the call addresses; exactly one way to say so is allowed."""
    used = [name for name in TARGETINGS if body.get(name)]
    if not used:
        raise invalid("You must include which players, segments, or tags you wish to send this notification to.")
    if len(used) > 1:
        raise invalid(f"You may only use one targeting mode, found {', '.join(used)}")
    target = body[used[0]]
    if used[0] == "include_subscription_ids":
        ids = strings(target, used[0])
        for wrong in (i for i in ids if not is_uuid(i)):
            raise invalid(f"Incorrect subscription_id format in include_subscription_ids (not a valid UUID): {wrong}")
    elif used[0] == "include_aliases":
        if body.get("target_channel") not in TARGET_CHANNELS:
            raise invalid("target_channel is required with include_aliases: push, email or sms")
        if not isinstance(target, dict):
            raise invalid("include_aliases must be an object")
        ids = [f"{label}:{i}" for label, values in target.items() for i in strings(values, label)]
    else:
        ids = [orjson.dumps(target).decode()]
    if not 0 < len(ids) <= MAX_IDS:
        raise invalid(f"{used[0]} must have between 1 and {MAX_IDS} entries")
    return ids


def strings(values: Any, name: str) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise invalid(f"{name} must be an array of strings")
    return values


def check_fields(body: Mapping[str, Any]) -> None:
    """Contents, sizes, types and ranges."""
    contents = body.get("contents")
    if not body.get("template_id") and not (isinstance(contents, dict) and contents.get("en")):
        raise refused("bad_request")
    for name in ("contents", "headings"):
        texts = body.get(name, {})
        if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
            raise invalid(f"{name} must map languages to strings")
    data = body.get("data", {})
    if not isinstance(data, dict):
        raise invalid("data must be an object")
    if len(orjson.dumps(data)) > MAX_DATA_BYTES:
        raise invalid(f"data must be no more than {MAX_DATA_BYTES} bytes long")
    ttl = body.get("ttl", 0)
    if isinstance(ttl, bool) or not isinstance(ttl, int) or not 0 <= ttl <= MAX_TTL_SECONDS:
        raise invalid(f"ttl must be an integer between 0 and {MAX_TTL_SECONDS}")
    if not isinstance(body.get("priority", 10), int):
        raise invalid("priority must be an integer")
    if len(str(body.get("collapse_id") or "")) > MAX_COLLAPSE_ID:
        raise invalid(f"collapse_id must be no more than {MAX_COLLAPSE_ID} characters")
    for name in ("idempotency_key", "external_id"):
        if body.get(name) is not None and not is_uuid(str(body[name])):
            raise invalid(f"{name} must be a valid UUID")


def invalid(message: str) -> RefusedError:
    return refused("bad_request", message)


def refused(code: str, message: str | None = None, retry_after: float | None = None) -> RefusedError:
    """Errors are a list of texts; who is not subscribed gets 200 with an empty id."""
    status, text = ERRORS[code]
    content: dict[str, Any] = {"errors": [message or text]}
    if code == "not_subscribed":
        content["id"] = ""
    if code == "rate_limited":
        content["limit"] = RATE_LIMIT
    return RefusedError(code, Reply.json(status, content, retry_after_header(retry_after)))
