"""What became of an alert, told to the follower: no vendor's code, nobody's address, nothing that they cannot use."""

from __future__ import annotations

from typing import Any

from followers.choices import PUSH_CHANNELS, Channel
from followers.clock import as_utc
from notifications.choices import DeliveryState, Reason
from notifications.explained import WHY_NONE

Document = dict[str, Any]

NOT_SENT_STATES = (
    DeliveryState.SKIPPED, DeliveryState.EXPIRED, DeliveryState.CANCELLED, DeliveryState.FAILED, DeliveryState.UNKNOWN
)  # fmt: skip
"""A delivery in one of these did not reach its follower, as far as anybody knows."""

BY_REASON: dict[str, str] = {
    **WHY_NONE,
    Reason.SUPERSEDED_BY_EXIT: "The trader left the position before it could be sent, so it was withdrawn.",
    Reason.VALIDITY_OVER: "It was no longer worth acting on before it could be sent.",
    Reason.CHANNEL_OFF: "This channel is not available at present.",
    Reason.CHANNEL_OFF_BY_FOLLOWER: "You have switched this channel off.",
    Reason.CRITICAL_ONLY: "You want only critical alerts on this channel.",
    Reason.MUTED: "You have muted this trader.",
    Reason.BELOW_MIN_VALUE: "Your order would be worth less than the least value that you want to hear of.",
    Reason.QUIET_HOURS: "It came in your quiet hours, and would not have been valid after them.",
    Reason.SMS_LEGAL_HOURS: "No SMS may be sent at this hour where you live.",
    Reason.SMS_DAILY_CAP: "You have had as many SMS today as are sent in a day.",
    Reason.TEST_MODE: "This system is being tested and sends to test accounts only.",
    Reason.ENDPOINT_INACTIVE: "The device was signed off, or registered by somebody else, before it was sent.",
}
WAITING: dict[str, str] = {
    Reason.QUIET_HOURS: "It waits for the end of your quiet hours.",
    Reason.SMS_LEGAL_HOURS: "It waits until SMS may be sent again where you live.",
}
BY_STATE: dict[str, str] = {
    DeliveryState.QUEUED: "It is on its way.",
    DeliveryState.SENT: "It was sent.",
    DeliveryState.DELIVERED: "It arrived.",
    DeliveryState.FAILED: "The provider did not deliver it.",
    DeliveryState.UNKNOWN: "It may have arrived; the provider gave no answer.",
    DeliveryState.EXPIRED: BY_REASON[Reason.VALIDITY_OVER],
    DeliveryState.SKIPPED: "It was not sent.",
    DeliveryState.CANCELLED: BY_REASON[Reason.SUPERSEDED_BY_EXIT],
}
_DECIDED = {DeliveryState.SKIPPED, DeliveryState.EXPIRED, DeliveryState.CANCELLED}


def words(delivery: Document) -> str:
    """One sentence on a stored delivery. What still waits says for what."""
    state, code = delivery["state"], delivery["error_code"]
    if state == DeliveryState.QUEUED and code in WAITING:
        return WAITING[code]
    if state == DeliveryState.FAILED and delivery["channel"] in PUSH_CHANNELS:
        return f"{BY_STATE[state]} Open the app on that device to register it again."
    if state in _DECIDED and code in BY_REASON:
        return BY_REASON[code]
    return BY_STATE[state]


def told(deliveries: list[Document]) -> list[Document]:
    """What became of each delivery: channel, state, reason (a stable code where it was decided by us), words, times."""
    return [
        {
            "channel": d["channel"],
            "label": str(Channel(d["channel"]).label),
            "state": d["state"],
            "reason": d["error_code"] if d["state"] in _DECIDED else "",
            "words": words(d),
            **{name: d[name] and as_utc(d[name]) for name in ("sent_at", "delivered_at")},
        }
        for d in deliveries
    ]
