"""Why a follower did, or did not, get the alert of one trade: the question that support is asked most."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from bson import ObjectId
from bson.errors import InvalidId

from delivery.explanations import STATES, explain
from followers import clock
from followers.admin_base import moment
from followers.choices import Channel
from followers.models import Follow, Follower
from followers.mongo import collection, durably
from notifications.choices import DeliveryState, FanOutState
from notifications.models import Notification, TradeEvent
from notifications.statements import event_id, notification_id

Document = dict[str, Any]


class Cause(StrEnum):
    """What an answer comes down to."""

    THERE = "there"  # There is an alert; it says itself what became of it.
    NO_TRADE = "no_trade"  # Nothing of that name was taken in.
    UNKNOWN_TRADER = "unknown_trader"
    TOO_OLD = "too_old"  # The trade's validity was over when it came.
    NEVER_FOLLOWED = "never_followed"
    FOLLOWED_LATER = "followed_later"
    FOLLOWED_NO_MORE = "followed_no_more"
    UNDER_WAY = "under_way"  # The fan-out has not come to this follower yet.
    FAN_OUT_FAILED = "fan_out_failed"
    REMOVED = "removed"  # Its time in the database is over.
    MISSING = "missing"  # It is owed, and it is not there.


class Answer(NamedTuple):
    """An answer in words, and what to look at."""

    cause: Cause
    words: list[str]
    event: ObjectId | None = None
    alert: ObjectId | None = None


def why(follower: Follower, term: str) -> Answer:
    """What became of a trade for this follower.

    Parameters:
      term: The trade's event id or correlation id, or the id of an alert.

    Indexes: tradeevent _id, (correlation_id); notification _id; follow (trader_id, follower_id).
    """
    found = _event(term)
    if found is None:
        return Answer(Cause.NO_TRADE, [
            f"No trade {term!r} was taken in. If the engine has sent it, look among the rejected messages, "
            "and whether consume_trades is behind."
        ])  # fmt: skip
    alert_id = notification_id(clock.as_utc(found["executed_at"]), found["external_id"], follower.pk)
    alert = durably(lambda: collection(Notification).find_one({"_id": alert_id}))
    if alert is not None:
        return Answer(Cause.THERE, what_became(alert), found["_id"], alert_id)
    cause, words = _without(follower, found)
    return Answer(cause, [words], found["_id"])


def what_became(alert: Document) -> list[str]:
    """A stored alert in sentences."""
    deliveries = [(d["channel"], d["state"], d["error_code"]) for d in alert["deliveries"]]
    return in_sentences(deliveries, (alert["sizing"] or {}).get("reason") or "")


def in_sentences(deliveries: Sequence[tuple[str, str, str]], reason: str) -> list[str]:
    """One about the whole, if it was skipped, else one a delivery (channel, state, error code)."""
    if not deliveries:
        return [f"It was skipped. {explain('', reason).what}"]
    return [delivery_in_words(*delivery) for delivery in deliveries]


def delivery_in_words(channel: str, state: str, code: str) -> str:
    """One delivery: its channel, its state, and what its code means where there is one."""
    name = str(Channel(channel).label) if channel in Channel.values else channel
    if channel == Channel.IN_APP and state == DeliveryState.SENT:
        return f"{name}: It stands in the inbox."
    return f"{name}: {STATES[state]}" + (f" {explain(channel, code).what}" if code else "")


def _event(term: str) -> Document | None:
    events = collection(TradeEvent)
    found = durably(lambda: events.find_one({"_id": event_id(term)}) or events.find_one({"correlation_id": term}))
    if found is not None or (pk := _object_id(term)) is None:
        return found
    alert = durably(lambda: collection(Notification).find_one({"_id": pk}, {"event_id": 1}))
    return durably(lambda: events.find_one({"_id": alert["event_id"]})) if alert else None


def _without(follower: Follower, event: Document) -> tuple[Cause, str]:
    """Why there is no alert, the surest cause first."""
    who, trader = follower.external_id, event["trader_external_id"]
    if event["trader_id"] is None:
        return Cause.UNKNOWN_TRADER, f"The trader {trader} is not known here, so that nobody follows them."
    if event["state"] == FanOutState.EXPIRED:
        received, over = _shown(event["received_at"]), _shown(event["expires_at"])
        return Cause.TOO_OLD, f"The trade came at {received}, and was worth acting on until {over}: nobody was told."
    query = {"trader_id": event["trader_id"], "follower_id": follower.pk}
    follow = durably(lambda: collection(Follow).find_one(query))
    if follow is None:
        return Cause.NEVER_FOLLOWED, f"{who} does not follow {trader}."
    if follow["since"] > event["received_at"]:
        return (
            Cause.FOLLOWED_LATER,
            f"{who} follows {trader} since {_shown(follow['since'])}; the trade had come at "
            f"{_shown(event['received_at'])}.",
        )
    if follow["ended_at"] is not None and follow["ended_at"] <= (event["fanned_out_at"] or event["received_at"]):
        return Cause.FOLLOWED_NO_MORE, f"{who} had stopped following {trader} at {_shown(follow['ended_at'])}."
    return _owed(event, who)


def _owed(event: Document, who: str) -> tuple[Cause, str]:
    if event["state"] == FanOutState.FAILED:
        return Cause.FAN_OUT_FAILED, "The fan-out of this trade has failed in part. Run it again from the trade's page."
    if event["state"] == FanOutState.PENDING:
        done = f"{len(event['shards_done'])} of {event['shards']} shards are done"
        return Cause.UNDER_WAY, f"The fan-out is still under way ({done}); the alert may be written any moment."
    if event.get("alerts_pruned_at"):
        return Cause.REMOVED, "The trade's alerts have been removed, as the retention settings say. There was one."
    return Cause.MISSING, f"{who} was owed an alert, and none is stored. Run a proof, and tell the operators."


def _shown(at: datetime) -> str:
    return moment(clock.as_utc(at))


def _object_id(text: str) -> ObjectId | None:
    try:
        return ObjectId(text)
    except InvalidId:
        return None
