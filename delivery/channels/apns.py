"""Apple push notifications (APNs): HTTP/2, token authentication.

Sources: developer.apple.com/documentation/usernotifications, pages "Sending notification requests to APNs",
"Establishing a token-based connection to APNs" and "Handling notification responses from APNs".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

import orjson

import followers.choices
from delivery.channels.answers import Verdict, accepted, by_status, json_object, refusal, retry_after_seconds
from delivery.channels.apns_token import ProviderToken
from delivery.channels.base import Channel, Message, Outcome, Result
from delivery.channels.policy import ChannelPolicy
from delivery.channels.rendering import fitted, key_uuid
from delivery.channels.transport import HttpClient, HttpVersion, Request
from followers.choices import Environment

HOSTS = {
    Environment.PRODUCTION: "https://api.push.apple.com",
    Environment.SANDBOX: "https://api.sandbox.push.apple.com",
}
MAX_PAYLOAD_BYTES = 4096

REASONS: Mapping[str, Verdict] = {
    "Unregistered": (Outcome.DEAD, "The app was removed from the device"),
    "ExpiredToken": (Outcome.DEAD, "The device token has expired"),
    "BadDeviceToken": (Outcome.DEAD, "The device token is wrong, or belongs to Apple's other environment"),
    "DeviceTokenNotForTopic": (Outcome.DEAD, "The device token belongs to another app"),
    "TopicDisallowed": (Outcome.MISCONFIGURED, "Our key may not send to this app"),
    "BadCertificate": (Outcome.MISCONFIGURED, "Apple refused our certificate"),
    "BadCertificateEnvironment": (Outcome.MISCONFIGURED, "Our certificate is for Apple's other environment"),
    "Forbidden": (Outcome.MISCONFIGURED, "Our key may not do this"),
    "InvalidProviderToken": (Outcome.MISCONFIGURED, "Apple refused our key, key id or team id"),
    "MissingProviderToken": (Outcome.MISCONFIGURED, "Apple saw no provider token"),
    # Apple's page has the longer name, its servers answer with the shorter.
    "BadEnvironmentKeyInToken": (Outcome.MISCONFIGURED, "Our key is for Apple's other environment"),
    "BadEnvironmentKeyIdInToken": (Outcome.MISCONFIGURED, "Our key is for Apple's other environment"),
    "ExpiredProviderToken": (Outcome.MISCONFIGURED, "Apple calls a fresh provider token expired; is our clock right?"),
    "UnrelatedKeyIdInToken": (Outcome.RETRY, "The connection was opened under another key; a new one is opened"),
    "TooManyProviderTokenUpdates": (Outcome.THROTTLED, "The provider token was renewed too often"),
    "TooManyRequests": (Outcome.THROTTLED, "Too many alerts for this device"),
    "IdleTimeout": (Outcome.RETRY, "Apple closes an idle connection"),
    "Shutdown": (Outcome.RETRY, "Apple's server is shutting down"),
    "InternalServerError": (Outcome.RETRY, "Apple is in trouble"),
    "ServiceUnavailable": (Outcome.RETRY, "Apple is in trouble"),
}
"""Every other reason of a 4xx (BadCollapseId, PayloadTooLarge, BadPath, …) is a fault of the message itself."""


@dataclass(frozen=True, slots=True)
class ApnsConfig:
    """Where and as whom. `base_url` empty = Apple's host for the endpoint's environment."""

    key_pem: bytes
    key_id: str
    team_id: str
    topic: str
    base_url: str = ""
    ca_pem: bytes | None = None


class ApnsChannel(Channel):
    """Alerts to Apple devices. `apns-collapse-id` shows a repeat once, as long as the alert is on the device."""

    name = followers.choices.Channel.APNS
    suspect_codes = frozenset({"BadDeviceToken", "DeviceTokenNotForTopic"})
    # One app of several, or the devices of one of Apple's two environments.
    partial_codes = frozenset({"TopicDisallowed", "BadEnvironmentKeyInToken", "BadEnvironmentKeyIdInToken"})
    reconnect_codes = frozenset({"UnrelatedKeyIdInToken", "IdleTimeout", "Shutdown"})

    def __init__(self, config: ApnsConfig, policy: ChannelPolicy) -> None:
        super().__init__(policy)
        self._config = config
        self._token = ProviderToken(config.key_pem, config.key_id, config.team_id)

    @property
    def account(self) -> str:
        return f"{self._config.team_id}/{self._config.topic}"

    def keyed(self, message: Message) -> bool:
        return True

    def new_client(self) -> HttpClient:
        return HttpClient(
            self._config.base_url or HOSTS[Environment.PRODUCTION],
            policy=self.policy,
            version=HttpVersion.HTTP2,
            extra_root_pem=self._config.ca_pem,
        )

    def request(self, message: Message, now: datetime) -> Request:
        base = self._config.base_url or HOSTS[Environment(message.environment)]
        headers = {
            "authorization": self._token.authorization(now),
            "apns-topic": message.app or self._config.topic,
            "apns-push-type": "alert",
            "apns-priority": "10",
            "apns-id": key_uuid(message.key),
            "apns-collapse-id": message.key,
            # Absolute seconds since 1970, unlike every other vendor's time to live.
            "apns-expiration": str(int(message.expires_at.timestamp())),
            "content-type": "application/json",
        }
        body = fitted(lambda text: _payload(message, text), message.body, MAX_PAYLOAD_BYTES)
        return Request(f"{base}/3/device/{quote(message.address, safe='')}", headers, body)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes, message: Message) -> Result:
        if status == 200:
            return accepted(headers.get("apns-id") or key_uuid(message.key), message)
        answer = json_object(body)
        reason = str(answer.get("reason") or "")
        verdict = REASONS.get(reason) or by_status(status)
        if status == 410 and not _older_than(message, answer.get("timestamp")):
            verdict = (Outcome.RETRY, "The device token was registered again after Apple dropped it")
        wait = retry_after_seconds(headers)
        extra = {"throttled": "endpoint"} if reason == "TooManyRequests" else None
        return refusal(verdict, reason or f"http_{status}", "", message, retry_after=wait, extra=extra)

    def recover(self, request: Request, result: Result, message: Message, now: datetime) -> bool:
        """A provider token that Apple calls expired is signed anew."""
        if result.code == "ExpiredProviderToken":
            return self._token.renew(request.headers["authorization"], now)
        return False


def _payload(message: Message, text: str) -> bytes:
    """Our own fields lie beside `aps`, where the app reads them."""
    alert = {
        "alert": {"title": message.title, "body": text},
        "sound": "default",
        # Breaks through a focus mode where the app may; elsewhere iOS treats it as active.
        "interruption-level": "time-sensitive" if message.critical else "active",
    }
    return orjson.dumps({**message.data, "aps": alert})


def _older_than(message: Message, timestamp_ms: object) -> bool:
    """Whether our registration is older than Apple's last word on the token (epoch milliseconds, only with a 410)."""
    if message.endpoint_updated_at is None or not isinstance(timestamp_ms, int):
        return True
    return message.endpoint_updated_at.timestamp() * 1000 < timestamp_ms
