"""How long a delivery's `attempt_log` gets, and what never leaves it."""

from __future__ import annotations

from typing import Any

from delivery.channels.base import Outcome
from notifications.reviews import REQUESTED

Document = dict[str, Any]

ATTEMPTS_KEPT = 20
"""The newest entries are kept, and of the older ones those that decide what an end is called."""
NEVER_FORGOTTEN = [Outcome.UNKNOWN.value, REQUESTED]
"""A doubt, and a person's decision. Both are few: a doubt spends an attempt, and 429s, which fill a log, do not."""


def logged(log: str, *added: Any) -> Document:
    """The expression for the log at path `log` with these arrays of entries behind it.

    A log that is short enough, as nearly all are, costs a look at its length.
    """
    older = {"$slice": ["$$log", {"$subtract": [{"$size": "$$log"}, ATTEMPTS_KEPT]}]}
    kept = {"$filter": {"input": older, "as": "a", "cond": {"$in": ["$$a.outcome", NEVER_FORGOTTEN]}}}
    cut = {"$concatArrays": [kept, {"$slice": ["$$log", -ATTEMPTS_KEPT]}]}
    fits = {"$lte": [{"$size": "$$log"}, ATTEMPTS_KEPT]}
    joined = {"$concatArrays": [log, *added]}
    return {"$let": {"vars": {"log": joined}, "in": {"$cond": [fits, "$$log", cut]}}}
