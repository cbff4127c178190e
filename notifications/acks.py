"""What a follower's app says of an alert: it has come (`received`), was in front of a person (`seen`), was `opened`.

Each is kept with its first time on the delivery that it was said of, whatever that one's state, and stands for nothing
but itself. It also shows that the alert arrived there:

    acknowledged    becomes
    sent, unknown   delivered
    queued          delivered, if it may have reached the vendor: it is in a batch, or an earlier attempt is in doubt
    else            what it was; an end is never taken back

The app may be quicker than our own record of the attempt. As with a vendor's receipt (delivery/receipts.py) the
delivery then keeps its batch, and whoever holds it adds the attempt and lets go.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from bson import ObjectId

from followers.choices import Channel
from followers.mongo import collection, durably
from notifications.choices import DeliveryState
from notifications.frames import Ack
from notifications.models import Notification
from notifications.statements import arrived, change_deliveries
from notifications.telemetry import DELIVERIES

Document = dict[str, Any]

PATIENCE_SECONDS = 3.0  # An app waits for the answer.
MAY_HAVE_ARRIVED: list[Document] = [
    {"state": {"$in": [DeliveryState.SENT.value, DeliveryState.UNKNOWN.value]}},
    {
        "state": DeliveryState.QUEUED.value,
        "$or": [{"batch": {"$ne": None}}, {"attempt_log.outcome": DeliveryState.UNKNOWN.value}],
    },
]


class Acknowledged(StrEnum):
    """What became of an acknowledgement."""

    NOTED = "noted"
    NOT_FOUND = "not_found"  # The follower has no such alert, or it has no delivery there.
    WHICH_DEVICE = "which_device"  # It went to several devices on that channel, and none was named.


def acknowledge(follower_id: ObjectId, ack: Ack, now: datetime) -> Acknowledged:
    """Notes what the app says; again changes nothing. The alert may have left the inbox by now.

    Raises PyMongoError while the database is away. Found by the notification's _id.
    """
    mine = {"_id": ack.id, "follower_id": follower_id}
    where: Document = {"channel": ack.channel.value}
    if ack.channel is not Channel.IN_APP:
        devices = [ack.device] if ack.device is not None else _devices(mine, ack.channel)
        if len(devices) != 1:
            return Acknowledged.WHICH_DEVICE if devices else Acknowledged.NOT_FOUND
        where["endpoint"] = devices[0]
    if _write(mine, where, {"$or": MAY_HAVE_ARRIVED}, {**_said(ack, now), **arrived(now)}):
        DELIVERIES.labels(ack.channel.value, DeliveryState.DELIVERED.value, "").inc()
        return Acknowledged.NOTED
    return Acknowledged.NOTED if _write(mine, where, {}, _said(ack, now)) else Acknowledged.NOT_FOUND


def _said(ack: Ack, now: datetime) -> Document:
    """The acknowledgements of `$$d` with this one, if it is the first of its kind."""
    event = ack.event.value
    return {"acks": {"$mergeObjects": ["$$d.acks", {event: {"$ifNull": [f"$$d.acks.{event}", now]}}]}}


def _write(mine: Document, where: Document, state: Document, change: Document) -> bool:
    """Changes the one delivery that is there and in such a state. Returns whether there is one."""
    query = {**mine, "deliveries": {"$elemMatch": {**where, **state}}}
    here = {"$and": [{"$eq": [f"$$d.{name}", value]} for name, value in where.items()]}
    pipeline = change_deliveries(here, change)
    result = durably(lambda: collection(Notification).update_one(query, pipeline), PATIENCE_SECONDS)
    return result.matched_count == 1


def _devices(mine: Document, channel: Channel) -> list[ObjectId]:
    """The endpoints that the alert has on a channel."""
    fields = {"deliveries.channel": 1, "deliveries.endpoint": 1}
    alert = durably(lambda: collection(Notification).find_one(mine, fields), PATIENCE_SECONDS)
    return [d["endpoint"] for d in alert["deliveries"] if d["channel"] == channel] if alert else []
