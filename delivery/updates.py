"""General updates: words from the platform, or from a trader, that go the way of an alert.

An update is stored together with its fan-out batches in one transaction, and then hinted. So a crash leaves either
nothing, and the caller asks again under the same id, or an update that dispatch_due wakes.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import pymongo
import structlog
from bson import ObjectId
from pymongo.client_session import ClientSession
from pymongo.errors import DuplicateKeyError

from delivery.broker import send_hints
from delivery.intake import shards_for, shards_of_trader
from delivery.models import Batch
from delivery.statements import shard_batch
from followers import clock
from followers.models import Follower
from followers.mongo import collection, database
from followers.spans import tracer
from followers.statements import followers_by_external_id, traders_by_external_id
from notifications.choices import FanOutState, Priority
from notifications.models import Update
from notifications.update_events import as_event, stored_update, update_id
from notifications.validity import validity_rules

logger = structlog.get_logger(__name__)
Document = dict[str, Any]

FOLLOWERS_MAX: Final = 10_000
"""Followers that one update may name; whoever has more publishes several, or to a trader's followers."""

STORE_SECONDS: Final = 10


@dataclass(frozen=True, slots=True)
class Draft:
    """An update to be published, to one of three audiences. Its lengths are those of the model."""

    external_id: str  # The caller's; publishing under it again changes nothing.
    title: str
    text: str
    trader: str = ""  # External id.
    followers: Sequence[str] = ()  # External ids, at most FOLLOWERS_MAX.
    follower: ObjectId | None = None  # One alone, by our id: it names nobody once they are erased.
    is_test: bool = False
    published_by: str = ""
    correlation_id: str = ""  # Empty = that of the request it comes with, else a new one.


@dataclass(frozen=True, slots=True)
class Published:
    """The update as it is stored, and whether this call stored it."""

    update: Document
    is_new: bool


class UnknownTraderError(LookupError):
    """No trader has this external id."""


class UpdateConflictError(ValueError):
    """Another update was published under this id."""


def publish_update(draft: Draft) -> Published:
    """Stores an update with its shards and hints them; on the majority's disks when it returns.

    Names that no follower has are kept in `unknown_followers`; they spoil nothing for the others.

    Raises
    ------
    ValueError
        None of the three audiences, or several, or too many followers.
    UnknownTraderError, UpdateConflictError
        As they say; nothing was stored.
    pymongo.errors.PyMongoError
        Nobody knows whether it was stored; to publish it again under the same id is safe.
    """
    audiences = [draft.trader, draft.followers, draft.follower]
    if sum(map(bool, audiences)) != 1 or len(draft.followers) > FOLLOWERS_MAX:
        raise ValueError(f"An update goes to a trader's followers, or to 1 to {FOLLOWERS_MAX:,} named ones.")
    now = clock.now()
    update = _document(draft, now)
    batches = [] if update["state"] == FanOutState.DONE else _shards_of(update, now)
    if not _store(update, batches):
        return Published(_same(update), is_new=False)
    logger.info("An update was published.", correlation_id=update["correlation_id"], update_id=draft.external_id)
    send_hints(batches)
    return Published(update, is_new=True)


def send_test_alert(follower: Follower, published_by: str = "the follower") -> Published:
    """A test to one follower, for which they or staff asked, on every channel that their preferences leave open."""
    draft = Draft(
        external_id=f"test-{uuid.uuid4()}",
        title="Test alert",
        text="This is a test: your alerts arrive here.",
        follower=follower.pk,
        is_test=True,
        published_by=published_by,
    )
    return publish_update(draft)


def _document(draft: Draft, now: datetime) -> Document:
    """A `notifications.models.Update` as MongoDB stores it."""
    trader = _trader(draft.trader) if draft.trader else None
    named = list(dict.fromkeys(draft.followers))
    known = followers_by_external_id(named) if named else {}
    follower_ids = [draft.follower] if draft.follower else sorted(known.values())
    nobody = trader is None and not follower_ids
    return {
        "_id": update_id(draft.external_id),
        "external_id": draft.external_id,
        "title": draft.title,
        "text": draft.text,
        "is_test": draft.is_test,
        "trader_id": trader["_id"] if trader else None,
        "trader_external_id": draft.trader,
        "follower_ids": follower_ids,
        "unknown_followers": [name for name in named if name not in known],
        "fingerprint": _fingerprint(draft),
        "published_by": draft.published_by[:200],
        "received_at": now,
        "expires_at": now + timedelta(seconds=validity_rules().update_seconds),
        "priority": Priority.NORMAL.value,
        "correlation_id": draft.correlation_id or _of_the_request() or secrets.token_hex(16),
        "traceparent": tracer().current_traceparent(),
        "state": (FanOutState.DONE if nobody else FanOutState.PENDING).value,
        "shards": _shard_count(trader, len(follower_ids)),
        "shards_done": [],
        "alerts_written": 0,
        "alerts_erased": 0,
        "fanned_out_at": now if nobody else None,
        "alerts_pruned_at": None,
    }


def _of_the_request() -> str:
    """The correlation id that every log line of the present request has (notifyhub/correlation.py); empty = none."""
    return str(structlog.contextvars.get_contextvars().get("correlation_id", ""))


def _trader(external_id: str) -> Document:
    trader = traders_by_external_id([external_id]).get(external_id)
    if trader is None:
        raise UnknownTraderError(external_id)
    return trader


def _shard_count(trader: Document | None, named: int) -> int:
    return shards_for(named) if trader is None else shards_of_trader(trader)


def _shards_of(update: Document, now: datetime) -> list[Document]:
    event = as_event(update)
    return [shard_batch(event, shard, now) for shard in range(update["shards"])]


def _store(update: Document, batches: list[Document]) -> bool:
    """Stores both or neither. Returns False where an update of this id is stored already."""

    def store(session: ClientSession) -> None:
        collection(Update).insert_one(update, session=session)
        if batches:
            collection(Batch).insert_many(batches, session=session)

    try:
        with pymongo.timeout(STORE_SECONDS), database().client.start_session() as session:
            session.with_transaction(store)
    except DuplicateKeyError:
        return False
    return True


def _same(update: Document) -> Document:
    """What is stored under the update's id. Raises UpdateConflictError if it says something else, or to others."""
    stored = stored_update(update["_id"])
    if stored is None or stored["fingerprint"] != update["fingerprint"]:
        raise UpdateConflictError(update["external_id"])
    return stored


def _fingerprint(draft: Draft) -> str:
    followers = [str(draft.follower)] if draft.follower else sorted(set(draft.followers))
    said = [draft.title, draft.text, draft.is_test, draft.trader, followers]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
