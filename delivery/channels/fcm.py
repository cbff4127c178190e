"""Firebase Cloud Messaging, HTTP v1.

Sources: firebase.google.com/docs/reference/fcm/rest/v1 (projects.messages, ErrorCode) and, on the same site,
docs/cloud-messaging: error-codes, scale-fcm, manage-tokens.
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
from delivery.channels.google_token import AccessToken
from delivery.channels.policy import ChannelPolicy
from delivery.channels.rendering import fitted, remaining_seconds
from delivery.channels.transport import HttpClient, HttpVersion, Request

MAX_PAYLOAD_BYTES = 4096
MAX_TTL_SECONDS = 2_419_200  # 28 days.
QUOTA_WAIT_SECONDS = 60.0  # Google's word for a 429 without Retry-After.

CODES: Mapping[str, Verdict] = {
    "UNREGISTERED": (Outcome.DEAD, "The app was removed from the device, or its token has expired"),
    "SENDER_ID_MISMATCH": (Outcome.DEAD, "The token belongs to another Firebase project"),
    "THIRD_PARTY_AUTH_ERROR": (Outcome.MISCONFIGURED, "Firebase's APNs key or web push keys are missing or wrong"),
    "PERMISSION_DENIED": (Outcome.MISCONFIGURED, "Our service account may not send for this project"),
    "UNAUTHENTICATED": (Outcome.MISCONFIGURED, "Google refused our access token"),
    "QUOTA_EXCEEDED": (Outcome.THROTTLED, "Too many alerts for the project, the device or the topic"),
    "RESOURCE_EXHAUSTED": (Outcome.THROTTLED, "Too many alerts for the project, the device or the topic"),
    "UNAVAILABLE": (Outcome.RETRY, "FCM is overloaded"),
    "INTERNAL": (Outcome.RETRY, "FCM is in trouble"),
}
"""By `errorCode` of the FcmError, else by the canonical `error.status`. INVALID_ARGUMENT needs a closer look."""
BAD_TOKEN: Verdict = (Outcome.DEAD, "The token is not one of FCM's")
BAD_MESSAGE: Verdict = (Outcome.REFUSED, "FCM refused the message")
WRONG_PROJECT: Verdict = (Outcome.MISCONFIGURED, "FCM does not know the project or the address")


@dataclass(frozen=True, slots=True)
class FcmConfig:
    """A service account, as its JSON file describes it, and where to find Google."""

    project_id: str
    client_email: str
    private_key_pem: bytes
    base_url: str
    token_url: str
    audience: str  # What the token endpoint calls itself: `token_uri` of the file.


class FcmChannel(Channel):
    """Alerts to Android, web and Apple devices through Firebase.

    FCM has no idempotency key. The tag (Android, web) and apns-collapse-id make a repeat replace the alert that is
    shown. Never `collapse_key`: a device keeps four of them at most, and messages under it are throttled.
    """

    name = followers.choices.Channel.FCM
    suspect_codes = frozenset({"SENDER_ID_MISMATCH", "INVALID_ARGUMENT"})
    partial_codes = frozenset({"THIRD_PARTY_AUTH_ERROR"})  # Apple devices and browsers; Android goes on.

    def __init__(self, config: FcmConfig, policy: ChannelPolicy) -> None:
        super().__init__(policy)
        self._config = config
        self._url = f"{config.base_url}/v1/projects/{config.project_id}/messages:send"
        self._token = AccessToken(config.client_email, config.private_key_pem, config.token_url, config.audience)

    async def close(self) -> None:
        await super().close()
        await self._token.settle()

    @property
    def account(self) -> str:
        return self._config.project_id

    def keyed(self, message: Message) -> bool:
        return True

    def new_client(self) -> HttpClient:
        return HttpClient(
            self._config.base_url,
            policy=self.policy,
            version=HttpVersion.NEGOTIATED,
        )

    async def prepare(self, message: Message, now: datetime, deadline: float) -> Result | None:
        return await self._token.ensure(self.http, now, deadline)

    def request(self, message: Message, now: datetime) -> Request:
        headers = {"authorization": self._token.authorization, "content-type": "application/json"}
        limit = MAX_PAYLOAD_BYTES + len(message.address)  # The limit is on the payload, which the token is no part of.
        return Request(self._url, headers, fitted(lambda text: _body(message, text, now), message.body, limit))

    def classify(self, status: int, headers: Mapping[str, str], body: bytes, message: Message) -> Result:
        answer = json_object(body)
        if status == 200:
            return accepted(str(answer.get("name") or ""), message)
        error = answer.get("error")
        error = error if isinstance(error, dict) else {}
        details = _details(error)
        fcm_code = _fcm_code(details)
        code = fcm_code or str(error.get("status") or "")
        verdict = _verdict(status, code, bool(fcm_code), details)
        wait = retry_after_seconds(headers)
        if wait is None and verdict[0] is Outcome.THROTTLED:
            wait = QUOTA_WAIT_SECONDS
        return refusal(verdict, code or f"http_{status}", str(error.get("message") or ""), message, retry_after=wait)

    def recover(self, request: Request, result: Result, message: Message, now: datetime) -> bool:
        """A refused access token is fetched anew. Trouble with the APNs key in Firebase is a 401 as well, but no token
        of ours would help, and it has a code of its own."""
        if result.code not in ("UNAUTHENTICATED", "http_401"):
            return False
        self._token.drop(request.headers["authorization"])
        return True


def _body(message: Message, text: str, now: datetime) -> bytes:
    """Each platform gets the remaining validity in its own unit: "300s", "300", or an absolute second."""
    ttl = min(remaining_seconds(message, now), MAX_TTL_SECONDS)
    return orjson.dumps(
        {
            "message": {
                "token": message.address,
                "notification": {"title": message.title, "body": text},
                "data": dict(message.data),
                "android": {
                    "priority": "HIGH",
                    "ttl": f"{ttl}s",
                    "notification": {
                        "tag": message.key,
                        "notification_priority": "PRIORITY_MAX" if message.critical else "PRIORITY_HIGH",
                    },
                },
                "apns": {
                    "headers": {
                        "apns-priority": "10",
                        "apns-expiration": str(int(message.expires_at.timestamp())),
                        "apns-collapse-id": message.key,
                    }
                },
                "webpush": {
                    "headers": {"TTL": str(ttl), "Urgency": "high"},
                    "notification": {"tag": message.key},
                },
            }
        }
    )


def _details(error: Mapping[str, Any]) -> list[dict[str, Any]]:
    details = error.get("details")
    return [item for item in details if isinstance(item, dict)] if isinstance(details, list) else []


def _fcm_code(details: list[dict[str, Any]]) -> str:
    """`errorCode` of the FcmError among the details; empty without one."""
    for item in details:
        if str(item.get("@type", "")).endswith("google.firebase.fcm.v1.FcmError"):
            return str(item.get("errorCode") or "")
    return ""


def _violated_fields(details: list[dict[str, Any]]) -> set[str]:
    """The fields that a BadRequest among the details names."""
    fields: set[str] = set()
    for item in details:
        violations = item.get("fieldViolations")
        if isinstance(violations, list):
            fields.update(str(v.get("field") or "") for v in violations if isinstance(v, dict))
    return fields


def _verdict(status: int, code: str, from_fcm: bool, details: list[dict[str, Any]]) -> Verdict:
    """The same 400 INVALID_ARGUMENT says "bad token" and "bad message"; one taken for the other would deactivate
    every device because of a single bad payload, so the token is given up only where FCM leaves no other reading."""
    if code == "INVALID_ARGUMENT":
        fields = _violated_fields(details)
        return BAD_TOKEN if from_fcm and (not fields or fields == {"message.token"}) else BAD_MESSAGE
    if status == 404 and not from_fcm:
        return WRONG_PROJECT
    return CODES.get(code) or by_status(status)
