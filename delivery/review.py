"""What a person may decide about alerts in the review bucket: to send again, or on another channel.

First an outlook says what would happen to each alert and why not; then the decision is one conditional statement per
SEND_CHUNK alerts. It only queues: dispatch_due finds the deliveries due and makes their batches, and whoever sends them
asks once more whether they are still valid, not superseded, and at an active address.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from bson import ObjectId
from django.conf import settings
from django.db.models import TextChoices

from delivery.alerts import delivery
from delivery.attempt_log import logged
from delivery.channels.credentials import is_on
from delivery.choices import KEYED_CHANNELS
from followers import statements as followers
from followers.choices import VENDOR_CHANNELS, Channel
from followers.clock import as_utc
from followers.models import Endpoint
from followers.mongo import collection, durably
from notifications.choices import DeliveryState
from notifications.models import Notification
from notifications.reviews import REQUESTED, TROUBLED, UNSENT
from notifications.statements import derive

T = TypeVar("T")
Document = dict[str, Any]

SEND_CHUNK = 500
"""Alerts per statement; its literals are searched for each alert, so that more would cost more than they save."""

LOOK_CHUNK, READERS = 2_000, 2
"""Alerts per look ahead, and threads that read: a page looks at ten thousand, and each round trip costs it."""

RESENDABLE = [*TROUBLED, *UNSENT]
"""What a person may have sent: everything but what is under way or has reached the address."""

_DELIVERY = {name: f"$$d.{name}" for name in ("channel", "endpoint", "state", "batch")}
_FIELDS: Document = {
    "follower_id": 1, "trader_id": 1, "expires_at": 1, "superseded_by": 1,
    # Flat: what ten thousand nested documents cost is the collection of their garbage.
    "deliveries": {
        "$map": {
            "input": {"$filter": {"input": "$deliveries", "as": "d", "cond": {"$ne": ["$$d.endpoint", None]}}},
            "as": "d",
            "in": {**_DELIVERY, "outcomes": "$$d.attempt_log.outcome"},
        }
    },
}  # fmt: skip


Target = tuple[str, ObjectId]
"""Channel and address."""


class Obstacle(TextChoices):
    """Why an alert is not sent again, in words that follow a number of alerts."""

    EXPIRED = "expired", "no longer valid: the trade is too old to be copied, and nothing can be sent"
    SUPERSEDED = "superseded", "withdrawn: the trader has left the position since"
    INACTIVE = "inactive", "at an address that is deactivated, or that now belongs to somebody else"
    CHANNEL_OFF = "channel_off", "on a channel that has no credentials here"
    NO_ADDRESS = "no_address", "of somebody who has no active address on this channel"
    REACHED = "reached", "reached at every such address already; nobody is told twice"
    UNDER_WAY = "under_way", "being sent at this moment"
    NOTHING = "nothing", "without a delivery that failed"


@dataclass(slots=True)
class Outlook:
    """What a decision would do to the chosen alerts."""

    wanted: dict[ObjectId, list[Target]] = field(default_factory=dict)
    """What to queue, by alert; a delivery is added where the alert does not have it yet."""
    obstacles: Counter[Obstacle] = field(default_factory=Counter)
    channels: Counter[str] = field(default_factory=Counter)
    doubtful: int = 0
    """Messages that may arrive a second time: perhaps sent before, on a channel where the vendor drops no repeat."""

    @property
    def messages(self) -> int:
        return self.channels.total()


# --- Looking ahead ----------------------------------------------------------------------------------------------------
def outlook_of_retry(ids: Sequence[ObjectId], now: datetime) -> Outlook:
    """What would become of a retry of every delivery that is in trouble, at its own address."""
    outlook = Outlook()
    open_channels = {channel.value for channel in VENDOR_CHANNELS if is_on(channel, settings)}

    def read(chunk: list[ObjectId]) -> tuple[list[tuple[Document, list[Document]]], Mapping[ObjectId, Document]]:
        rows = [(row, _in_trouble(row)) for row in _reviewed(chunk)]
        live = [troubled for row, troubled in rows if _over(row, now) is None]
        return rows, followers.owners({d["endpoint"] for troubled in live for d in troubled})

    for rows, endpoints in _read_ahead(read, ids):
        for row, troubled in rows:
            _look_at_retry(outlook, row, troubled, endpoints, open_channels, now)
    return outlook


def outlook_elsewhere(ids: Sequence[ObjectId], channels: Sequence[Channel], now: datetime) -> dict[Channel, Outlook]:
    """What would become, for each channel, of sending to every active address of the recipients on it that was not
    reached yet."""
    outlooks = {channel: Outlook() for channel in channels}
    closed = [channel for channel in channels if not is_on(channel, settings)]
    usable = [channel for channel in channels if channel not in closed]

    def read(chunk: list[ObjectId]) -> tuple[list[Document], Mapping[tuple[ObjectId, str], list[ObjectId]]]:
        rows = _reviewed(chunk)
        valid = [row for row in rows if _over(row, now) is None]
        return rows, _active_endpoints(valid, usable)

    for rows, owned in _read_ahead(read, ids):
        for row in rows:
            if (over := _over(row, now)) is not None:
                for outlook in outlooks.values():
                    outlook.obstacles[over] += 1
                continue
            for channel in closed:
                outlooks[channel].obstacles[Obstacle.CHANNEL_OFF] += 1
            for channel in usable:
                _look_elsewhere(outlooks[channel], row, owned.get((_owner(row), channel.value), []), channel)
    return outlooks


def _reviewed(ids: list[ObjectId]) -> list[Document]:
    query = {"_id": {"$in": ids}, "review": {"$ne": None}}
    return durably(lambda: list(collection(Notification).find(query, _FIELDS, batch_size=LOOK_CHUNK)))


def _read_ahead(read: Callable[[list[ObjectId]], T], ids: Sequence[ObjectId]) -> Iterator[T]:
    """What `read` finds of each chunk, in order: the database works on the next ones while one is looked at."""
    with ThreadPoolExecutor(READERS, "outlook") as pool:
        yield from pool.map(read, _chunks(ids, LOOK_CHUNK))


def _chunks(ids: Sequence[ObjectId], size: int) -> Iterator[list[ObjectId]]:
    return (list(ids[start : start + size]) for start in range(0, len(ids), size))


def _over(row: Document, now: datetime) -> Obstacle | None:
    if row["superseded_by"]:
        return Obstacle.SUPERSEDED
    return Obstacle.EXPIRED if as_utc(row["expires_at"]) <= now else None


def _in_trouble(row: Document) -> list[Document]:
    """What failed, is unknown, or was asked for by a person and not sent."""
    return [
        d
        for d in row["deliveries"]
        if d["batch"] is None  # Otherwise a worker has it in hand, whatever a receipt said meanwhile.
        and (d["state"] in TROUBLED or (d["state"] in UNSENT and REQUESTED in _outcomes(d)))
    ]


def _is_under_way(stored: Document) -> bool:
    return bool(stored["state"] == DeliveryState.QUEUED or stored["batch"] is not None)


def _outcomes(stored: Document) -> Sequence[str]:
    """Of its attempts so far; a delivery that is not stored yet has none."""
    return stored.get("outcomes", ())


def _look_at_retry(
    outlook: Outlook,
    row: Document,
    troubled: list[Document],
    endpoints: Mapping[ObjectId, Document],
    open_channels: Set[str],
    now: datetime,
) -> None:
    if not troubled:
        under_way = any(_is_under_way(d) for d in row["deliveries"])
        outlook.obstacles[Obstacle.UNDER_WAY if under_way else Obstacle.NOTHING] += 1
    elif (over := _over(row, now)) is not None:
        outlook.obstacles[over] += 1
    else:
        found = [(d, _at_address(row, d, endpoints.get(d["endpoint"]), open_channels)) for d in troubled]
        sendable = [d for d, obstacle in found if obstacle is None]
        if sendable:
            _want(outlook, row, sendable)
        else:
            outlook.obstacles[next(obstacle for _, obstacle in found if obstacle is not None)] += 1


def _at_address(row: Document, stored: Document, endpoint: Document | None, open_channels: Set[str]) -> Obstacle | None:
    if endpoint is None or not endpoint["active"] or _owner(endpoint) != _owner(row):
        return Obstacle.INACTIVE
    return None if stored["channel"] in open_channels else Obstacle.CHANNEL_OFF


def _owner(document: Document) -> ObjectId:
    """Whose alert, or address, it is: a follower's, or a trader's community."""
    return document["follower_id"] or document["trader_id"]


def _active_endpoints(rows: list[Document], channels: Sequence[Channel]) -> dict[tuple[ObjectId, str], list[ObjectId]]:
    """By owner and channel. Indexes: followers_endpoint (follower_id) and (trader_id)."""
    people = [row["follower_id"] for row in rows if row["follower_id"] is not None]
    traders = [row["trader_id"] for row in rows if row["follower_id"] is None]
    active = {"channel": {"$in": [channel.value for channel in channels]}, "active": True}
    fields = {"follower_id": 1, "trader_id": 1, "channel": 1}

    def read() -> list[Document]:
        endpoints = collection(Endpoint)
        return [
            *endpoints.find({**active, "follower_id": {"$in": people}}, fields, hint=[("follower_id", 1)]),
            *endpoints.find({**active, "trader_id": {"$in": traders}, "follower_id": None}, fields),
        ]

    owned: dict[tuple[ObjectId, str], list[ObjectId]] = {}
    for endpoint in sorted(durably(read), key=lambda e: e["_id"]):
        owned.setdefault((_owner(endpoint), endpoint["channel"]), []).append(endpoint["_id"])
    return owned


def _look_elsewhere(outlook: Outlook, row: Document, endpoints: list[ObjectId], channel: Channel) -> None:
    if not endpoints:
        outlook.obstacles[Obstacle.NO_ADDRESS] += 1
        return
    present = {d["endpoint"]: d for d in row["deliveries"]}
    under_way = {endpoint for endpoint in endpoints if endpoint in present and _is_under_way(present[endpoint])}
    sendable = [
        present.get(endpoint) or {"channel": channel.value, "endpoint": endpoint, "state": None}
        for endpoint in endpoints
        if endpoint not in present or (endpoint not in under_way and present[endpoint]["state"] in RESENDABLE)
    ]
    if sendable:
        _want(outlook, row, sendable)
    else:
        outlook.obstacles[Obstacle.UNDER_WAY if under_way else Obstacle.REACHED] += 1


def _want(outlook: Outlook, row: Document, sendable: list[Document]) -> None:
    outlook.wanted[row["_id"]] = [(d["channel"], d["endpoint"]) for d in sendable]
    for stored in sendable:
        outlook.channels[stored["channel"]] += 1
        in_doubt = stored["state"] == DeliveryState.UNKNOWN or "unknown" in _outcomes(stored)
        outlook.doubtful += in_doubt and stored["channel"] not in KEYED_CHANNELS


# --- Deciding --------------------------------------------------------------------------------------------------------
def send_again(wanted: Mapping[ObjectId, Sequence[Target]], by: str, note: str, now: datetime) -> list[ObjectId]:
    """failed, unknown or unsent → queued, due now; a wanted delivery that an alert does not have is added.

    What was reached, is under way or is no longer valid by now stays as it is. Each delivery starts with a fresh budget
    of attempts, while `attempts` goes on counting all of them. Its log keeps who decided it and why; that entry ends
    what an unknown outcome before it left undecided. A resolved review is open again until the outcome is known.

    Returns the alerts in which something was queued.
    """
    entry = {
        "at": now, "outcome": REQUESTED, "code": "", "message": f"{by}: {note}"[:500], "latency_ms": None,
    }  # fmt: skip
    sent: list[ObjectId] = []
    for ids in _chunks(list(wanted), SEND_CHUNK):
        # As they would be stored if the alert does not have them yet.
        sent += _queue(ids, [[delivery(*target) for target in wanted[pk]] for pk in ids], entry, now)
    return sent


def _queue(ids: list[ObjectId], wanted: list[list[Document]], entry: Document, now: datetime) -> list[ObjectId]:
    alerts = collection(Notification)
    query = {"_id": {"$in": ids}, "expires_at": {"$gt": now}, "superseded_by": "", "review": {"$ne": None}}
    pipeline = _queueing(ids, wanted, entry, now)
    durably(lambda: alerts.update_many(query, pipeline))
    noted = {"at": now, "outcome": REQUESTED, "message": entry["message"]}
    done = {"_id": {"$in": ids}, "deliveries.attempt_log": {"$elemMatch": noted}}
    found = durably(lambda: {row["_id"] for row in alerts.find(done, {"_id": 1})})
    return [pk for pk in ids if pk in found]


def _queueing(ids: list[ObjectId], wanted: list[list[Document]], entry: Document, now: datetime) -> list[Document]:
    mine = {"$arrayElemAt": [{"$literal": wanted}, {"$indexOfArray": [{"$literal": ids}, "$_id"]}]}
    chosen = {
        "$and": [
            {"$in": ["$$d.endpoint", "$$mine.endpoint"]},
            {"$in": ["$$d.state", RESENDABLE]},
            {"$eq": ["$$d.batch", None]},
            {"$not": [{"$in": [now, "$$d.attempt_log.at"]}]},  # So that the statement can be repeated.
        ]
    }
    queued = {
        "state": DeliveryState.QUEUED.value,
        "batch": None,
        "next_attempt_at": now,
        "sent_at": None,
        "delivered_at": None,
        "attempts_before_retry": "$$d.attempts",
        "attempt_log": _log_with("$$d", entry),
    }
    present = {
        "$map": {
            "input": "$deliveries",
            "as": "d",
            "in": {"$cond": [chosen, {"$mergeObjects": ["$$d", queued]}, "$$d"]},
        }
    }
    missing = {
        "$filter": {"input": "$$mine", "as": "m", "cond": {"$not": [{"$in": ["$$m.endpoint", "$deliveries.endpoint"]}]}}
    }
    fresh = {
        "$map": {
            "input": missing,
            "as": "m",
            "in": {"$mergeObjects": ["$$m", {"next_attempt_at": now, "attempt_log": {"$literal": [entry]}}]},
        }
    }
    deliveries = {"$let": {"vars": {"mine": mine}, "in": {"$concatArrays": [present, fresh]}}}
    return [{"$set": {"deliveries": deliveries}}, {"$set": {"review": _open_again(now)}}, *derive()]


def _log_with(stored: str, entry: Document) -> Document:
    """The delivery's log with the decision. An end that left no attempt in the log, as a crash does, is noted first:
    only the log tells, should nothing be sent after all, that it may have arrived before."""
    unknown = {
        "at": {"$ifNull": [f"{stored}.last_attempt_at", entry["at"]]},
        "outcome": "unknown",
        "code": f"{stored}.error_code",
        "message": f"{stored}.error_message",
        "latency_ms": None,
    }
    unnoted = {
        "$and": [
            {"$eq": [f"{stored}.state", DeliveryState.UNKNOWN.value]},
            {"$not": [{"$in": ["unknown", f"{stored}.attempt_log.outcome"]}]},
        ]
    }
    first = {"$cond": [unnoted, [unknown], []]}
    return logged(f"{stored}.attempt_log", first, {"$literal": [entry]})


def _open_again(now: datetime) -> Document:
    """A resolved review of an alert in which something is queued now."""
    asked = {
        "$and": [
            {"$eq": ["$$d.state", DeliveryState.QUEUED.value]},
            {"$in": [now, "$$d.attempt_log.at"]},
        ]
    }
    is_asked = {"$anyElementTrue": [{"$map": {"input": "$deliveries", "as": "d", "in": asked}}]}
    opened = {"$mergeObjects": ["$review", {"open": True, "opened_at": now, "resolved_at": None, "resolved_by": ""}]}
    return {"$cond": [{"$and": [is_asked, {"$not": ["$review.open"]}]}, opened, "$review"]}
