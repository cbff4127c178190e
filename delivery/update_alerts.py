"""Builds what the fan-out of a general update stores: as for a trade, with words instead of a quantity."""

from __future__ import annotations

from typing import Any

from bson import ObjectId

from delivery.alerts import AlertWriter
from followers.statements import AudienceMember
from notifications.choices import Kind
from notifications.update_events import is_update

Document = dict[str, Any]


class UpdateWriter(AlertWriter):
    """Nothing is sized: whoever is in the audience is told, as far as their preferences allow."""

    def __init__(self, event: Document, shard_batch: Document, open_channels: frozenset[str]) -> None:
        super().__init__(event, shard_batch, open_channels)
        self._common |= {"kind": Kind.UPDATE.value, "words": event["words"]}

    def _sized(self, member: AudienceMember) -> None:
        return None


def writer_for(event: Document, shard_batch: Document, open_channels: frozenset[str]) -> AlertWriter:
    kind = UpdateWriter if is_update(event) else AlertWriter
    return kind(event, shard_batch, open_channels)


def listed(event: Document, shard: int) -> list[ObjectId]:
    """The followers whom an update names, as far as they belong to this shard."""
    return list(event.get("follower_ids", ())[shard :: event["shards"]])
