"""SMS through Twilio's Messages resource.

Sources: the OpenAPI description in github.com/twilio/twilio-oai (api_v2010) and twilio.com/docs/api/errors.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote, urlencode

import followers.choices
from delivery.channels.answers import Verdict, accepted, by_status, json_object, refusal, retry_after_seconds
from delivery.channels.base import Channel, Message, Outcome, Result
from delivery.channels.policy import ChannelPolicy
from delivery.channels.rendering import remaining_seconds, shorten
from delivery.channels.transport import HttpClient, Request

MAX_BODY_CHARACTERS = 1600
MAX_VALIDITY_SECONDS = 36_000  # Ten hours; the longest that Twilio keeps a message queued.
CALLBACK_PATH = "/hooks/twilio/"
REPEAT_CALLBACK = "#rc=5&rp=ct,rt,5xx"
"""Twilio repeats a status callback only if it could not connect, unless the address says otherwise: up to five times,
within 15 s, also after a timeout and a 5xx. A fragment is neither requested nor signed."""

CODES: Mapping[int, Verdict] = {
    20003: (Outcome.MISCONFIGURED, "Twilio refused our account or its token"),
    20403: (Outcome.MISCONFIGURED, "Our account may not do this"),
    10001: (Outcome.MISCONFIGURED, "Our account is suspended"),
    21606: (Outcome.MISCONFIGURED, "The sender number is not ours, or cannot send SMS"),
    21212: (Outcome.MISCONFIGURED, "The sender number is not valid"),
    21608: (Outcome.MISCONFIGURED, "A trial account sends only to verified numbers"),
    20429: (Outcome.THROTTLED, "Too many requests at once; it was not processed"),
    21211: (Outcome.DEAD, "The number is not valid"),
    21614: (Outcome.DEAD, "The number is not a mobile number"),
    21610: (Outcome.DEAD, "The person has replied STOP to our sender"),
    21408: (Outcome.REFUSED, "SMS to this country is not enabled for our account"),
    21612: (Outcome.REFUSED, "The sender cannot reach this number"),
    90007: (Outcome.REFUSED, "Twilio refused the validity period"),
}
"""Twilio keeps splitting its codes; one that is not here means what its HTTP status says."""


@dataclass(frozen=True, slots=True)
class TwilioConfig:
    """An account, and the sender: a number (E.164), or a messaging service (MG…)."""

    account_sid: str
    auth_token: str
    sender: str
    base_url: str
    callback_origin: str = ""  # Where status callbacks reach us; empty = none are asked for.


class TwilioSmsChannel(Channel):
    """SMS. Twilio takes no idempotency key, so that whatever is in doubt stays in doubt: a repeat is a second SMS."""

    name = followers.choices.Channel.SMS
    partial_codes = frozenset({"21608"})  # A trial account's verified numbers go on.
    min_validity_seconds = 1.0  # The smallest ValidityPeriod is one whole second.

    def __init__(self, config: TwilioConfig, policy: ChannelPolicy) -> None:
        super().__init__(policy)
        self._config = config
        self._url = f"{config.base_url}/2010-04-01/Accounts/{quote(config.account_sid, safe='')}/Messages.json"
        credentials = base64.b64encode(f"{config.account_sid}:{config.auth_token}".encode()).decode()
        self._headers = {
            "authorization": f"Basic {credentials}",
            "content-type": "application/x-www-form-urlencoded",
            "accept": "application/json",
        }
        self._sender_field = "MessagingServiceSid" if config.sender.startswith("MG") else "From"

    @property
    def account(self) -> str:
        return self._config.account_sid

    def keyed(self, message: Message) -> bool:
        return False

    def new_client(self) -> HttpClient:
        return HttpClient(
            self._config.base_url,
            policy=self.policy,
        )

    def request(self, message: Message, now: datetime) -> Request:
        """ValidityPeriod limits the time in Twilio's own queue. Twilio advises more than 5 s; below that the true
        remainder is sent all the same: should Twilio drop it (30036), it would have come too late."""
        form = {
            "To": message.address,
            self._sender_field: self._config.sender,
            "Body": shorten(f"{message.title}\n{message.body}", MAX_BODY_CHARACTERS),
            "ValidityPeriod": str(min(max(remaining_seconds(message, now), 1), MAX_VALIDITY_SECONDS)),
        }
        if self._config.callback_origin and message.reference:
            callback = f"{self._config.callback_origin}{CALLBACK_PATH}{message.reference}/"
            form["StatusCallback"] = callback + REPEAT_CALLBACK
        return Request(self._url, self._headers, urlencode(form).encode())

    def classify(self, status: int, headers: Mapping[str, str], body: bytes, message: Message) -> Result:
        answer = json_object(body)
        if status in (200, 201):
            return accepted(str(answer.get("sid") or ""), message)
        code = answer.get("code")
        verdict = CODES.get(code) if isinstance(code, int) and status < 500 else None
        return refusal(
            verdict or by_status(status, after_5xx=Outcome.UNKNOWN),
            str(code) if isinstance(code, int) else f"http_{status}",
            str(answer.get("message") or ""),
            message,
            retry_after=retry_after_seconds(headers),
        )
