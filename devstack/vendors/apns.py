"""APNs with provider tokens, as Apple documents it under `UserNotifications`.

"Sending notification requests to APNs", "Establishing a token-based connection to APNs" and "Handling notification
responses from APNs" at developer.apple.com/documentation/usernotifications.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import UUID

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from devstack.vendors.behaviour import Rule
from devstack.vendors.credentials import Credentials
from devstack.vendors.messages import Call, Headers, Message, RefusedError, Repeat, Reply, Request, Session, words
from devstack.vendors.recorder import Recorder, new_id, now
from devstack.vendors.vendor import Vendor, unknown_code

STATUS_OF: dict[str, int] = {
    **dict.fromkeys(
        words(
            "BadCollapseId BadDeviceToken BadExpirationDate BadMessageId BadPriority BadTopic DeviceTokenNotForTopic "
            "DuplicateHeaders IdleTimeout InvalidPushType MissingDeviceToken MissingTopic PayloadEmpty TopicDisallowed"
        ),
        400,
    ),
    **dict.fromkeys(
        words(
            "BadCertificate BadCertificateEnvironment ExpiredProviderToken Forbidden InvalidProviderToken "
            "MissingProviderToken UnrelatedKeyIdInToken BadEnvironmentKeyInToken BadEnvironmentKeyIdInToken"
        ),
        403,
    ),
    "BadPath": 404,
    "MethodNotAllowed": 405,
    "ExpiredToken": 410,
    "Unregistered": 410,
    "PayloadTooLarge": 413,
    "TooManyProviderTokenUpdates": 429,
    "TooManyRequests": 429,
    "InternalServerError": 500,
    "ServiceUnavailable": 503,
    "Shutdown": 503,
}
REASON_OF = {
    400: "BadDeviceToken",
    403: "InvalidProviderToken",
    410: "Unregistered",
    429: "TooManyRequests",
    500: "InternalServerError",
    503: "ServiceUnavailable",
}

PUSH_TYPES = words(
    "alert background location voip complication fileprovider mdm liveactivity pushtotalk widgets controls"
)
TOPIC_SUFFIXES = ("", ".voip", ".complication", ".pushkit.fileprovider", ".location-query", ".push-type.liveactivity")
DEVICE_TOKEN = re.compile(r"(?:[0-9a-fA-F]{2}){32,100}")
MAX_PAYLOAD_BYTES = 4096
MAX_VOIP_PAYLOAD_BYTES = 5120
MAX_COLLAPSE_ID_BYTES = 64
TOKEN_LIFETIME_SECONDS = 3600
TOKEN_UPDATE_SECONDS = 20 * 60  # At most one new provider token in this time on one connection.
CLOCK_SKEW_SECONDS = 60  # Ours: how far in the future a token's `iat` may lie.
STREAMS_ONCE_TRUSTED = 1000
PATH = "/3/device/"


class Apns(Vendor):
    name: ClassVar[str] = "apns"
    code_words: ClassVar[Mapping[str, str]] = {
        "dead": "Unregistered",
        "throttled": "TooManyRequests",
        "unavailable": "ServiceUnavailable",
        "auth": "InvalidProviderToken",
    }

    def __init__(self, recorder: Recorder, credentials: Credentials) -> None:
        super().__init__(recorder)
        self._credentials = credentials
        key = load_pem_private_key(credentials.apns_key.encode(), password=None)
        if not isinstance(key, EllipticCurvePrivateKey):
            raise TypeError("the APNs key is not an elliptic curve key")
        self._public_key = key.public_key()
        self._issued_at: dict[str, float] = {}  # Provider tokens whose signature was found good → their `iat`.
        self._topics = frozenset(credentials.apns_topic + suffix for suffix in TOPIC_SUFFIXES)

    def message_id(self) -> str:
        return new_id().upper()

    def receive(self, request: Request) -> Call:
        if not request.path.startswith(PATH):
            raise refused("BadPath")
        if request.method != "POST":
            raise refused("MethodNotAllowed")
        self._authenticate(request)
        token = request.path[len(PATH) :]
        if not token:
            raise refused("MissingDeviceToken")
        if not DEVICE_TOKEN.fullmatch(token):
            raise refused("BadDeviceToken")
        headers = {name: value for name, value in request.headers.items() if name.startswith("apns-")}
        self._check_headers(headers)
        payload = read_payload(request.body, headers)
        collapse_id = headers.get("apns-collapse-id", "")
        token = token.lower()
        message = Message(
            address=token,
            content=orjson.dumps(payload, option=orjson.OPT_SORT_KEYS),
            body=payload,
            headers=headers,
            key=collapse_id,
            repeat=Repeat.REPLACED if collapse_id else Repeat.SHOWN,
            identity=f"{token} {collapse_id}",
            given_id=headers.get("apns-id", ""),
        )
        return Call("send", token, request.session, [message])

    def accepted(self, call: Call, message_id: str, replayed: bool) -> Reply:
        return Reply(200, headers=(("apns-id", message_id),))

    def refusal(self, code: str | None, rule: Rule) -> RefusedError:
        reason = code or REASON_OF.get(rule.status or 0)
        if reason is None or (reason not in STATUS_OF and rule.status is None):
            raise unknown_code(self.name, reason, sorted(STATUS_OF))
        return refused(reason, status=rule.status, timestamp_ms=rule.timestamp_ms)

    def fault_injected(self, call: Call, code: str) -> None:
        """A client that is told its token has expired may bring a new one at once."""
        if code == "ExpiredProviderToken":
            call.session.token = ""

    # Provider tokens.

    def _authenticate(self, request: Request) -> None:
        authorization = request.headers.get("authorization", "")
        if not authorization.startswith("bearer "):
            raise refused("MissingProviderToken")
        token = authorization[7:]
        issued_at = self._issued_at.get(token)
        if issued_at is None:
            issued_at = self._issued_at[token] = self._verify(token)
        moment = now()
        if moment - issued_at > TOKEN_LIFETIME_SECONDS:
            raise refused("ExpiredProviderToken")
        self._check_update(request.session, token, moment)
        request.session.max_streams = STREAMS_ONCE_TRUSTED

    def _verify(self, token: str) -> float:
        """The token's `iat`. ES256 with a raw 64-byte signature (RFC 7518, 3.4), `kid`, `iss`, `iat` in seconds."""
        try:
            if jwt.get_unverified_header(token).get("kid") != self._credentials.apns_key_id:
                raise refused("InvalidProviderToken")
            claims: dict[str, Any] = jwt.decode(
                token,
                self._public_key,
                algorithms=["ES256"],
                issuer=self._credentials.apns_team_id,
                options={"require": ["iss", "iat"], "verify_exp": False, "verify_iat": False, "verify_aud": False},
            )
        except jwt.InvalidTokenError:
            raise refused("InvalidProviderToken") from None
        issued_at = claims["iat"]
        if not isinstance(issued_at, int) or issued_at > now() + CLOCK_SKEW_SECONDS:
            raise refused("InvalidProviderToken")
        return float(issued_at)

    def _check_update(self, session: Session, token: str, moment: float) -> None:
        if session.token == token:
            return
        if session.token and moment - session.token_since < TOKEN_UPDATE_SECONDS:
            raise refused("TooManyProviderTokenUpdates")
        session.token, session.token_since = token, moment

    # Headers.

    def _check_headers(self, headers: Mapping[str, str]) -> None:
        topic = headers.get("apns-topic")
        if not topic:
            raise refused("MissingTopic")
        if topic not in self._topics:
            raise refused("TopicDisallowed")
        push_type = headers.get("apns-push-type")
        if push_type is not None and push_type not in PUSH_TYPES:
            raise refused("InvalidPushType")
        priority = headers.get("apns-priority", "10")
        if priority not in ("10", "5", "1") or (push_type == "background" and priority != "5"):
            raise refused("BadPriority")
        if len(headers.get("apns-collapse-id", "")) > MAX_COLLAPSE_ID_BYTES:
            raise refused("BadCollapseId")
        if "apns-id" in headers and not is_uuid(headers["apns-id"]):
            raise refused("BadMessageId")
        expiration = headers.get("apns-expiration")
        if expiration is None:
            return
        if not (expiration.isascii() and expiration.isdigit()):
            raise refused("BadExpirationDate")
        if 0 < int(expiration) < now():
            # Apple takes it and drops it when the device is offline: a relative time sent as an absolute one.
            self.recorder.warnings["apns-expiration is in the past"] += 1


def read_payload(body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    """The payload, found to be of the push type it is announced as."""
    push_type = headers.get("apns-push-type", "alert")
    if len(body) > (MAX_VOIP_PAYLOAD_BYTES if push_type == "voip" else MAX_PAYLOAD_BYTES):
        raise refused("PayloadTooLarge")
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise refused("PayloadEmpty") from None  # Apple lists no reason of its own for a body that is not JSON.
    if not isinstance(payload, dict) or not payload:
        raise refused("PayloadEmpty")
    aps = payload.get("aps")
    if push_type == "alert" and not (isinstance(aps, dict) and {"alert", "badge", "sound"} & aps.keys()):
        raise refused("InvalidPushType" if isinstance(aps, dict) and "content-available" in aps else "PayloadEmpty")
    if push_type == "background" and not (isinstance(aps, dict) and aps.get("content-available") == 1):
        raise refused("InvalidPushType")
    return payload


def is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


def refused(reason: str, status: int | None = None, timestamp_ms: int | None = None) -> RefusedError:
    """`{"reason"}` with its status; `timestamp` in milliseconds comes with 410 only."""
    status = STATUS_OF.get(reason, status or 400)
    content: dict[str, Any] = {"reason": reason}
    if status == 410:
        content["timestamp"] = timestamp_ms if timestamp_ms is not None else int(now() * 1000)
    headers: Headers = (("apns-id", new_id().upper()),)
    return RefusedError(reason, Reply.json(status, content, headers))
