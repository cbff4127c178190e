"""What a follower changes of themselves: their preferences and the devices that hear of alerts."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bson import ObjectId

from followers import erasures, preferences, statements
from followers.choices import Channel
from followers.encryption import address_hash
from followers.models import Endpoint, Follower
from followers.mongo import collection, durably

Document = dict[str, Any]

CHANGES_TRIED = 5
REMOVED = "removed_by_follower"
"""`deactivated_reason` of a device that its own app has signed off."""


class ChangedMeanwhileError(Exception):
    """Somebody else changes the same preferences, again and again."""


def preferences_of(follower_id: ObjectId) -> preferences.Preferences | None:
    """None = there is no such follower (any more)."""
    stored = durably(lambda: collection(Follower).find_one({"_id": follower_id}, {"preferences": 1}))
    return None if stored is None else preferences.read(stored.get("preferences"))


def change_preferences(follower_id: ObjectId, patch: object) -> preferences.Preferences | None:
    """Merges a patch into the stored preferences, by compare-and-set. None = there is no such follower (any more).

    Raises PreferencesError (the broken fields) or ChangedMeanwhileError.
    """
    for _ in range(CHANGES_TRIED):
        fields = {"external_id": 1, "preferences": 1}
        stored = durably(lambda: collection(Follower).find_one({"_id": follower_id}, fields))  # noqa: B023  Run at once.
        if stored is None or stored["external_id"] == erasures.nameless(follower_id):
            return None
        before = stored.get("preferences")
        merged = preferences.merge(before, patch)
        same = {**stored, "preferences": before}  # Its name too: nothing is written to the row of who was erased since.
        change = {"$set": {"preferences": merged.as_document()}}
        if durably(lambda: collection(Follower).update_one(same, change)).matched_count:  # noqa: B023  Run at once.
            return merged
    raise ChangedMeanwhileError


def devices(follower_id: ObjectId) -> list[Endpoint]:
    """The follower's addresses, active or not, the newest first. Index: followers_endpoint (follower_id)."""
    rows = Endpoint.objects.filter(follower_id=follower_id)
    return sorted(rows, key=lambda row: (row.registered_at, row.pk), reverse=True)


def sign_off(follower_id: ObjectId, now: datetime, device_id: ObjectId) -> bool:
    """active or not → inactive, for the follower's own reason. Returns whether the follower has such a device."""
    return _sign_off({"_id": device_id, "follower_id": follower_id}, now)


def sign_off_address(follower_id: ObjectId, now: datetime, channel: Channel | str, address: str) -> bool:
    """As above, by what the app knows: its own token. Index: followers_endpoint (channel, address_hash)."""
    mine = {"channel": str(channel), "address_hash": address_hash(address), "follower_id": follower_id}
    return _sign_off(mine, now)


def _sign_off(mine: Document, now: datetime) -> bool:
    found = durably(lambda: collection(Endpoint).find_one(mine, {"registered_at": 1}))
    if found is None:
        return False
    statements.switch_off_endpoint(found["_id"], found["registered_at"], REMOVED, now)
    return True
