"""OneSignal push notifications, one subscription a call.

Sources: openapi.yaml of github.com/OneSignal/onesignal-java-api, and documentation.onesignal.com: rate-limits,
idempotent-notification-requests, keys-and-ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

import followers.choices
from delivery.channels.answers import Verdict, accepted, by_status, json_object, refusal, retry_after_seconds
from delivery.channels.base import Channel, Message, Outcome, Result
from delivery.channels.policy import ChannelPolicy
from delivery.channels.rendering import key_uuid, remaining_seconds
from delivery.channels.transport import HttpClient, HttpVersion, Request

MAX_TTL_SECONDS = 2_419_200  # 28 days.
INVALID_IDS = ("invalid_player_ids", "invalid_subscription_ids", "invalid_aliases", "invalid_external_user_ids")
UNSUBSCRIBED: Verdict = (Outcome.DEAD, "The subscription is gone, or was never one of this app's")

STATUSES: Mapping[int, Verdict] = {
    400: (Outcome.REFUSED, "OneSignal refused the message"),
    404: (Outcome.REFUSED, "OneSignal does not know what the message names"),
    401: (Outcome.MISCONFIGURED, "OneSignal refused our key"),
    403: (Outcome.MISCONFIGURED, "Our key may not send for this app"),
    429: (Outcome.THROTTLED, "Too many requests for this app"),
    503: (Outcome.RETRY, "OneSignal is overloaded"),
}
"""OneSignal has no codes of its own, only words; the HTTP status decides."""


@dataclass(frozen=True, slots=True)
class OneSignalConfig:
    """The app, and its API key."""

    app_id: str
    api_key: str
    base_url: str


class OneSignalChannel(Channel):
    """Alerts to a OneSignal subscription. `idempotency_key` makes a repeat harmless for 30 days."""

    name = followers.choices.Channel.ONESIGNAL
    key_window_seconds = 30 * 86_400.0
    min_validity_seconds = 1.0  # `ttl` counts whole seconds, and 0 is not documented.

    def __init__(self, config: OneSignalConfig, policy: ChannelPolicy) -> None:
        super().__init__(policy)
        self._config = config
        self._url = f"{config.base_url}/notifications"
        self._headers = {"authorization": f"Key {config.api_key}", "content-type": "application/json"}

    @property
    def account(self) -> str:
        return self._config.app_id

    def keyed(self, message: Message) -> bool:
        return True

    def new_client(self) -> HttpClient:
        return HttpClient(
            self._config.base_url,
            policy=self.policy,
            version=HttpVersion.NEGOTIATED,
        )

    def request(self, message: Message, now: datetime) -> Request:
        body: dict[str, Any] = {
            "app_id": self._config.app_id,
            "include_subscription_ids": [message.address],
            # `en` is required; it is what OneSignal falls back to for every other language.
            "headings": {"en": message.title},
            "contents": {"en": message.body},
            "data": dict(message.data),
            "ttl": min(max(remaining_seconds(message, now), 1), MAX_TTL_SECONDS),
            "priority": 10,
            "idempotency_key": key_uuid(message.key),
        }
        if message.reference:
            body["name"] = message.reference  # Shown to nobody; the event stream gives it back, unlike `data`.
        return Request(self._url, self._headers, orjson.dumps(body))

    def classify(self, status: int, headers: Mapping[str, str], body: bytes, message: Message) -> Result:
        answer = json_object(body)
        errors = answer.get("errors")
        if status == 200 and isinstance(answer.get("id"), str):
            # 200 is no success by itself: an empty id, or our only recipient among the invalid, means nothing was sent.
            if not answer["id"] or _names(errors, message.address):
                return refusal(UNSUBSCRIBED, _code(errors), _words(errors), message)
            replayed = "idempotent-replayed" in headers
            return accepted(answer["id"], message, **({"replayed": "true"} if replayed else {}))
        if status == 200:
            return accepted("", message)
        verdict = STATUSES.get(status) or by_status(status)
        wait = retry_after_seconds(headers)
        return refusal(verdict, f"http_{status}", _words(errors), message, retry_after=wait)


def _names(errors: object, address: str) -> bool:
    """Whether `errors`, in its form as an object, lists the address."""
    if not isinstance(errors, dict):
        return False
    return any(address in ids for key in INVALID_IDS if isinstance(ids := errors.get(key), list))


def _code(errors: object) -> str:
    """A code for a 200 that sent nothing: the list that names the recipient, or that nobody was subscribed."""
    if isinstance(errors, dict):
        return next((key for key in INVALID_IDS if errors.get(key)), "not_subscribed")
    return "not_subscribed"


def _words(errors: object) -> str:
    """The texts of `errors` in its form as a list; the object form holds nothing but ids."""
    return "; ".join(str(error) for error in errors) if isinstance(errors, list) else ""
