"""Brings stored addresses under the first encryption key, beside running workers.

Each address is replaced only if it is still the one that was read, so that a registration meanwhile is never undone.
Workers read both before and after: every one of ENDPOINT_ENCRYPTION_KEYS decrypts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from bson import ObjectId
from django.conf import settings
from pymongo import UpdateOne

from followers.encryption import UnknownKeyError, decrypt, encrypt, key_id, key_of
from followers.models import Endpoint
from followers.mongo import collection, durably

BATCH = 500


@dataclass(slots=True)
class Rotation:
    """What was found and done; `unreadable` are endpoints whose key is missing, or whose value was damaged."""

    seen: int = 0
    rotated: int = 0
    changed_meanwhile: int = 0  # Somebody else wrote them since: under the first key, if its process knows it.
    unreadable: list[ObjectId] = field(default_factory=list)
    by_key: Counter[str] = field(default_factory=Counter)  # As found, by key id.

    @property
    def old(self) -> int:
        """How many were found under another key than the first."""
        return self.seen - self.by_key[key_id(settings.ENDPOINT_ENCRYPTION_KEYS[0])]


def rotate(check_only: bool = False, on_progress: Callable[[Rotation], None] = lambda done: None) -> Rotation:
    """Re-encrypts every address that is not under the first key; with `check_only` it only counts.

    Safe to kill and to run again: what is under the first key already is passed over. Raises PyMongoError.
    """
    done = Rotation()
    first = key_id(settings.ENDPOINT_ENCRYPTION_KEYS[0])
    for page in _pages():
        changes = []
        for row in page:
            done.seen += 1
            done.by_key[key_of(row["address"])] += 1
            if key_of(row["address"]) == first:
                continue
            try:
                fresh = encrypt(decrypt(row["address"]))
            except UnknownKeyError:
                done.unreadable.append(row["_id"])
                continue
            changes.append(UpdateOne({"_id": row["_id"], "address": row["address"]}, {"$set": {"address": fresh}}))
        if changes and not check_only:
            changed = _apply(changes)
            done.rotated += changed
            done.changed_meanwhile += len(changes) - changed
        on_progress(done)
    return done


def _apply(changes: list[UpdateOne]) -> int:
    """Compare and set. Repeated after a lost answer it changes nothing more, and then counts too few."""
    return durably(lambda: collection(Endpoint).bulk_write(changes, ordered=False)).modified_count


def _pages() -> Iterator[list[dict[str, Any]]]:
    """Every endpoint, a page by key. Index: followers_endpoint (_id)."""
    after: ObjectId | None = None
    while True:
        query = {} if after is None else {"_id": {"$gt": after}}
        found = collection(Endpoint).find(query, {"address": 1}).sort("_id", 1).limit(BATCH)
        page = durably(lambda found=found: list(found.clone()))  # type: ignore[misc]
        if not page:
            return
        after = page[-1]["_id"]
        yield page
