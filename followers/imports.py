"""Bulk upsert of traders, followers, follows and endpoints by their external ids, in memory that stays flat.

Each chunk of lines is read, compared and written in bulk: one look-up, one insert of what is new and one bulk write of
what has changed per collection. What has not changed is not written, so that importing a file again changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC
from decimal import Decimal
from typing import Any, BinaryIO, TypeVar

from bson import Decimal128, ObjectId
from pymongo import UpdateOne
from pymongo.collection import Collection as MongoCollection

from followers import clock
from followers.choices import Environment
from followers.encryption import address_hash, encrypt
from followers.import_lines import MAX_LINE_BYTES, BadLineError, ImportLine, parse_line, read_chunks
from followers.models import Endpoint, Follow, Follower, Trader, follower_bucket
from followers.mongo import collection, durably, insert_missing

Document = dict[str, Any]
Key = TypeVar("Key", bound=Hashable)

CHUNK_LINES = 2_000
"""Lines per bulk write; beyond it MongoDB gets no faster, and memory grows with it."""


@dataclass(slots=True)
class Counts:
    """What became of the rows of one kind."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0


@dataclass(slots=True)
class ImportSummary:
    """What an import did. A row that several chunks name is counted in each of them."""

    lines: int = 0  # Without blank ones.
    rejected: int = 0
    traders: Counts = field(default_factory=Counts)
    followers: Counts = field(default_factory=Counts)
    follows: Counts = field(default_factory=Counts)
    endpoints: Counts = field(default_factory=Counts)


@dataclass(frozen=True, slots=True)
class RejectedLine:
    number: int  # From 1, as editors count.
    reason: str


def import_followers(
    source: BinaryIO,
    on_reject: Callable[[RejectedLine], None],
    on_progress: Callable[[int], None] = lambda size: None,
    chunk_lines: int = CHUNK_LINES,
) -> ImportSummary:
    """Imports every good line of `source`; a bad one is handed to `on_reject` and the rest goes on.

    Within the file the last line about something wins. `on_progress` is told the bytes that were worked off since it
    was last called.
    """
    summary = ImportSummary()
    for chunk in read_chunks(source, chunk_lines):
        good = list(_good_lines(chunk.lines, summary, on_reject))
        if good:
            write_lines(good, summary)
        on_progress(chunk.size)
    return summary


def _good_lines(
    lines: Iterable[tuple[int, bytes | None]], summary: ImportSummary, on_reject: Callable[[RejectedLine], None]
) -> Iterator[ImportLine]:
    for number, raw in lines:
        summary.lines += 1
        try:
            if raw is None:
                raise BadLineError(f"The line is longer than {MAX_LINE_BYTES:,} bytes.")
            yield parse_line(raw)
        except BadLineError as error:
            summary.rejected += 1
            on_reject(RejectedLine(number, str(error)))


def write_lines(lines: Collection[ImportLine], summary: ImportSummary) -> None:
    """Brings the database to what `lines` say, and adds to the summary what that took."""
    traders = _write_traders(lines, summary.traders)
    followers = _write_followers(lines, summary.followers)
    _write_follows(lines, traders, followers, summary.follows)
    _write_endpoints(lines, followers, summary.endpoints)


# --- Writing ---------------------------------------------------------------------------------------------------------
def _upsert(
    target: MongoCollection[Document],
    wanted: dict[Key, Document],
    read: Callable[[list[Key]], dict[Key, Document]],
    new: Callable[[Key, Document], Document],
    change: Callable[[Document, Document], Document],
    *,
    counts: Counts,
) -> dict[Key, ObjectId]:
    """Inserts what is missing and updates what differs. Returns the id of each key's document.

    Parameters:
      read: The stored documents of these keys.
      new: The document to insert for a key.
      change: The fields in which a stored document differs from what is wanted; empty = none.
    """
    stored = durably(lambda: read(list(wanted)))
    fresh = {key: new(key, fields) for key, fields in wanted.items() if key not in stored}
    keys = list(fresh)
    overtaken = {keys[position] for position in insert_missing(target, list(fresh.values()))}
    counts.inserted += len(fresh) - len(overtaken)
    changes = [(d["_id"], c) for key, d in stored.items() if (c := change(d, wanted[key]))]
    if changes:
        statements = [UpdateOne({"_id": _id}, {"$set": fields}) for _id, fields in changes]
        durably(lambda: target.bulk_write(statements, ordered=False))
    counts.updated += len(changes)
    counts.unchanged += len(stored) - len(changes)
    ids = {key: d["_id"] for key, d in stored.items()} | {k: d["_id"] for k, d in fresh.items() if k not in overtaken}
    if overtaken:  # Somebody else inserted them since they were looked for.
        ids |= _upsert(target, {k: wanted[k] for k in overtaken}, read, new, change, counts=counts)
    return ids


def _write_traders(lines: Collection[ImportLine], counts: Counts) -> dict[str, ObjectId]:
    """Index: followers_trader (external_id)."""
    wanted = _merged((line.trader_id, line.trader) for line in lines)
    return _write_people(collection(Trader), wanted, {}, counts)


def _write_followers(lines: Collection[ImportLine], counts: Counts) -> dict[str, ObjectId]:
    """Index: followers_follower (external_id)."""
    wanted = _merged((line.follower_id, line.follower) for line in lines)
    return _write_people(collection(Follower), wanted, {"locale": "en", "timezone": "UTC", "preferences": {}}, counts)


def _write_people(
    target: MongoCollection[Document], wanted: dict[str, Document], defaults: Document, counts: Counts
) -> dict[str, ObjectId]:
    now = clock.now()

    def read(keys: list[str]) -> dict[str, Document]:
        return {d["external_id"]: d for d in target.find({"external_id": {"$in": keys}})}

    def new(key: str, fields: Document) -> Document:
        as_of = now if fields.get("portfolio_value") is not None else None
        base = {"external_id": key, "name": "", "portfolio_value": None, "portfolio_as_of": as_of, "currency": ""}
        return {"_id": ObjectId(), **base, **_fresh(defaults), **_stored(fields)}

    def change(document: Document, fields: Document) -> Document:
        changed = _difference(document, fields)
        return {**changed, "portfolio_as_of": now} if "portfolio_value" in changed else changed

    return _upsert(target, wanted, read, new, change, counts=counts)


def _write_follows(
    lines: Collection[ImportLine], traders: dict[str, ObjectId], followers: dict[str, ObjectId], counts: Counts
) -> None:
    """Index: followers_follow (follower_id); a person follows few traders, so it is read by the person.

    `since` of a follow that holds stays. One that has ended starts anew, now: what happened in between was not for
    this follower, and nothing may look as if they had missed it.
    """
    target = collection(Follow)
    wanted = _merged(((traders[line.trader_id], followers[line.follower_id]), line.follow) for line in lines)
    now = clock.now()

    def read(keys: list[tuple[ObjectId, ObjectId]]) -> dict[tuple[ObjectId, ObjectId], Document]:
        query = {"follower_id": {"$in": [f for _, f in keys]}, "trader_id": {"$in": list({t for t, _ in keys})}}
        found = target.find(query).hint([("follower_id", 1)])
        return {pair: d for d in found if (pair := (d["trader_id"], d["follower_id"])) in wanted}

    def new(key: tuple[ObjectId, ObjectId], fields: Document) -> Document:
        trader, follower = key
        return {
            "_id": ObjectId(), "trader_id": trader, "follower_id": follower, "since": now, "ended_at": None,
            "bucket": follower_bucket(follower), "multiplier": Decimal128("1"), "allocation": None,
            "max_notional": None, **_stored(fields),
        }  # fmt: skip

    def change(document: Document, fields: Document) -> Document:
        changed = _difference(document, fields)
        if document["ended_at"] is not None:
            changed["ended_at"] = None
            if document["ended_at"].replace(tzinfo=UTC) <= now:
                changed["since"] = now
        return changed

    _upsert(target, wanted, read, new, change, counts=counts)


def _write_endpoints(lines: Collection[ImportLine], followers: dict[str, ObjectId], counts: Counts) -> None:
    """Index: followers_endpoint (channel, address_hash).

    An address has one owner: the last who registers it. One that was deactivated comes back, as the file registers it.
    """
    target = collection(Endpoint)
    now = clock.now()
    addresses: dict[tuple[str, str], str] = {}
    given: list[tuple[tuple[str, str], Document]] = []
    for line in lines:
        for endpoint in line.endpoints:
            key = (endpoint.channel, address_hash(endpoint.address))
            addresses[key] = endpoint.address
            given.append((key, {**endpoint.details, "follower_id": followers[line.follower_id]}))

    def read(keys: list[tuple[str, str]]) -> dict[tuple[str, str], Document]:
        hashes: dict[str, list[str]] = {}
        for channel, hashed in keys:
            hashes.setdefault(channel, []).append(hashed)
        found: dict[tuple[str, str], Document] = {}
        for channel, wanted_hashes in hashes.items():
            query = {"channel": channel, "address_hash": {"$in": wanted_hashes}}
            found |= {(channel, d["address_hash"]): d for d in target.find(query, {"address": 0})}
        return found

    def new(key: tuple[str, str], fields: Document) -> Document:
        return {
            "_id": ObjectId(), "trader_id": None, "channel": key[0], "address": encrypt(addresses[key]),
            "address_hash": key[1], "platform": "", "app": "", "environment": Environment.PRODUCTION.value,
            "active": True, "deactivated_reason": "", "deactivated_at": None, "registered_at": now, **fields,
        }  # fmt: skip

    def change(document: Document, fields: Document) -> Document:
        changed = _difference(document, {**fields, "trader_id": None, "active": True})
        if {"follower_id", "trader_id", "active"} & changed.keys():
            changed |= {"deactivated_reason": "", "deactivated_at": None, "registered_at": now}
        return changed

    wanted = _merged(given)
    if wanted:
        _upsert(target, wanted, read, new, change, counts=counts)


# --- Fields ----------------------------------------------------------------------------------------------------------
def _merged(given: Iterable[tuple[Key, Document]]) -> dict[Key, Document]:
    """What is wanted of each key: of every field the last value that was given."""
    wanted: dict[Key, Document] = {}
    for key, fields in given:
        if key in wanted:
            wanted[key] = {**wanted[key], **fields}
        else:
            wanted[key] = fields
    return wanted


def _fresh(defaults: Document) -> Document:
    return {name: dict(value) if isinstance(value, dict) else value for name, value in defaults.items()}


def _stored(fields: Document) -> Document:
    """The fields as MongoDB keeps them."""
    return {name: Decimal128(value) if isinstance(value, Decimal) else value for name, value in fields.items()}


def _difference(document: Document, fields: Document) -> Document:
    """The wanted fields that the stored document does not have; numbers are compared by value: 1 is 1.0."""
    different = {n: v for n, v in fields.items() if not _is_same(document.get(n), v)}
    return _stored(different) if different else {}


def _is_same(stored: object, wanted: object) -> bool:
    if isinstance(stored, Decimal128) and isinstance(wanted, Decimal):
        return stored.to_decimal() == wanted
    return stored == wanted
