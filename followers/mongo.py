"""How the hot paths speak to MongoDB: plain collections, and statements that survive a lost connection."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar, cast

from bson import ObjectId
from django.db import connection
from django.db.models import Model
from pymongo import WriteConcern
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import AutoReconnect, BulkWriteError, ConnectionFailure, PyMongoError, WriteConcernError
from pymongo.topology_description import TOPOLOGY_TYPE

from followers.outage import MONGODB

T = TypeVar("T")
Document = dict[str, Any]
Position = tuple[datetime, ObjectId]
"""Of a row in a list by time: when it was made, and its id."""

DUPLICATE_KEY = 11000
REPEAT_FOR_SECONDS = 30.0
"""How long a statement is repeated before its caller is told; the database's own elections take some 12 s."""

_repeat_no_more = threading.Event()


def repeat_no_more() -> None:
    """This process is about to end: a statement that fails from now on is not repeated; whoever comes next does it."""
    _repeat_no_more.set()


def database() -> Database[dict[str, Any]]:
    """The database, over the process's one connection pool."""
    return cast(Any, connection).database


def collection(model: type[Model]) -> Collection[dict[str, Any]]:
    """The model's collection, over the process's one connection pool. Reads and writes are majority and journaled."""
    return database()[model._meta.db_table]


def quick(model: type[Model]) -> Collection[dict[str, Any]]:
    """The same collection, with writes that the primary alone acknowledges, before its journal.

    Only for what does no harm if a failover takes it back: it is found undone, and done again.
    """
    return collection(model).with_options(write_concern=PRIMARY_ONLY)


PRIMARY_ONLY = WriteConcern(w=1, j=False)


def provisional(model: type[Model]) -> Collection[dict[str, Any]]:
    """The same collection, with writes that the primary alone acknowledges; only within `one_primary`."""
    return quick(model) if _election() else collection(model)


@contextmanager
def one_primary() -> Iterator[None]:
    """What is written in here goes to one primary, and its last write is acknowledged by a majority and journaled.

    That write then confirms the provisional ones before it: a primary's oplog and journal have one order, and a
    majority has all of it up to there. So several statements wait for the disks once instead of each by itself.

    Raises PrimaryChangedError, a passing error, if another primary was elected meanwhile: it may lack what the old one
    alone had acknowledged, so all of it is to be done again. A driver repeats a statement on the new primary silently,
    but not before it has heard of its election. A sharded cluster has no single order; there every write is confirmed
    by itself, see `provisional`.
    """
    before = _election()
    yield
    if _election() != before:
        raise PrimaryChangedError("Another primary was elected between two writes.")


class PrimaryChangedError(AutoReconnect):
    """Writes that one primary was to confirm together went to two."""


def _election() -> ObjectId | None:
    """The newest election of a primary that the driver has heard of; None = this is no replica set."""
    client = database().client
    if client.topology_description.topology_type == TOPOLOGY_TYPE.Unknown:
        client.admin.command("ping")  # Nothing was asked of it yet, or nobody answers.
    return client.topology_description.max_election_id


def durably(statement: Callable[[], T], repeat_for_seconds: float = REPEAT_FOR_SECONDS) -> T:
    """Runs an idempotent statement and repeats it while the connection or the write concern fails.

    The driver repeats single-document writes by itself, once, but never `update_many` or `delete_many`. A statement
    whose answer was lost may have been applied, so only idempotent ones belong here.

    Raises the last error once `repeat_for_seconds` have passed, and every other error at once.
    """
    deadline = time.monotonic() + repeat_for_seconds
    attempt = 0
    while True:
        try:
            result = statement()
        except PyMongoError as error:
            if not is_passing(error):
                raise
            MONGODB.away(error)
            attempt += 1
            pause = min(2.0, 0.05 * 2**attempt) * random.uniform(0.5, 1.0)
            if time.monotonic() > deadline or _repeat_no_more.wait(pause):
                raise
        else:
            MONGODB.back()
            return result


def is_passing(error: BaseException) -> bool:
    """Whether the same statement can succeed a moment later. Nothing of ours is wrong then: no traceback is due."""
    if isinstance(error, BulkWriteError):
        return not error.details.get("writeErrors") and bool(error.details.get("writeConcernErrors"))
    if isinstance(error, (AutoReconnect, ConnectionFailure, WriteConcernError)):
        return True
    return isinstance(error, PyMongoError) and any(map(error.has_error_label, PASSING_LABELS))


PASSING_LABELS = ("RetryableWriteError", "TransientTransactionError")


def insert_missing(target: Collection[dict[str, Any]], documents: list[dict[str, Any]]) -> list[int]:
    """Inserts many at once and takes "is there already" for success.

    Returns the positions in `documents` of those that were there already. Raises BulkWriteError for anything else.
    """
    if not documents:
        return []

    def insert() -> list[int]:
        try:
            target.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            failed = error.details["writeErrors"]
            if any(f["code"] != DUPLICATE_KEY for f in failed) or error.details.get("writeConcernErrors"):
                raise
            return [f["index"] for f in failed]
        return []

    return durably(insert)


def older_than(position: Position | None) -> Document:
    """What comes after `position`, as a query on an index that ends in (created_at, _id)."""
    if position is None:
        return {}
    at, last = position
    return {"created_at": {"$lte": at}, "$or": [{"created_at": {"$lt": at}}, {"_id": {"$lt": last}}]}
