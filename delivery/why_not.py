"""Why a follower did, or did not, get the alert of one trade or general update: what support is asked most."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from bson import ObjectId

from delivery.explanations import STATES, explain
from delivery.trace import alert_called, events_called
from followers import clock
from followers.admin_base import moment
from followers.choices import Channel
from followers.models import Follow, Follower
from followers.mongo import collection, durably
from notifications.choices import DeliveryState, FanOutState, Kind
from notifications.models import Notification
from notifications.statements import event, notification_id
from notifications.update_events import is_update

Document = dict[str, Any]


class Cause(StrEnum):
    """What an answer comes down to."""

    THERE = "there"  # There is an alert; it says itself what became of it.
    NO_TRADE = "no_trade"  # Nothing of that name was taken in, or published.
    UNKNOWN_TRADER = "unknown_trader"
    TOO_OLD = "too_old"  # The trade's validity was over when it came.
    NEVER_FOLLOWED = "never_followed"
    FOLLOWED_LATER = "followed_later"
    FOLLOWED_NO_MORE = "followed_no_more"
    NOT_NAMED = "not_named"  # A general update to other followers.
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
    kind: Kind = Kind.TRADE_ALERT  # What the event is.


def why(follower: Follower, term: str) -> Answer:
    """What became of a trade, or of a general update, for this follower.

    Parameters:
      term: Its id or correlation id, or the id of an alert of it. Of several with one correlation id it is one
        that this follower has an alert of.

    Indexes: those of `events_called`; notification _id; follow (trader_id, follower_id).
    """
    called = _called(term)
    if not called:
        return Answer(Cause.NO_TRADE, [
            f"No trade and no general update {term!r} was taken in. If the engine has sent it, look among the rejected "
            "messages, and whether consume_trades is behind."
        ])  # fmt: skip
    by_alert = {_alert_id(one, follower): one for one in called}
    alert = durably(lambda: collection(Notification).find_one({"_id": {"$in": list(by_alert)}}))
    if alert is not None:
        found = by_alert[alert["_id"]]
        return Answer(Cause.THERE, what_became(alert), found["_id"], alert["_id"], _kind(found))
    cause, words = _without(follower, called[0])
    return Answer(cause, [words], called[0]["_id"], kind=_kind(called[0]))


def _called(term: str) -> list[Document]:
    if called := events_called(term):
        return called
    alert = alert_called(term)
    of_alert = event(alert["event_id"]) if alert else None
    return [of_alert] if of_alert else []


def _alert_id(event: Document, follower: Follower) -> ObjectId:
    return notification_id(clock.as_utc(event["executed_at"]), event["external_id"], follower.pk)


def _kind(event: Document) -> Kind:
    return Kind.UPDATE if is_update(event) else Kind.TRADE_ALERT


def what_became(alert: Document) -> list[str]:
    """A stored alert in sentences."""
    deliveries = [(d["channel"], d["state"], d["error_code"]) for d in alert["deliveries"]]
    return in_sentences(deliveries, (alert.get("sizing") or {}).get("reason") or "")


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


def _without(follower: Follower, event: Document) -> tuple[Cause, str]:
    """Why there is no alert, the surest cause first."""
    who = follower.external_id
    if event["trader_id"] is None:
        if not is_update(event):
            trader = event["trader_external_id"]
            return Cause.UNKNOWN_TRADER, f"The trader {trader} is not known here, so that nobody follows them."
        if follower.pk not in event["follower_ids"]:
            return Cause.NOT_NAMED, f"This update was published to others: {who} is not among them."
        return _owed(event, who)
    if event["state"] == FanOutState.EXPIRED:
        received, over = _shown(event["received_at"]), _shown(event["expires_at"])
        return Cause.TOO_OLD, f"The trade came at {received}, and was worth acting on until {over}: nobody was told."
    return _unfollowed(event, follower) or _owed(event, who)


def _unfollowed(event: Document, follower: Follower) -> tuple[Cause, str] | None:
    """Why the follower was not among the trader's when it happened; None = they were."""
    who, trader, what = follower.external_id, event["trader_external_id"], _what(event)
    query = {"trader_id": event["trader_id"], "follower_id": follower.pk}
    follow = durably(lambda: collection(Follow).find_one(query))
    if follow is None:
        return Cause.NEVER_FOLLOWED, f"{who} does not follow {trader}."
    if follow["since"] > event["received_at"]:
        return (
            Cause.FOLLOWED_LATER,
            f"{who} follows {trader} since {_shown(follow['since'])}; the {what} had come at "
            f"{_shown(event['received_at'])}.",
        )
    if follow["ended_at"] is not None and follow["ended_at"] <= (event["fanned_out_at"] or event["received_at"]):
        return Cause.FOLLOWED_NO_MORE, f"{who} had stopped following {trader} at {_shown(follow['ended_at'])}."
    return None


def _owed(event: Document, who: str) -> tuple[Cause, str]:
    what = _what(event)
    if event["state"] == FanOutState.FAILED:
        return (
            Cause.FAN_OUT_FAILED,
            f"The fan-out of this {what} has failed in part. Tick it in its list, and run it again.",
        )
    if event["state"] == FanOutState.PENDING:
        done = f"{len(event['shards_done'])} of {event['shards']} shards are done"
        return Cause.UNDER_WAY, f"The fan-out is still under way ({done}); the alert may be written any moment."
    if event.get("alerts_pruned_at"):
        return Cause.REMOVED, f"The {what}'s alerts have been removed, as the retention settings say. There was one."
    return Cause.MISSING, f"{who} was owed an alert, and none is stored. Run a proof, and tell the operators."


def _shown(at: datetime) -> str:
    return moment(clock.as_utc(at))


def _what(event: Document) -> str:
    return "update" if is_update(event) else "trade"
