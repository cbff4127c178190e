"""Large numbers of stored trades and alerts, quickly: what fan-outs and workers would have left.

The documents are built by the pipeline's own code (intake, AlertWriter, outcomes), so that they cannot drift from what
it stores; only the writes are bare ones. Whatever an insert cannot hold is derived by the database as ever.
"""

# ruff: noqa: PLC0415  # Models can be imported only once Django is set up.
from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bench.stage import Stage, check, table

Document = dict[str, Any]
Fate = Callable[[int, Document], str]
"""What became of an alert's delivery, by the alert's number: a word of ANSWERS, or "" = it is still in its batch."""

CHUNK = 5_000
IN_HAND = 3  # Chunks that wait to be written, while the next is built.
CHANNELS = frozenset({"fcm", "sms"})

ANSWERS: Mapping[str, Mapping[str, Any]] = {
    "sent": {"outcome": "sent", "provider_message_id": "projects/bench/messages/0:1732438800000000"},
    "http_503": {"outcome": "retry", "code": "http_503", "message": "The service is unavailable."},
    "SENDER_ID_MISMATCH": {"outcome": "refused", "code": "SENDER_ID_MISMATCH", "message": "SenderId mismatch"},
    "30006": {"outcome": "refused", "code": "30006", "message": "Landline or unreachable carrier"},
    "no_answer": {"outcome": "unknown", "code": "no_answer", "message": "Timed out."},
}
"""Results of an attempt, as delivery.channels.base.Result takes them."""


@dataclass(frozen=True, slots=True)
class Audience:
    """A trader, and those who follow."""

    trader: Document
    members: list[Any]  # followers.statements.AudienceMember, in the order in which a fan-out reads them.

    @classmethod
    def of(cls, name: str) -> Audience:
        from followers.models import BUCKETS
        from followers.statements import read_audience, traders_by_external_id

        trader, now = traders_by_external_id([name])[name], datetime.now(UTC)
        chunks = read_audience(trader["_id"], (0, BUCKETS - 1), now, now, CHUNK)
        return cls(trader, [member for chunk in chunks for member in chunk])


def follow_since(since: datetime) -> None:
    """Has everybody followed since then: the proof takes a follow as old as its id (delivery/proof_audience.py), and
    whoever began after a trade is owed nothing."""
    from bson import ObjectId

    follows = table("followers_follow")
    rows = list(follows.find())
    seconds = int(since.timestamp()).to_bytes(4, "big")
    older = [{**row, "_id": ObjectId(seconds + row["_id"].binary[4:]), "since": since} for row in rows]
    follows.delete_many({})
    for start in range(0, len(older), CHUNK):
        follows.insert_many(older[start : start + CHUNK], ordered=False)


class Seeder:
    """Writes trades with their alerts, in the background of building them. `seeding` makes one."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._writes: list[Future[None]] = []

    def trade(self, audience: Audience, at: datetime, **details: str) -> Document:
        """Stores a trade of that moment as one that has been fanned out. Returns it as it is read back."""
        from delivery.intake import read_message
        from delivery.intake_documents import AcceptedEvent, event_document
        from notifications import statements

        trader, count = audience.trader, len(audience.members)
        key, message = Stage.trade(trader["external_id"], **details)
        message["executedAt"] = at.isoformat()
        accepted = read_message(json.dumps(message).encode(), (), trader["external_id"].encode())
        check(isinstance(accepted, AcceptedEvent), f"a trade that is none: {accepted}")
        oid, stored_at = statements.event_id(key), at + timedelta(milliseconds=20)
        event = event_document(oid, accepted, trader, 1, stored_at)  # type: ignore[arg-type]
        statements.store_events([event])
        statements.finish_shard(oid, 0, at + timedelta(milliseconds=120 + count // 10), count)
        stored = statements.event(oid)
        check(stored is not None and stored["state"] == "done", "the trade is stored")
        return stored or {}

    def alerts(
        self,
        event: Document,
        members: list[Any],
        fate: Fate | None = None,
        keep: Iterable[str] = ("notifications", "entries"),
    ) -> None:
        """Has a trade's alerts written; `keep` names what of them. Without `fate` they are as a fan-out leaves them."""
        from delivery.alerts import AlertWriter
        from delivery.statements import shard_batch

        at = event["received_at"].replace(tzinfo=UTC)
        shard = shard_batch(event, 0, at)
        writer = AlertWriter(event, shard, CHANNELS)
        kept = frozenset(keep)
        for start in range(0, len(members), CHUNK):
            alerts = writer.alerts_for(members[start : start + CHUNK], set(), at)
            open_batches = alerts.batches
            if fate is not None and "notifications" in kept:
                waiting = {b for row in alerts.notifications for b in _settle(row, fate, at)}
                open_batches = [batch for batch in alerts.batches if batch["_id"] in waiting]
            self._write(
                {
                    "delivery_batch": open_batches if "notifications" in kept else [],
                    "notifications_notification": alerts.notifications if "notifications" in kept else [],
                    "notifications_inappentry": alerts.entries if "entries" in kept else [],
                }
            )

    def finish(self) -> None:
        """Waits until all is written, and has the database derive what follows from the deliveries."""
        self._settle_writes(0)
        _derive()

    def _write(self, documents: Mapping[str, list[Document]]) -> None:
        self._settle_writes(IN_HAND)
        self._writes.append(self._threads.submit(_insert, documents))

    def _settle_writes(self, left: int) -> None:
        while len(self._writes) > left:
            self._writes.pop(0).result()


@contextmanager
def seeding() -> Iterator[Seeder]:
    with ThreadPoolExecutor(1) as threads:
        seeder = Seeder(threads)
        yield seeder
        seeder.finish()


def _insert(documents: Mapping[str, list[Document]]) -> None:
    from followers.mongo import PRIMARY_ONLY

    for name, rows in documents.items():
        if rows:
            table(name).with_options(write_concern=PRIMARY_ONLY).insert_many(rows, ordered=False)


def _settle(row: Document, fate: Fate, at: datetime) -> set[Any]:
    """Records an attempt in each of the row's deliveries that has an address. Returns the batches it still waits in.

    `state` and `wake_at` are those of a row whose deliveries were all sent; for the rest the database derives them.
    """
    from django.conf import settings

    from delivery.channels.base import Outcome, Result
    from delivery.outcomes import patch_for

    number, waiting, sent = int.from_bytes(row["_id"].binary[4:]), set(), True
    for delivery in row["deliveries"]:
        if delivery["endpoint"] is None:
            continue
        word = fate(number, delivery)
        sent &= word == "sent"
        if not word:
            waiting.add(delivery["batch"])
            continue
        answer = {**ANSWERS[word], "latency_seconds": 0.02 + number % 97 / 1_000}
        result = Result(Outcome(answer.pop("outcome")), **answer)
        policy = settings.CHANNEL_POLICIES[delivery["channel"]]
        patch = patch_for(row, delivery, result, policy, False, at + timedelta(milliseconds=number % 900), "closed")
        delivery.update(patch.fields)
        delivery["attempts"] += patch.spent
        delivery["attempt_log"].append(patch.log)
    if sent:
        row["state"], row["wake_at"] = "delivered", None
    return waiting


def _derive() -> None:
    """What a worker's own statement would have derived, where not everything was sent; a review was opened then."""
    from notifications.statements import derive

    alerts = table("notifications_notification")
    opened = {"$cond": ["$review.open", {"$mergeObjects": ["$review", {"opened_at": "$created_at"}]}, "$review"]}
    alerts.update_many({"state": "pending"}, [*derive(), {"$set": {"review": opened}}])
