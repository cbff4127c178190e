"""Twilio's Messages resource (`POST /2010-04-01/Accounts/{sid}/Messages.json`), as in its OpenAPI document.

Errors: twilio.com/docs/api/errors. There is no idempotency field: what is sent twice is two SMS.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from typing import Any, ClassVar
from urllib.parse import parse_qsl

from devstack.vendors.behaviour import Rule
from devstack.vendors.credentials import Credentials
from devstack.vendors.messages import Call, Message, RefusedError, Reply, Request
from devstack.vendors.receipts import Receipt, Repeats, is_on_this_machine, twilio_repeats
from devstack.vendors.recorder import Recorder, now
from devstack.vendors.twilio_callbacks import STATUSES, USUAL, status_callback
from devstack.vendors.vendor import Vendor, retry_after_header, unknown_code

API_VERSION = "2010-04-01"
E164 = re.compile(r"\+[1-9]\d{6,14}")
MAX_BODY_CHARACTERS = 1600
MAX_VALIDITY_SECONDS = 36_000
FORM_TYPE = "application/x-www-form-urlencoded"

# Twilio's code → HTTP status and message.
ERRORS: dict[str, tuple[int, str]] = {
    "10001": (401, "Account is not active"),
    "20003": (401, "Authenticate"),
    "20403": (403, "Forbidden"),
    "20404": (404, "The requested resource was not found"),
    "20004": (405, "Method not allowed"),
    "20429": (429, "Too Many Requests"),
    "20500": (500, "An internal server error has occurred"),
    "20503": (503, "Service Unavailable"),
    "21211": (400, "Invalid 'To' Phone Number"),
    "21212": (400, "Invalid 'From' Phone Number"),
    "21266": (400, "'To' and 'From' number cannot be the same"),
    "21408": (400, "Permission to send an SMS has not been enabled for the region indicated by the 'To' number"),
    "21602": (400, "Message body is required"),
    "21603": (400, "A 'From' phone number is required"),
    "21604": (400, "A 'To' phone number is required"),
    "21606": (400, "The 'From' phone number provided is not a valid message-capable Twilio phone number"),
    "21608": (400, "The number is unverified. Trial accounts cannot send messages to unverified numbers"),
    "21609": (400, "The 'StatusCallback' URL is not a valid URL"),
    "21610": (400, "Attempt to send to unsubscribed recipient"),
    "21612": (400, "Message cannot be sent with the current combination of 'To' and 'From' parameters"),
    "21614": (400, "'To' number is not a valid mobile number"),
    "21617": (400, "The concatenated message body exceeds the 1600 character limit"),
    "90007": (400, "ValidityPeriod is out of range"),
}
CODE_OF_STATUS = {401: "20003", 403: "20403", 404: "20404", 429: "20429", 500: "20500", 503: "20503"}


class Twilio(Vendor):
    name: ClassVar[str] = "twilio"
    code_words: ClassVar[Mapping[str, str]] = {
        "dead": "21614",
        "throttled": "20429",
        "unavailable": "20503",
        "auth": "20003",
    }
    usual_receipts: ClassVar[Sequence[str]] = USUAL
    receipt_words: ClassVar[frozenset[str]] = STATUSES

    def __init__(self, recorder: Recorder, credentials: Credentials) -> None:
        super().__init__(recorder)
        self._credentials = credentials
        self._path = f"/{API_VERSION}/Accounts/{credentials.twilio_account_sid}/Messages.json"

    def message_id(self) -> str:
        return f"SM{secrets.token_hex(16)}"

    def receive(self, request: Request) -> Call:
        self._authenticate(request.headers.get("authorization", ""))
        if request.path != self._path:
            raise refused("20404")
        if request.method != "POST":
            raise refused("20004")
        form: dict[str, Any] = {}
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM_TYPE:
            # Anything else reads as a form without fields: Twilio then misses the first required one.
            form = dict(parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True))
        self._check(form)
        if "StatusCallback" in form and not is_on_this_machine(form["StatusCallback"]):
            self.recorder.warnings["StatusCallback is not on this machine"] += 1
        text = form.get("Body", "") or form.get("MediaUrl", "")
        message = Message(address=form["To"], content=text.encode(), body=form)
        return Call("send", form["To"], request.session, [message])

    def _authenticate(self, authorization: str) -> None:
        scheme, _, encoded = authorization.partition(" ")
        try:
            given = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise refused("20003") from None
        expected = f"{self._credentials.twilio_account_sid}:{self._credentials.twilio_auth_token}"
        if scheme.lower() != "basic" or not hmac.compare_digest(given, expected.encode()):
            raise refused("20003")

    def _check(self, form: Mapping[str, str]) -> None:
        recipient, sender = form.get("To", ""), form.get("From", "")
        if not recipient:
            raise refused("21604")
        if not E164.fullmatch(recipient):
            raise refused("21211")
        if not sender and not form.get("MessagingServiceSid"):
            raise refused("21603")
        if sender and sender != self._credentials.twilio_from:
            raise refused("21606" if E164.fullmatch(sender) else "21212")
        if sender == recipient:
            raise refused("21266")
        if not form.get("Body") and not form.get("MediaUrl"):
            raise refused("21602")
        if len(form.get("Body", "")) > MAX_BODY_CHARACTERS:
            raise refused("21617")
        validity = form.get("ValidityPeriod", "1")
        if not validity.isdecimal() or not 1 <= int(validity) <= MAX_VALIDITY_SECONDS:
            raise refused("90007")
        callback = form.get("StatusCallback")
        if callback is not None and not callback.startswith(("http://", "https://")):
            raise refused("21609")

    def accepted(self, call: Call, message_id: str, replayed: bool) -> Reply:
        sid = self._credentials.twilio_account_sid
        form = call.messages[0].body
        created = formatdate(now(), usegmt=True).replace("GMT", "+0000")
        message: dict[str, Any] = {
            "account_sid": sid,
            "api_version": API_VERSION,
            "body": form.get("Body"),
            "date_created": created,
            "date_sent": None,
            "date_updated": created,
            "direction": "outbound-api",
            "error_code": None,
            "error_message": None,
            "from": form.get("From"),
            "messaging_service_sid": form.get("MessagingServiceSid"),
            "num_media": "0",
            "num_segments": "1",
            "price": None,
            "price_unit": "USD",
            "sid": message_id,
            "status": "accepted" if "MessagingServiceSid" in form else "queued",
            "subresource_uris": {"media": f"/{API_VERSION}/Accounts/{sid}/Messages/{message_id}/Media.json"},
            "to": call.address,
            "uri": f"/{API_VERSION}/Accounts/{sid}/Messages/{message_id}.json",
        }
        return Reply.json(201, message)

    def receipt(self, word: str, message: Message, message_id: str) -> Receipt | None:
        form = message.body
        if not is_on_this_machine(form.get("StatusCallback", "")):
            return None
        made = self._credentials
        return status_callback(word, form, message_id, made.twilio_account_sid, made.twilio_auth_token)

    def receipt_repeats(self, call: Call) -> Repeats:
        return twilio_repeats(call.messages[0].body["StatusCallback"])

    def refusal(self, code: str | None, rule: Rule) -> RefusedError:
        found = code or CODE_OF_STATUS.get(rule.status or 0)
        if found is None and rule.status is not None:
            found = "20500" if rule.status >= 500 else "20404"
        if found is None or (found not in ERRORS and rule.status is None):
            raise unknown_code(self.name, found, sorted(ERRORS))
        return refused(found, rule.status, rule.message, rule.retry_after)


def refused(
    code: str, status: int | None = None, message: str | None = None, retry_after: float | None = None
) -> RefusedError:
    """`{code, message, more_info, status}`; no Retry-After is documented, so it comes only when asked for."""
    usual_status, text = ERRORS.get(code, (status or 400, "Error"))
    content = {
        "code": int(code),
        "message": message or text,
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": status or usual_status,
    }
    return RefusedError(code, Reply.json(status or usual_status, content, retry_after_header(retry_after)))
