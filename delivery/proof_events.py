"""Whether each trade's fan-out is done, or in somebody's hands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from bson import ObjectId
from pymongo.client_session import ClientSession

from delivery import proof_statements as statements
from delivery.choices import Gap
from delivery.proof_findings import Finding, Tally
from delivery.statements import shard_batch_id
from notifications.choices import FanOutState, Priority

Document = dict[str, Any]


def judge_events(events: Sequence[Document], tally: Tally, session: ClientSession) -> list[ObjectId]:
    """Notes the events that have failed or contradict themselves. Returns those with a shard that nobody has in hand.

    These are to be looked at once more: an intake stores an event, and then its shards.
    """
    open_states = {FanOutState.PENDING, FanOutState.FAILED}
    batches = _shard_batches([e for e in events if e["state"] in open_states], session)
    lost = []
    for event in events:
        tally.events[event["state"]] += 1
        if event["state"] == FanOutState.FAILED:
            tally.note(_failed(event, batches))
        elif contradiction := _contradiction(event):
            text = f"Event {event['external_id']} is {event['state']!r}, but {contradiction}."
            tally.note(Finding(Gap.EVENT_STATE, text, event["_id"], event["external_id"]))
        elif event["state"] == FanOutState.PENDING and _lost_shards(event, batches):
            lost.append(event["_id"])
    return lost


def lost_shards(event_ids: Sequence[ObjectId], tally: Tally, session: ClientSession) -> None:
    """Notes the events that still have a shard which nobody has in hand."""
    events = [e for e in statements.events_by_id(event_ids, session) if e["state"] == FanOutState.PENDING]
    batches = _shard_batches(events, session)
    for event in events:
        if lost := _lost_shards(event, batches):
            shards = ", ".join(map(str, lost[:10])) + (", …" if len(lost) > 10 else "")
            text = (
                f"Event {event['external_id']} waits for its shard {shards} of {event['shards']}, "
                "which nobody works on and nobody will look at."
            )
            batch = shard_batch_id(event["external_id"], lost[0])
            found = Finding(Gap.SHARD_LOST, text, event["_id"], event["external_id"], batch=batch)
            tally.note_all(Gap.SHARD_LOST, [found], lambda finding: finding, count=len(lost))


def _unfinished(event: Document) -> list[int]:
    return sorted(set(range(event["shards"])) - set(event["shards_done"]))


def _shard_batches(events: Iterable[Document], session: ClientSession) -> dict[ObjectId, Document]:
    ids = [shard_batch_id(event["external_id"], shard) for event in events for shard in _unfinished(event)]
    return statements.shard_batches(ids, session) if ids else {}


def _lost_shards(event: Document, batches: dict[ObjectId, Document]) -> list[int]:
    def in_hand(shard: int) -> bool:
        batch = batches.get(shard_batch_id(event["external_id"], shard))
        # A claimed one is looked at when its lease ends, so that it has a next look too; by priority, like all.
        return (
            batch is not None
            and batch["finished_at"] is None
            and batch["next_look_at"] is not None
            and batch["priority"] in Priority.values
        )

    return [shard for shard in _unfinished(event) if not in_hand(shard)]


def _failed(event: Document, batches: dict[ObjectId, Document]) -> Finding:
    shards = [shard_batch_id(event["external_id"], shard) for shard in _unfinished(event)]
    given_up = [batches[b] for b in shards if b in batches and batches[b]["next_look_at"] is None]
    error = next((f": {b['error']}" for b in given_up if b["error"]), ".")
    text = f"Event {event['external_id']} failed, {len(shards)} of {event['shards']} shards are not done{error}"
    batch = given_up[0]["_id"] if given_up else None
    return Finding(Gap.EVENT_FAILED, text, event["_id"], event["external_id"], batch=batch)


def _contradiction(event: Document) -> str:
    """What speaks against the event's state, in words; empty = nothing."""
    match event["state"]:
        case FanOutState.EXPIRED if event["expires_at"] > event["received_at"]:
            return f"it was valid until {event['expires_at']:%Y-%m-%d %H:%M:%S} UTC when it came"
        case FanOutState.DONE if event["trader_id"] is not None and _unfinished(event):
            return f"{len(_unfinished(event))} of its {event['shards']} shards are not done"
        case FanOutState.PENDING if not _unfinished(event):
            return "all of its shards are done"
        case state if state not in FanOutState.values:
            return "there is no such state"
    return ""
