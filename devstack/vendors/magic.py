"""Magic addresses: with the sandbox vendors, an address that begins so meets a known end, without any set-up.

One table. `MagicAddress.rule` is what the sandbox does (`behaviour.Rule`), the rest is what NotifyHub makes of it; the
tables in docs/api.md are printed from here (`python -m devstack.magic --markdown`), and each row is run through the
pipeline in tests/web/test_magic_addresses.py. Rules that the control API sets come first.

The first five of Twilio's are those of its own test credentials (twilio.com/docs/iam/test-credentials).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from devstack.vendors.behaviour import Rule, parse_rule

RETRY_AFTER_SECONDS = 1
HANG = {"hang": True}
THROTTLED = {"status": 429, "retry_after": RETRY_AFTER_SECONDS}
ONCE = {"first_n_per_address": 1}
BAD_DATA = {
    "error": {
        "code": 400,
        "message": "Invalid value at 'message.data'",
        "status": "INVALID_ARGUMENT",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [{"field": "message.data", "description": "Invalid value"}],
            }
        ],
    }
}
"""FCM's 400 that is about the message and not about the token."""


@dataclass(frozen=True, slots=True)
class MagicAddress:
    """What becomes of an alert to any address that begins with `prefix` (of a webhook: whose token does).

    Parameters:
      channel: The project's channel; `discord_dm` is Discord's direct messages.
      what: What the vendor does, for a person.
      state: The delivery's state after the vendor's first answer and its receipts.
      code: Its `error_code` then; empty where there is none.
      at_last: State and code in the end, where that is another: by a retry, or because the validity ran out.
      rule: `behaviour.Rule` and, under `match`, `behaviour.Match`; empty = the vendor at its best.
    """

    channel: str
    prefix: str
    what: str
    state: str
    code: str = ""
    at_last: tuple[str, str] | None = None
    rule: Mapping[str, Any] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """A whole address: what follows the prefix is free."""
        return WHOLE[self.channel](self.prefix)

    def as_rule(self) -> Rule:
        return parse_rule({**self.rule, "match": {**self.rule.get("match", {}), "prefix": self.prefix}})


WHOLE = {
    "fcm": lambda prefix: f"{prefix}-1",
    "apns": lambda prefix: prefix.ljust(64, "0"),
    "onesignal": lambda prefix: f"{prefix}-0000-4000-8000-000000000001",
    "sms": lambda prefix: prefix,
    "discord": lambda prefix: f"https://discord.com/api/webhooks/100000000000000001/{prefix}",
    "discord_dm": lambda prefix: prefix.ljust(18, "0"),
}
VENDOR_OF = {"sms": "twilio", "discord_dm": "discord"}
"""Where the vendor is not called as the channel."""

EXPIRED = ("expired", "validity_over")
IN_DOUBT = ("unknown", "validity_over")
SENT, DELIVERED, FAILED, QUEUED, UNKNOWN = "sent", "delivered", "failed", "queued", "unknown"

_Row = MagicAddress
ADDRESSES: tuple[MagicAddress, ...] = (
    _Row("fcm", "magic-accepted", "takes it", SENT),
    _Row("fcm", "magic-unregistered", "the app was removed; the address is given up", FAILED, "UNREGISTERED",
         rule={"code": "UNREGISTERED"}),
    _Row("fcm", "magic-other-sender", "another project's token; the address is given up", FAILED, "SENDER_ID_MISMATCH",
         rule={"code": "SENDER_ID_MISMATCH"}),
    _Row("fcm", "magic-refused", "refuses the message", FAILED, "INVALID_ARGUMENT",
         rule={"code": "INVALID_ARGUMENT", "body_override": BAD_DATA}),
    _Row("fcm", "magic-throttled", "429, Retry-After 1 s", QUEUED, "QUOTA_EXCEEDED", EXPIRED, THROTTLED),
    _Row("fcm", "magic-500", "500", QUEUED, "INTERNAL", EXPIRED, {"status": 500}),
    _Row("fcm", "magic-503-once", "503 the first time", QUEUED, "UNAVAILABLE", (SENT, ""),
         {"status": 503, "match": ONCE}),
    _Row("fcm", "magic-timeout", "never answers", QUEUED, "timeout", IN_DOUBT, HANG),
    _Row("fcm", "magic-misconfigured", "our keys are wrong", QUEUED, "THIRD_PARTY_AUTH_ERROR", EXPIRED,
         {"code": "THIRD_PARTY_AUTH_ERROR"}),
    _Row("apns", "face0200", "takes it", SENT),
    _Row("apns", "face0410", "the app was removed; the address is given up", FAILED, "Unregistered",
         rule={"code": "Unregistered"}),
    _Row("apns", "face0400", "a wrong token; the address is given up", FAILED, "BadDeviceToken",
         rule={"code": "BadDeviceToken"}),
    _Row("apns", "face0413", "refuses the message", FAILED, "PayloadTooLarge", rule={"code": "PayloadTooLarge"}),
    _Row("apns", "face0429", "429", QUEUED, "TooManyRequests", EXPIRED, {"code": "TooManyRequests"}),
    _Row("apns", "face0500", "500", QUEUED, "InternalServerError", EXPIRED, {"status": 500}),
    _Row("apns", "face0503", "503 the first time", QUEUED, "ServiceUnavailable", (SENT, ""),
         {"status": 503, "match": ONCE}),
    _Row("apns", "face0504", "never answers", QUEUED, "timeout", IN_DOUBT, HANG),
    _Row("apns", "face0403", "our key is wrong", QUEUED, "InvalidProviderToken", EXPIRED,
         {"code": "InvalidProviderToken"}),
    _Row("onesignal", "face0200", "takes it, and tells nothing more", SENT, rule={"receipts": []}),
    _Row("onesignal", "face0201", "takes it; then the event `received`", DELIVERED, rule={"receipts": ["received"]}),
    _Row("onesignal", "face0202", "takes it; then the event `failed`", FAILED, "push_failed",
         rule={"receipts": ["failed:InvalidToken"]}),
    _Row("onesignal", "face0203", "takes it; then the event `unsubscribed`; the address is given up", FAILED,
         "unsubscribed", rule={"receipts": ["unsubscribed"]}),
    _Row("onesignal", "face0410", "nobody is subscribed; the address is given up", FAILED, "not_subscribed",
         rule={"code": "not_subscribed"}),
    _Row("onesignal", "face0400", "refuses the message", FAILED, "http_400", rule={"status": 400}),
    _Row("onesignal", "face0429", "429, Retry-After 1 s", QUEUED, "http_429", EXPIRED, THROTTLED),
    _Row("onesignal", "face0500", "500", QUEUED, "http_500", EXPIRED, {"status": 500}),
    _Row("onesignal", "face0503", "503 the first time; then the usual events", QUEUED, "http_503", (DELIVERED, ""),
         {"status": 503, "match": ONCE}),
    _Row("onesignal", "face0504", "never answers", QUEUED, "timeout", IN_DOUBT, HANG),
    _Row("onesignal", "face0403", "our key is wrong", QUEUED, "http_403", EXPIRED, {"code": "access_denied"}),
    _Row("sms", "+15005550001", "no valid number; it is given up", FAILED, "21211", rule={"code": "21211"}),
    _Row("sms", "+15005550002", "cannot route to it", FAILED, "21612", rule={"code": "21612"}),
    _Row("sms", "+15005550003", "not enabled for that country", FAILED, "21408", rule={"code": "21408"}),
    _Row("sms", "+15005550004", "the person replied STOP; it is given up", FAILED, "21610", rule={"code": "21610"}),
    _Row("sms", "+15005550009", "no mobile number; it is given up", FAILED, "21614", rule={"code": "21614"}),
    _Row("sms", "+15005550200", "takes it, and tells nothing more", SENT, rule={"receipts": []}),
    _Row("sms", "+15005550201", "takes it; then the status `delivered`", DELIVERED, rule={"receipts": ["delivered"]}),
    _Row("sms", "+15005553007", "takes it; then `undelivered`: the carrier filtered it", FAILED, "30007",
         rule={"receipts": ["undelivered:30007"]}),
    _Row("sms", "+15005553005", "takes it; then `undelivered`: nobody's number; it is given up", FAILED, "30005",
         rule={"receipts": ["undelivered:30005"]}),
    _Row("sms", "+15005553003", "takes it; `undelivered` the first time: the phone was off; then the usual statuses",
         QUEUED, "30003", (DELIVERED, ""), {"receipts": ["undelivered:30003"], "match": ONCE}),
    _Row("sms", "+15005550429", "429, Retry-After 1 s", QUEUED, "20429", EXPIRED, THROTTLED),
    _Row("sms", "+15005550500", "500", UNKNOWN, "20500", rule={"status": 500}),
    _Row("sms", "+15005550504", "never answers", UNKNOWN, "timeout", rule=HANG),
    _Row("sms", "+15005550401", "our token is wrong", QUEUED, "20003", EXPIRED, {"code": "20003"}),
    _Row("discord", "magic-accepted", "takes it", SENT),
    _Row("discord", "magic-deleted", "the webhook was deleted; it is given up", FAILED, "10015",
         rule={"code": "10015"}),
    _Row("discord", "magic-refused", "refuses the message", FAILED, "50035", rule={"code": "50035"}),
    _Row("discord", "magic-throttled", "429, Retry-After 1 s", QUEUED, "http_429", EXPIRED, THROTTLED),
    _Row("discord", "magic-500", "500", UNKNOWN, "http_500", rule={"status": 500}),
    _Row("discord", "magic-timeout", "never answers", UNKNOWN, "timeout", rule=HANG),
    _Row("discord", "magic-misconfigured", "its proxy blocks us", QUEUED, "40333", EXPIRED, {"code": "40333"}),
    _Row("discord_dm", "9990200", "takes it", SENT),
    _Row("discord_dm", "9990404", "no such user; the address is given up", FAILED, "10013",
         rule={"code": "10013", "match": {"route": "open_dm"}}),
    _Row("discord_dm", "9990403", "the user takes no messages; the address is given up", FAILED, "50007",
         rule={"code": "50007"}),
    _Row("discord_dm", "9990400", "refuses the message", FAILED, "50035", rule={"code": "50035"}),
    _Row("discord_dm", "9990429", "429, Retry-After 1 s", QUEUED, "http_429", EXPIRED, THROTTLED),
    _Row("discord_dm", "9990500", "500", QUEUED, "http_500", EXPIRED, {"status": 500}),
    _Row("discord_dm", "9990503", "overloaded the first time", QUEUED, "130000", (SENT, ""),
         {"code": "130000", "match": ONCE}),
    _Row("discord_dm", "9990504", "never answers", QUEUED, "timeout", IN_DOUBT, HANG),
    _Row("discord_dm", "9990401", "our bot's token is wrong", QUEUED, "http_401", EXPIRED, {"code": "0"}),
)  # fmt: skip


def rules_of(vendor: str) -> list[Rule]:
    """The rules of a vendor's magic addresses; each vendor counts on rules of its own."""
    return [row.as_rule() for row in ADDRESSES if VENDOR_OF.get(row.channel, row.channel) == vendor and row.rule]
