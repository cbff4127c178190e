"""What is looked at once more just before a send: a retry, a backlog or a breaker may have moved it into hours in which
it must wait, and a follower may have changed their mind since.

Only where it can matter: SMS always, the other channels once a row is older than FRESH_SECONDS (until then the fan-out
has just looked), and everything in test mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from bson import ObjectId
from django.conf import settings

from delivery import sms_cap
from delivery.outcomes import end_unsent
from delivery.statements import Patch
from delivery.wishes import Wishes
from followers import statements as followers
from followers.choices import Channel
from followers.clock import as_utc
from notifications.choices import DeliveryState, Reason

Document = dict[str, Any]

FRESH_SECONDS: Final = 60


def barred(channel: str, pairs: Sequence[tuple[Document, Document]], now: datetime) -> dict[ObjectId, Patch]:
    """Patches of those deliveries that must not be sent now, by notification.

    in a batch → queued without one, due when its hours end, no attempt spent; or → skipped, with the reason.

    Parameters:
      pairs: Notifications, each with its delivery on the channel.
      now: Aware UTC.
    """
    asked = [(row, delivery) for row, delivery in pairs if _is_asked(channel, row, now)]
    if not asked:
        return {}
    people = followers.wishes_of({row["follower_id"] for row, _ in asked if row["follower_id"] is not None})
    patches: dict[ObjectId, Patch] = {}
    for row, delivery in asked:
        if (patch := _patch(channel, row, delivery, people.get(row["follower_id"]), now)) is not None:
            patches[row["_id"]] = patch
    if channel == Channel.SMS and settings.SMS_DAILY_CAP:
        left = [
            (row, delivery, people[row["follower_id"]])
            for row, delivery in asked
            if row["_id"] not in patches and row["follower_id"] in people
        ]
        over = sms_cap.over_cap(left, now)
        patches |= {
            row["_id"]: end_unsent(row, delivery, DeliveryState.SKIPPED, Reason.SMS_DAILY_CAP)
            for row, delivery in asked
            if row["_id"] in over
        }
    return patches


def _is_asked(channel: str, row: Document, now: datetime) -> bool:
    if settings.NOTIFYHUB_TEST_MODE:
        return True
    if row["follower_id"] is None:
        return False  # A community has no wishes and no hours.
    return channel == Channel.SMS or now - as_utc(row["created_at"]) > timedelta(seconds=FRESH_SECONDS)


def _patch(channel: str, row: Document, delivery: Document, person: Document | None, now: datetime) -> Patch | None:
    wishes = Wishes({**row, "trader_external_id": ""})  # Whom they mute was asked when the alert was written.
    preferences = wishes.of(person or {})
    if (reason := wishes.skipped(preferences, person, channel)) is not None:
        return end_unsent(row, delivery, DeliveryState.SKIPPED, reason)
    held = wishes.held(preferences, person, channel, now)
    if held is None:
        return None
    if "state" in held:
        return end_unsent(row, delivery, DeliveryState.SKIPPED, Reason(held["error_code"]))
    return Patch(row["_id"], {"batch": None, **held})
