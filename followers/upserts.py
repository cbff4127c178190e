"""Bulk upsert of traders, followers, follows and endpoints by external id: the one way in which they are written.

One look-up, one insert of what is new and one bulk write of what has changed per call. What has not changed is not
written, so that saying the same again changes nothing. Callers say what they want as model fields, and only those that
they were given: a field that is absent leaves what is stored, and gets its default in a new row.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, TypeVar

from bson import Decimal128, ObjectId
from pymongo import UpdateOne
from pymongo.collection import Collection as MongoCollection

from followers import clock, erasures
from followers.choices import Environment
from followers.encryption import address_hash, encrypt
from followers.members import Address
from followers.models import Endpoint, Follow, Follower, Trader, follower_bucket
from followers.mongo import collection, durably, insert_missing

Document = dict[str, Any]
Key = TypeVar("Key", bound=Hashable)
Pair = tuple[ObjectId, ObjectId]
"""(trader, follower) of a follow."""


class Outcome(StrEnum):
    """What became of one row."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it is stored now."""

    id: ObjectId
    outcome: Outcome


def ids_of(rows: dict[Key, Row]) -> dict[Key, ObjectId]:
    return {key: row.id for key, row in rows.items()}


def merged(given: Iterable[tuple[Key, Document]]) -> dict[Key, Document]:
    """What is wanted of each key: of every field the last value that was given."""
    wanted: dict[Key, Document] = {}
    for key, fields in given:
        wanted[key] = {**wanted[key], **fields} if key in wanted else fields
    return wanted


# --- People ----------------------------------------------------------------------------------------------------------
def write_traders(wanted: dict[str, Document]) -> dict[str, Row]:
    """By external id. Index: followers_trader (external_id)."""
    return _write_people(collection(Trader), wanted, {})


def write_followers(wanted: dict[str, Document]) -> dict[str, Row]:
    """By external id. Index: followers_follower (external_id)."""
    return _write_people(collection(Follower), wanted, {"locale": "en", "timezone": "UTC", "preferences": {}})


def _write_people(target: MongoCollection[Document], wanted: dict[str, Document], defaults: Document) -> dict[str, Row]:
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

    return _upsert(target, wanted, read, new, change, same=lambda key: {"external_id": key})


def known_ids(model: type[Trader | Follower], external_ids: Collection[str]) -> dict[str, ObjectId]:
    """Those who are stored. Index: (external_id)."""
    query = {"external_id": {"$in": list(external_ids)}}
    return durably(lambda: {d["external_id"]: d["_id"] for d in collection(model).find(query, {"external_id": 1})})


def write_portfolios(model: type[Trader | Follower], wanted: dict[str, Document]) -> dict[str, Row]:
    """Sets `portfolio_value` (and `currency`) of people who are stored; whoever is not is left out of the answer.

    A value is as of a time (`portfolio_as_of`, aware UTC; now where it is not given), and never replaces a later one.
    Index: (external_id).
    """
    target, now = collection(model), clock.now()
    query = {"external_id": {"$in": list(wanted)}}
    stored = durably(lambda: {d["external_id"]: d for d in target.find(query)})
    rows: dict[str, Row] = {}
    statements: list[UpdateOne] = []
    for key, document in stored.items():
        fields = wanted[key]
        changed = _difference(document, {n: v for n, v in fields.items() if n != "portfolio_as_of"})
        at, before = fields.get("portfolio_as_of") or now, document["portfolio_as_of"]
        if before is not None and clock.as_utc(before) > at:
            changed = {}
        elif changed or (fields.get("portfolio_as_of") and (before is None or clock.as_utc(before) < at)):
            changed["portfolio_as_of"] = at
        rows[key] = Row(document["_id"], Outcome.UPDATED if changed else Outcome.UNCHANGED)
        if changed:
            not_later = {"$or": [{"portfolio_as_of": None}, {"portfolio_as_of": {"$lte": at}}]}
            mine = {"_id": document["_id"], "external_id": key}  # Erased since: nothing is written.
            statements.append(UpdateOne({**mine, **not_later}, {"$set": changed}))
    if statements:
        durably(lambda: target.bulk_write(statements, ordered=False))
    return rows


# --- Follows ---------------------------------------------------------------------------------------------------------
def write_follows(wanted: dict[Pair, Document]) -> dict[Pair, Row]:
    """Index: followers_follow (follower_id); a person follows few traders, so it is read by the person.

    `since` of a follow that holds stays. One that has ended starts anew, now: what happened in between was not for
    this follower, and nothing may look as if they had missed it.
    """
    target = collection(Follow)
    now = clock.now()

    def read(keys: list[Pair]) -> dict[Pair, Document]:
        query = {"follower_id": {"$in": [f for _, f in keys]}, "trader_id": {"$in": list({t for t, _ in keys})}}
        found = target.find(query).hint([("follower_id", 1)])
        return {pair: d for d in found if (pair := (d["trader_id"], d["follower_id"])) in wanted}

    def new(key: Pair, fields: Document) -> Document:
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

    rows = _upsert(target, wanted, read, new, change)
    erasures.withdraw_registrations({follower for _, follower in wanted})
    return rows


def end_follow(trader_id: ObjectId, follower_id: ObjectId, now: datetime) -> bool:
    """holds → ended; what has ended before keeps its time. Returns whether there is such a follow.

    Index: followers_follow (follower_id).
    """
    pair = {"trader_id": trader_id, "follower_id": follower_id}
    holds = {**pair, "$or": [{"ended_at": None}, {"ended_at": {"$gt": now}}]}
    hint = [("follower_id", 1)]
    change = {"$set": {"ended_at": now}}
    if durably(lambda: collection(Follow).update_one(holds, change, hint=hint)).matched_count:
        return True
    return durably(lambda: collection(Follow).find_one(pair, {"_id": 1}, hint=hint)) is not None


# --- Endpoints -------------------------------------------------------------------------------------------------------
Owned = tuple[Address, Document]
"""An address, and its owner as {"follower_id"} or {"trader_id"}."""


def write_endpoints(given: Collection[Owned]) -> list[Row]:
    """The rows of the addresses, in the order given. Index: followers_endpoint (channel, address_hash).

    An address has one owner: the last who registers it. One that was deactivated comes back by being registered again.
    """
    target = collection(Endpoint)
    now = clock.now()
    keys = [(address.channel, address_hash(address.address)) for address, _ in given]
    addresses = {key: address.address for key, (address, _) in zip(keys, given, strict=True)}
    nobody = {"follower_id": None, "trader_id": None}
    wanted = merged(
        (key, {**address.details, **nobody, **owner}) for key, (address, owner) in zip(keys, given, strict=True)
    )

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
            "_id": ObjectId(), "channel": key[0], "address": encrypt(addresses[key]), "address_hash": key[1],
            "platform": "", "app": "", "environment": Environment.PRODUCTION.value, "active": True,
            "deactivated_reason": "", "deactivated_at": None, "registered_at": now, **fields,
        }  # fmt: skip

    def change(document: Document, fields: Document) -> Document:
        changed = _difference(document, {**fields, "active": True})
        if {"follower_id", "trader_id", "active"} & changed.keys():
            changed |= {"deactivated_reason": "", "deactivated_at": None, "registered_at": now}
        return changed

    rows = _upsert(target, wanted, read, new, change) if wanted else {}
    erasures.withdraw_registrations({owner["follower_id"] for _, owner in given if "follower_id" in owner})
    return [rows[key] for key in keys]


# --- One way for all -------------------------------------------------------------------------------------------------
def _upsert(
    target: MongoCollection[Document],
    wanted: dict[Key, Document],
    read: Callable[[list[Key]], dict[Key, Document]],
    new: Callable[[Key, Document], Document],
    change: Callable[[Document, Document], Document],
    same: Callable[[Key], Document] = lambda key: {},
) -> dict[Key, Row]:
    """Inserts what is missing and updates what differs. Returns what became of each key.

    Parameters:
      read: The stored documents of these keys.
      new: The document to insert for a key.
      change: The fields in which a stored document differs from what is wanted; empty = none.
      same: What must still be true of a document when it is updated, beside its id.
    """
    stored = durably(lambda: read(list(wanted)))
    fresh = {key: new(key, fields) for key, fields in wanted.items() if key not in stored}
    keys = list(fresh)
    overtaken = {keys[position] for position in insert_missing(target, list(fresh.values()))}
    rows = {key: Row(d["_id"], Outcome.CREATED) for key, d in fresh.items() if key not in overtaken}
    changes = {key: fields for key, d in stored.items() if (fields := change(d, wanted[key]))}
    rows |= {key: Row(d["_id"], Outcome.UPDATED if key in changes else Outcome.UNCHANGED) for key, d in stored.items()}
    again = {key: wanted[key] for key in overtaken}  # Somebody else inserted them since they were looked for.
    if changes:
        statements = [
            UpdateOne({"_id": stored[key]["_id"], **same(key)}, {"$set": fields}) for key, fields in changes.items()
        ]
        if durably(lambda: target.bulk_write(statements, ordered=False)).matched_count < len(statements):
            again |= {key: wanted[key] for key in changes}  # Some were removed since they were looked for.
    if again:
        for key, row in _upsert(target, again, read, new, change, same).items():
            changed_before = key in changes and row.outcome is Outcome.UNCHANGED
            rows[key] = Row(row.id, Outcome.UPDATED) if changed_before else row
    return rows


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
