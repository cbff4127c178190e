"""The hot paths' MongoDB statements on traders, followers, follows and endpoints."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson import ObjectId

from followers import erasures
from followers.models import Endpoint, Follow, Follower, Trader
from followers.mongo import collection, durably

Document = dict[str, Any]

FOLLOWER_FIELDS = {
    "external_id": 1, "portfolio_value": 1, "currency": 1, "locale": 1, "timezone": 1, "preferences": 1,
}  # fmt: skip
ENDPOINT_FIELDS = {"follower_id": 1, "channel": 1}
ADDRESS_FIELDS = {
    "follower_id": 1,
    "trader_id": 1,
    "channel": 1,
    "address": 1,
    "platform": 1,
    "app": 1,
    "environment": 1,
    "active": 1,
    "registered_at": 1,
}

AT_ONCE = 4_000
"""Documents in one answer. MongoDB's own first one holds 101, and each of the others costs a round trip."""


@dataclass(frozen=True, slots=True)
class AudienceMember:
    """One follower of a trader, with what a fan-out needs to know of them."""

    follow: Document  # multiplier, allocation, max_notional
    follower: Document  # _id, external_id, portfolio_value, currency, locale, timezone, preferences
    endpoints: list[Document]  # Active ones: _id, channel; in a stable order.


def traders_by_external_id(external_ids: Iterable[str]) -> dict[str, Document]:
    """Index: followers_trader (external_id)."""
    query = {"external_id": {"$in": list(set(external_ids))}}
    return durably(lambda: {t["external_id"]: t for t in collection(Trader).find(query)})


def audience_size_up_to(trader_id: ObjectId, limit: int) -> int:
    """How many follows the trader has, counted no further than `limit`. Index: follow (trader_id, bucket, _id)."""
    return durably(lambda: collection(Follow).count_documents({"trader_id": trader_id}, limit=limit))


def read_audience(
    trader_id: ObjectId, buckets: tuple[int, int], followed_at: datetime, not_ended_by: datetime, chunk: int
) -> Iterator[list[AudienceMember]]:
    """Reads a trader's followers in chunks, so that memory stays flat whatever the audience.

    Parameters:
      buckets: The first and the last bucket, both included.
      followed_at: Whoever followed later is left out.
      not_ended_by: Whoever has ended by then is left out.
      chunk: Followers a chunk.

    Index: followers_follow (trader_id, bucket, _id); followers by _id; followers_endpoint (follower_id).
    """
    query = {
        "trader_id": trader_id,
        "bucket": {"$gte": buckets[0], "$lte": buckets[1]},
        "since": {"$lte": followed_at},
        "$or": [{"ended_at": None}, {"ended_at": {"$gt": not_ended_by}}],
    }
    after: tuple[int, ObjectId] | None = None
    while follows := _follows_after(query, after, chunk):
        after = (follows[-1]["bucket"], follows[-1]["_id"])
        yield _with_followers(follows)
        if len(follows) < chunk:
            return


def read_followers(follower_ids: Sequence[ObjectId], chunk: int) -> Iterator[list[AudienceMember]]:
    """Named followers in chunks, whomever they follow; whoever was erased meanwhile is left out.

    Index: followers by _id; followers_endpoint (follower_id).
    """
    for start in range(0, len(follower_ids), chunk):
        yield _with_followers([{"follower_id": oid} for oid in follower_ids[start : start + chunk]])


def wishes_of(follower_ids: Collection[ObjectId]) -> dict[ObjectId, Document]:
    """What decides when and whether a follower is sent something, by id: external_id, timezone, preferences."""
    query = {"_id": {"$in": list(follower_ids)}}
    fields = {"external_id": 1, "timezone": 1, "preferences": 1}
    return durably(lambda: {f["_id"]: f for f in collection(Follower).find(query, fields)})


def followers_by_external_id(external_ids: Collection[str]) -> dict[str, ObjectId]:
    """Those who are stored; the row of somebody who was erased is nobody's. Index: followers_follower (external_id)."""
    query = {"external_id": {"$in": list(external_ids)}}
    rows = durably(lambda: list(collection(Follower).find(query, {"external_id": 1})))
    return {f["external_id"]: f["_id"] for f in rows if f["external_id"] != erasures.nameless(f["_id"])}


def _follows_after(query: Document, after: tuple[int, ObjectId] | None, chunk: int) -> list[Document]:
    """The next chunk in the index's order; a page by key, so that a lost cursor costs nothing but itself."""
    if after is not None:
        bucket, follow_id = after
        last = query["bucket"]["$lte"]
        rest = {"bucket": bucket, "_id": {"$gt": follow_id}}
        query = {
            **{k: v for k, v in query.items() if k != "bucket"},
            "$and": [{"$or": [rest, {"bucket": {"$gt": bucket, "$lte": last}}]}],
        }
    order = [("bucket", 1), ("_id", 1)]
    return durably(lambda: list(collection(Follow).find(query, sort=order, limit=chunk, batch_size=chunk)))


def _with_followers(follows: list[Document]) -> list[AudienceMember]:
    ids = [f["follower_id"] for f in follows]

    def read() -> tuple[dict[ObjectId, Document], dict[ObjectId, list[Document]]]:
        people = collection(Follower).find({"_id": {"$in": ids}}, FOLLOWER_FIELDS, batch_size=AT_ONCE)
        followers = {f["_id"]: f for f in people}
        endpoints: dict[ObjectId, list[Document]] = defaultdict(list)
        theirs = {"follower_id": {"$in": ids}, "active": True}
        for endpoint in collection(Endpoint).find(theirs, ENDPOINT_FIELDS, batch_size=AT_ONCE):
            endpoints[endpoint["follower_id"]].append(endpoint)
        return followers, endpoints

    followers, endpoints = durably(read)
    return [
        AudienceMember(follow, followers[fid], sorted(endpoints.get(fid, ()), key=lambda e: e["_id"]))
        for follow in follows
        if (fid := follow["follower_id"]) in followers  # Erased in between: nobody is left to tell.
    ]


def community_endpoints(trader_id: ObjectId) -> list[Document]:
    """The active community channels of a trader. Index: followers_endpoint (trader_id)."""
    query = {"trader_id": trader_id, "active": True}
    return durably(lambda: list(collection(Endpoint).find(query, ENDPOINT_FIELDS).sort("_id", 1)))


def addresses(endpoint_ids: Collection[ObjectId]) -> dict[ObjectId, Document]:
    """Endpoints with their encrypted addresses, by id."""
    query = {"_id": {"$in": list(endpoint_ids)}}
    found = collection(Endpoint)
    return durably(lambda: {e["_id"]: e for e in found.find(query, ADDRESS_FIELDS, batch_size=AT_ONCE)})


def owners(endpoint_ids: Collection[ObjectId]) -> dict[ObjectId, Document]:
    """Whose these endpoints are, and whether they are active, by id: follower_id, trader_id, active. Index: _id."""
    query, fields = {"_id": {"$in": list(endpoint_ids)}}, {"follower_id": 1, "trader_id": 1, "active": 1}
    found = collection(Endpoint)
    return durably(lambda: {e["_id"]: e for e in found.find(query, fields, batch_size=AT_ONCE)})


def deactivate_endpoint(endpoint_id: ObjectId, registered_at: datetime, reason: str, now: datetime) -> bool:
    """active → inactive, once; an address that was registered again meanwhile stays. Returns whether it changed."""
    query = {"_id": endpoint_id, "active": True, "registered_at": registered_at}
    change = {"$set": {"active": False, "deactivated_reason": reason[:200], "deactivated_at": now}}
    return durably(lambda: collection(Endpoint).update_one(query, change)).modified_count == 1


def switch_off_endpoint(endpoint_id: ObjectId, registered_at: datetime, reason: str, now: datetime) -> bool:
    """active or not → inactive, as its owner wishes; an address that was registered again meanwhile stays.

    A vendor's reason gives way to the owner's: what a vendor has said may turn out to be wrong, and such addresses come
    back by themselves. The same reason again changes nothing. Returns whether it changed.
    """
    stood_otherwise = [{"active": True}, {"deactivated_reason": {"$ne": reason[:200]}}]
    query = {"_id": endpoint_id, "registered_at": registered_at, "$or": stood_otherwise}
    change = {"$set": {"active": False, "deactivated_reason": reason[:200], "deactivated_at": now}}
    return durably(lambda: collection(Endpoint).update_one(query, change)).modified_count == 1


def reactivate_endpoints(channel: str, reasons: Collection[str], since: datetime) -> int:
    """inactive → active: what was deactivated at `since` or later for one of these reasons. Returns how many.

    Reads all of the channel's endpoints: for what is rare. Index: followers_endpoint (channel, address_hash).
    """
    query = {
        "channel": channel,
        "active": False,
        "deactivated_reason": {"$in": list(reasons)},
        "deactivated_at": {"$gte": since},
    }
    change = {"$set": {"active": True, "deactivated_reason": "", "deactivated_at": None}}
    return durably(lambda: collection(Endpoint).update_many(query, change)).modified_count
