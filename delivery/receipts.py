"""What a vendor's receipt changes: one statement per receipt, which never takes an end state back.

    receipt     queued          unknown     sent        delivered, failed, expired, skipped, cancelled
    on its way  sent ¹          sent ²      –           –
    delivered   delivered       delivered   delivered   –
    lost        failed ¹        failed ²    failed ³    –
    lost for a  queued again ¹  failed ²    queued      –
    passing                                 again ³
    reason

¹ It speaks of the attempt that is under way: it names the batch that the delivery is in. Or of an earlier one in doubt,
  where the vendor has a key: then a repeat would be the same message.
² Not of an earlier message, whose end is known. What was in doubt is not sent again by itself.
³ It speaks of the message that was accepted last.

A receipt may come before our own record of the attempt. The delivery then keeps its batch, and `statements.record` adds
what the attempt was to what the receipt has made of it. Only one that is sent again leaves its batch at once.
"""

from __future__ import annotations

import random
from collections import Counter
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import structlog
from django.conf import settings

from delivery import telemetry
from delivery.attempt_log import logged
from delivery.channels.base import Outcome
from delivery.channels.policy import ChannelPolicy, backoff_seconds
from delivery.channels.receipts import Receipt, Reference
from delivery.choices import KEYED_CHANNELS
from followers import statements as followers
from followers.choices import Channel
from followers.clock import as_utc
from followers.mongo import collection, durably
from notifications.choices import DeliveryState
from notifications.models import Notification
from notifications.reviews import DEAD
from notifications.statements import arrived, change_deliveries

logger = structlog.get_logger(__name__)
Document = dict[str, Any]

PATIENCE_SECONDS = 3.0
"""The vendor waits for our answer, and repeats the receipt if it gets none."""
QUEUED, SENT, UNKNOWN = DeliveryState.QUEUED.value, DeliveryState.SENT.value, DeliveryState.UNKNOWN.value
_random = random.Random()


class Noted(StrEnum):
    """What became of a receipt."""

    CHANGED = "changed"
    NOTHING_NEW = "nothing_new"  # A repeat, one that was overtaken, or one about an earlier message.
    NO_SUCH_DELIVERY = "no_such_delivery"


def settle(reference: Reference, channel: Channel, receipt: Receipt, now: datetime) -> Noted:
    """Carries out what a receipt says: the delivery's state, and what it means for the address and for us.

    Doing it again changes nothing. Raises PyMongoError while the database is away.
    """
    noted = note(reference, channel, receipt, now)
    if noted is Noted.NO_SUCH_DELIVERY:
        logger.info("A receipt names no delivery of ours.", channel=channel, status=receipt.status)
        return noted
    if receipt.outcome is Outcome.DEAD:
        _give_up_address(reference, receipt.code, now)
    if receipt.outcome is Outcome.MISCONFIGURED and noted is Noted.CHANGED:
        logger.error(
            "A vendor reports that our account cannot send.",
            channel=channel,
            code=receipt.code,
            reason=receipt.message,
            notification=str(reference.notification),
        )
    return noted


def note(reference: Reference, channel: Channel, receipt: Receipt, now: datetime) -> Noted:
    """Writes a receipt into its delivery where it is news, and derives the notification's state and wake_at.

    Found by the notification's _id and the endpoint.
    """
    query = {
        "_id": reference.notification,
        "deliveries": {"$elemMatch": {"endpoint": reference.endpoint, "channel": channel.value}},
    }
    here = {
        "$and": [
            {"$eq": ["$$d.endpoint", reference.endpoint]},
            {"$eq": ["$$d.channel", channel.value]},
            _is_news(reference, receipt, channel in KEYED_CHANNELS),
        ]
    }
    policy = settings.CHANNEL_POLICIES[channel.value]
    pipeline = change_deliveries(here, _change(reference, receipt, policy, now))
    result = durably(lambda: collection(Notification).update_one(query, pipeline), PATIENCE_SECONDS)
    if not result.matched_count:
        return Noted.NO_SUCH_DELIVERY
    if not result.modified_count:
        return Noted.NOTHING_NEW
    _count(reference, channel, receipt)
    return Noted.CHANGED


def _count(reference: Reference, channel: Channel, receipt: Receipt) -> None:
    """A receipt's end state. `sent` is counted by whoever records the attempt, if it is under way still."""
    fields = {"deliveries": {"$elemMatch": {"endpoint": reference.endpoint, "channel": channel.value}}}
    row = durably(lambda: collection(Notification).find_one({"_id": reference.notification}, fields), PATIENCE_SECONDS)
    for stored in row["deliveries"] if row else ():
        if stored["state"] != QUEUED and not (stored["state"] == SENT and stored["batch"]):
            telemetry.count(Counter([(channel.value, stored["state"], receipt.code)]))


def _is_news(reference: Reference, receipt: Receipt, keyed: bool) -> Document:
    """Whether the receipt tells of `$$d` what is not known yet: the module's table."""
    if receipt.outcome is Outcome.DELIVERED:
        return {"$in": ["$$d.state", [QUEUED, UNKNOWN, SENT]]}
    under_way = {"$eq": ["$$d.batch", reference.batch]}
    in_doubt = {"$in": [Outcome.UNKNOWN.value, "$$d.attempt_log.outcome"]}
    same = {"$eq": ["$$d.provider_message_id", {"$literal": receipt.provider_message_id}]}
    other = {"$not": [same]} if receipt.provider_message_id else True
    cases = [
        {"$and": [{"$eq": ["$$d.state", QUEUED]}, {"$or": [under_way, in_doubt]} if keyed else under_way]},
        {"$and": [{"$eq": ["$$d.state", UNKNOWN]}, other]},
    ]
    if receipt.outcome is not Outcome.SENT:
        cases.append({"$and": [{"$eq": ["$$d.state", SENT]}, same if receipt.provider_message_id else True]})
    return {"$or": cases}


def _change(reference: Reference, receipt: Receipt, policy: ChannelPolicy, now: datetime) -> Document:
    """What news changes in `$$d`. The batch stays: whoever holds it records its attempt and lets go."""
    known_id = "$$d.provider_message_id"
    told = {
        "provider_message_id": {"$literal": receipt.provider_message_id} if receipt.provider_message_id else known_id,
        "sent_at": {"$ifNull": ["$$d.sent_at", now]},
        "error_code": {"$literal": receipt.code},
        "error_message": {"$literal": receipt.message},
        "next_attempt_at": None,
        "attempt_log": logged("$$d.attempt_log", [{"$literal": _log_entry(receipt, now)}]),
    }
    if receipt.outcome is Outcome.SENT:
        return {**told, "state": SENT}
    if receipt.outcome is Outcome.DELIVERED:
        return {**told, **arrived(now)}
    lost = {**told, "state": DeliveryState.FAILED.value}
    if receipt.outcome is not Outcome.RETRY:
        return lost
    return _again_or(lost, reference, policy, now)


def _again_or(lost: Document, reference: Reference, policy: ChannelPolicy, now: datetime) -> Document:
    """sent, or in its batch → queued without one, while attempts and validity last; else `lost`.

    The vendor has said that it did not arrive, so that a repeat is no second message to the person. An attempt that is
    not recorded yet is counted here: its record will find no row.
    """
    under_way = {"$eq": ["$$d.batch", reference.batch]}
    attempts = {"$add": ["$$d.attempts", {"$cond": [under_way, 1, 0]}]}
    # A person's retry has a budget of its own.
    of_budget = {"$subtract": [attempts, {"$ifNull": ["$$d.attempts_before_retry", 0]}]}
    waits = [backoff_seconds(policy, n, None, _random) for n in range(1, policy.max_attempts + 1)]
    times = [now + timedelta(seconds=wait) for wait in waits]
    next_attempt_at = {"$arrayElemAt": [times, {"$max": [{"$subtract": [of_budget, 1]}, 0]}]}
    again = {
        **lost,
        "state": QUEUED,
        "batch": None,
        "attempts": attempts,
        "next_attempt_at": next_attempt_at,
        "last_attempt_at": {"$cond": [under_way, now, "$$d.last_attempt_at"]},
    }
    may_repeat = {
        "$and": [
            {"$ne": ["$$d.state", UNKNOWN]},
            {"$lt": [of_budget, policy.max_attempts]},
            {"$lt": [next_attempt_at, "$expires_at"]},
        ]
    }
    return {"$cond": [may_repeat, again, lost]}


def _log_entry(receipt: Receipt, now: datetime) -> Document:
    words = f"The vendor's receipt: {receipt.status}" + (f"; {receipt.message}" if receipt.message else "")
    return {
        "at": now,
        "outcome": DEAD if receipt.outcome is Outcome.DEAD else "receipt",  # The review's rule asks for it.
        "code": (receipt.code or receipt.status)[:64],
        "message": words[:500],
        "latency_ms": None,
    }


def _give_up_address(reference: Reference, code: str, now: datetime) -> None:
    """A dead address is deactivated, unless it was registered again since the alert was made."""
    fields = {"created_at": 1}
    alert = durably(
        lambda: collection(Notification).find_one({"_id": reference.notification}, fields), PATIENCE_SECONDS
    )
    endpoint = followers.addresses({reference.endpoint}).get(reference.endpoint)
    if alert is None or endpoint is None or as_utc(endpoint["registered_at"]) > as_utc(alert["created_at"]):
        return
    followers.deactivate_endpoint(reference.endpoint, endpoint["registered_at"], code, now)
