"""The review bucket's rule and statements: which alerts need a person, and what a person says about them.

The bucket holds work, not noise. A delivery needs a person when it is `unknown`, when it failed for another reason than
a dead address, or when the address was dead, everything is final and nothing else reached the follower. The rule is an
expression, evaluated in every statement that changes a delivery, so that no crash can come between a failure and its
review.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from bson import ObjectId

from followers.choices import Channel
from followers.mongo import collection, durably
from notifications.choices import DeliveryState, ReviewReason
from notifications.models import Notification

Document = dict[str, Any]

REACHED = [DeliveryState.SENT.value, DeliveryState.DELIVERED.value]
TROUBLED = [DeliveryState.FAILED.value, DeliveryState.UNKNOWN.value]
UNSENT = [DeliveryState.EXPIRED.value, DeliveryState.SKIPPED.value, DeliveryState.CANCELLED.value]

DEAD = "dead"
"""The outcome, in `attempt_log`, of an attempt at an address that will never accept anything again."""
REQUESTED = "requested"
"""The outcome, in `attempt_log`, of a person's decision to send. It ends what was undecided before it."""

SYSTEM = "system"
SETTLED_NOTE = "Settled by itself: nothing of this alert needs a person any more."


# --- The rule --------------------------------------------------------------------------------------------------------
def true_review() -> Document:
    """`review` as `deliveries` would have it. Where nothing failed and nothing is reviewed, nothing is computed.

    It opens a review once, and leaves an open one open until everything is final and nothing needs a person: then the
    review resolves itself. One that a person resolved is reopened only by one more troubled delivery than was seen.
    """
    concerned = {
        "$or": [
            {"$in": [DeliveryState.FAILED.value, "$deliveries.state"]},
            {"$in": [DeliveryState.UNKNOWN.value, "$deliveries.state"]},
            {"$gt": ["$review", None]},
        ]
    }
    looked_at = _let(
        {
            "final": {"$not": [{"$in": [DeliveryState.QUEUED.value, "$deliveries.state"]}]},
            "reached": _any({"$and": [_in(REACHED), {"$not": [_IN_INBOX_ONLY]}]}),
            "obeyed": _any({"$and": [_in(REACHED), _ASKED_FOR]}),
            "troubled": _filter("$deliveries", _IS_TROUBLED),
        },
        _let({"needing": _filter("$$troubled", _NEEDS_A_PERSON)}, _next_review()),
    )
    return {"$cond": [concerned, looked_at, "$review"]}


def _in(states: list[str]) -> Document:
    return {"$in": ["$$d.state", states]}


def _filter(source: str, condition: Any) -> Document:
    return {"$filter": {"input": source, "as": "d", "cond": condition}}


def _any(condition: Any) -> Document:
    return {"$anyElementTrue": [{"$map": {"input": "$deliveries", "as": "d", "in": condition}}]}


def _let(variables: Document, within: Any) -> Document:
    return {"$let": {"vars": variables, "in": within}}


_IN_INBOX_ONLY = {
    # Stored in the inbox is not yet seen by anybody.
    "$and": [{"$eq": ["$$d.channel", Channel.IN_APP.value]}, {"$eq": ["$$d.state", DeliveryState.SENT.value]}]
}
_ASKED_FOR = {"$in": [REQUESTED, "$$d.attempt_log.outcome"]}
_IS_TROUBLED = {"$or": [_in(TROUBLED), {"$and": [_in(UNSENT), _ASKED_FOR]}]}
_SAYS_WHY = {"$not": [{"$in": ["$$o", ["sent", "receipt", REQUESTED]]}]}
_IS_DEAD = {
    "$and": [
        {"$eq": ["$$d.state", DeliveryState.FAILED.value]},
        # What says nothing about the address may come after it: the record of an attempt that a receipt overtook.
        {"$eq": [{"$last": {"$filter": {"input": "$$d.attempt_log.outcome", "as": "o", "cond": _SAYS_WHY}}}, DEAD]},
    ]
}
_NEEDS_A_PERSON = {
    "$cond": [
        _IS_DEAD,
        {"$and": ["$$final", {"$not": ["$$reached"]}]},
        # What a person had sent elsewhere, and was sent, also settles what failed before it.
        {"$or": [_ASKED_FOR, {"$not": ["$$obeyed"]}]},
    ]
}


def _next_review() -> Document:
    """What becomes of `review`, given $$final, $$troubled and $$needing."""
    count = {"$size": "$$troubled"}
    nothing_needed = {"$eq": ["$$needing", []]}
    resolved = {
        "open": False, "seen": count, "resolved_at": "$$NOW", "resolved_by": SYSTEM, "note": SETTLED_NOTE,
    }  # fmt: skip
    opened = {
        "open": True,
        "reason": _reason(),
        "channels": {"$setUnion": ["$$needing.channel", []]},
        "codes": _codes(),
        "seen": count,
        "opened_at": {"$cond": ["$review.open", "$review.opened_at", "$$NOW"]},
        "resolved_at": None,
        "resolved_by": "",
    }
    is_news = {"$or": ["$review.open", {"$lte": ["$review", None]}, {"$gt": [count, "$review.seen"]}]}
    return {
        "$switch": {
            "branches": [
                {
                    "case": {"$and": ["$review.open", "$$final", nothing_needed]},
                    "then": {"$mergeObjects": ["$review", resolved]},
                },
                {
                    "case": {"$and": [{"$not": [nothing_needed]}, is_news]},
                    "then": {"$mergeObjects": [{"assignee": "", "note": ""}, "$review", opened]},
                },
                {
                    "case": {"$and": [{"$gt": ["$review", None]}, {"$not": ["$review.open"]}]},
                    "then": {"$mergeObjects": ["$review", {"seen": {"$min": ["$review.seen", count]}}]},
                },
            ],
            "default": "$review",
        }
    }


def _reason() -> Document:
    """The most pressing of the reasons among $$needing."""
    states = "$$needing.state"
    return {
        "$switch": {
            "branches": [
                {"case": {"$in": [DeliveryState.UNKNOWN.value, states]}, "then": ReviewReason.UNKNOWN.value},
                {"case": {"$ne": [{"$setIntersection": [states, UNSENT]}, []]}, "then": ReviewReason.UNDONE.value},
                {"case": {"$eq": [_filter("$$needing", _IS_DEAD), "$$needing"]}, "then": ReviewReason.UNREACHED.value},
            ],
            "default": ReviewReason.FAILED.value,
        }
    }


def _codes() -> Document:
    """The codes of $$needing as `channel:code`, the last attempt's too: "out of attempts" alone says too little."""

    def codes_at(code: Any) -> Document:
        found = {"$ifNull": [code, ""]}
        named = {"$concat": ["$$d.channel", ":", found]}
        return {"$map": {"input": "$$needing", "as": "d", "in": {"$cond": [{"$eq": [found, ""]}, "", named]}}}

    both = {"$setUnion": [codes_at("$$d.error_code"), codes_at({"$last": "$$d.attempt_log.code"})]}
    return {"$setDifference": [both, [""]]}


# --- What a person says ----------------------------------------------------------------------------------------------
def open_reviews() -> int:
    """How many alerts wait in the bucket. Index: (review.open, review.opened_at, _id), covered."""
    return durably(lambda: collection(Notification).count_documents({"review.open": True}))


CODES_FROM = 2_000


def codes_of_newest() -> Counter[str]:
    """How often each `channel:code` stands in the newest CODES_FROM open items. Index: (review.open, opened_at)."""
    pipeline: list[Document] = [
        {"$match": {"review.open": True}},
        {"$sort": {"review.opened_at": -1, "_id": -1}},
        {"$limit": CODES_FROM},
        {"$project": {"_id": 0, "review.codes": 1}},
        {"$unwind": "$review.codes"},
        {"$group": {"_id": "$review.codes", "count": {"$sum": 1}}},
    ]
    found = durably(lambda: list(collection(Notification).aggregate(pipeline)))
    return Counter({row["_id"]: row["count"] for row in found})


def open_among(ids: Sequence[ObjectId]) -> list[ObjectId]:
    """Those of these alerts whose review is open, in the order given."""
    query = {"_id": {"$in": list(ids)}, "review.open": True}
    found = durably(lambda: {row["_id"] for row in collection(Notification).find(query, {"_id": 1})})
    return [pk for pk in ids if pk in found]


def resolve(ids: Sequence[ObjectId], by: str, note: str, now: datetime) -> list[ObjectId]:
    """open → resolved. Returns those that this very call resolved; somebody else's word stands."""
    count = {"$size": _filter("$deliveries", _IS_TROUBLED)}
    said = {"open": False, "resolved_at": now, "resolved_by": by, "note": note, "seen": count}
    change = [{"$set": {"review": {"$mergeObjects": ["$review", _literals(said)]}}}]
    chosen = {"_id": {"$in": list(ids)}}
    durably(lambda: collection(Notification).update_many({**chosen, "review.open": True}, change))
    mine = {**chosen, "review.open": False, "review.resolved_at": now, "review.resolved_by": by}
    resolved = durably(lambda: {row["_id"] for row in collection(Notification).find(mine, {"_id": 1})})
    return [pk for pk in ids if pk in resolved]


def assign(ids: Sequence[ObjectId], assignee: str) -> list[ObjectId]:
    """Gives open reviews to a member of staff, or to nobody (empty). Returns those that are open."""
    open_ids = open_among(ids)
    query = {"_id": {"$in": open_ids}, "review.open": True}
    durably(lambda: collection(Notification).update_many(query, {"$set": {"review.assignee": assignee}}))
    return open_ids


def _literals(fields: Document) -> Document:
    """Fields for a pipeline: what a person wrote may begin with a dollar sign."""
    return {name: {"$literal": value} if isinstance(value, str) else value for name, value in fields.items()}
