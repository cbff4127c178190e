"""Whether whoever was owed an alert of a trade has one.

Two witnesses are heard. The follows say who was eligible; but a follow tells only what holds today, so they are sure
of those who began well before the trade and have not ended since. And the fan-out has counted what it wrote: where
less is stored, an alert is gone, whatever became of its follower.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from bson import ObjectId
from pymongo.client_session import ClientSession

from delivery import proof_statements as statements
from delivery.choices import Gap
from delivery.fan_out import bucket_range
from delivery.proof_findings import NAMED, Finding, Tally
from delivery.update_alerts import listed
from followers.clock import as_utc
from followers.mongo import REPEAT_FOR_SECONDS
from notifications.choices import FanOutState
from notifications.statements import community_of, notification_id, notification_ids

Document = dict[str, Any]
Recipient = ObjectId | None  # A follower, or the trader's community.

MARGIN = timedelta(seconds=REPEAT_FOR_SECONDS)
"""A follow's `since` is taken before the follow is written, and the write is repeated for so long: whoever began less
than that before a trade was perhaps not stored yet when it was fanned out."""

IDS_READ = 10_000
"""Alerts looked for at a time."""


@dataclass(frozen=True, slots=True)
class Following:
    """A follow, as far as it decides who is owed an alert. Times are naive UTC, as stored."""

    follower: ObjectId
    since: datetime
    entered: int  # Epoch seconds. One that was entered with a `since` in the past was not there before.
    ended_at: datetime | None
    bucket: int


@dataclass(slots=True)
class Debt:
    """What one event owes to its trader's followers."""

    event: Document
    until: datetime  # Whoever has not ended by then was still following when the fan-out read the followers.
    stored: int  # Its alerts, whoever they are for.
    missing: int = 0  # Alerts that it surely owes and that are not stored.
    doubtful: list[tuple[Recipient, str]] = field(default_factory=list)
    """Recipients, with their names, who have none and may have begun or ended too close to the fan-out to be sure."""

    @property
    def written(self) -> int:
        return self.event.get("alerts_written") or 0

    @property
    def short(self) -> int:
        """How many of the alerts that were written are not stored any more."""
        return max(0, self.written - self.event.get("alerts_erased", 0) - self.stored)

    def surely(self, follows: Sequence[Following]) -> list[Recipient]:
        """Those whom the fan-out must have read as following."""
        at, until = self.event["received_at"], self.until
        early, entered = at - MARGIN, int(as_utc(at).timestamp())
        return [
            f.follower
            for f in self._covered(follows)
            if f.since <= early and f.entered <= entered and (f.ended_at is None or f.ended_at > until)
        ]

    def perhaps(self, follows: Sequence[Following]) -> list[Recipient]:
        """Those who followed when the event was received, and of whom that cannot be said."""
        at = self.event["received_at"]
        sure = set(self.surely(follows))
        return [
            f.follower
            for f in self._covered(follows)
            if f.follower not in sure and f.since <= at and (f.ended_at is None or f.ended_at > at)
        ]

    def _covered(self, follows: Sequence[Following]) -> Sequence[Following]:
        """Those in the shards that are done."""
        shards, done = self.event["shards"], self.event["shards_done"]
        if len(done) == shards:
            return follows
        return [f for f in follows if _shard_of_bucket(shards).get(f.bucket) in done]


@lru_cache(maxsize=16)
def _shard_of_bucket(shards: int) -> dict[int, int]:
    ranges = [bucket_range(shard, shards) for shard in range(shards)]
    return {bucket: shard for shard, (first, last) in enumerate(ranges) for bucket in range(first, last + 1)}


def _followings(follows: Sequence[Document]) -> list[Following]:
    return [
        Following(f["follower_id"], f["since"], _entered(f["_id"]), f.get("ended_at"), f.get("bucket", -1))
        for f in follows
    ]


def _entered(follow_id: ObjectId) -> int:
    return int.from_bytes(follow_id.binary[:4], "big")


def look_for_alerts(
    events: Sequence[Document], stored: dict[ObjectId, int], now: datetime, tally: Tally, session: ClientSession
) -> None:
    """Notes who is owed an alert of these events and has none.

    Parameters:
      stored: How many alerts of each event there are, as of the same snapshot.
      now: Naive UTC.
    """
    # What is pruned has paid its debts, and its alerts have been removed since (notifications/retention.py).
    events = [event for event in events if event.get("alerts_pruned_at") is None]
    debts: dict[ObjectId, list[Debt]] = defaultdict(list)
    for event in events:
        if event["trader_id"] is not None and event["state"] != FanOutState.EXPIRED and event["shards_done"]:
            debt = Debt(event, event["fanned_out_at"] or now, stored.get(event["_id"], 0))
            debts[event["trader_id"]].append(debt)
    named = _named_debts(events, stored, now)
    if not debts and not named:
        return
    ledger = Ledger(tally, session)
    for debt, recipients in named:
        ledger.expect(debt, statements.still_followers(recipients, session))
    _expect_posts(debts, ledger, session)
    for trader, owed in debts.items():
        for chunk in statements.follows_of(trader, session):
            follows = _followings(chunk)
            for debt in owed:
                ledger.expect(debt, debt.surely(follows))
                if debt.short:
                    ledger.expect(debt, debt.perhaps(follows), sure=False)
    ledger.compare()
    for debt in (*(debt for owed in debts.values() for debt in owed), *(debt for debt, _ in named)):
        _note_gone(debt, tally)


def _named_debts(
    events: Sequence[Document], stored: dict[ObjectId, int], now: datetime
) -> list[tuple[Debt, Sequence[ObjectId]]]:
    """What updates owe to the followers whom they name, as far as the shards are done; nobody is in doubt."""
    return [
        (
            Debt(event, event["fanned_out_at"] or now, stored.get(event["_id"], 0)),
            [follower for shard in event["shards_done"] for follower in listed(event, shard)],
        )
        for event in events
        if event.get("follower_ids") and event["state"] != FanOutState.EXPIRED
    ]


def _expect_posts(debts: dict[ObjectId, list[Debt]], ledger: Ledger, session: ClientSession) -> None:
    """A trader's community is owed one post, however many channels it has."""
    oldest: dict[ObjectId, datetime] = {}
    for channel in statements.community_channels(list(debts), session):
        trader, at = channel["trader_id"], channel["registered_at"]
        oldest[trader] = min(oldest.get(trader, at), at)
    for trader, registered_at in oldest.items():
        for debt in debts[trader]:
            received_at = debt.event["received_at"]
            sure = registered_at <= received_at - MARGIN
            if 0 in debt.event["shards_done"] and (sure or (debt.short and registered_at <= received_at)):
                ledger.expect(debt, [None], sure)


class Ledger:
    """Compares what is owed with what is stored, many events at a time, in memory that stays flat."""

    def __init__(self, tally: Tally, session: ClientSession) -> None:
        self._tally = tally
        self._session = session
        self._ids: list[ObjectId] = []
        self._owed: list[tuple[Debt, Recipient, bool]] = []

    def expect(self, debt: Debt, recipients: Sequence[Recipient], sure: bool = True) -> None:
        """Takes in who is owed an alert of one event, surely or perhaps."""
        event = debt.event
        at, key, community = event["executed_at"], event["external_id"], community_of(event["trader_id"])
        self._ids += notification_ids(at, key, [recipient or community for recipient in recipients])
        self._owed += [(debt, recipient, sure) for recipient in recipients]
        if len(self._ids) >= IDS_READ:
            self.compare()

    def compare(self) -> None:
        """Looks for the alerts that were taken in since it was last called, and notes those that are not there."""
        ids, owed = self._ids, self._owed
        self._ids, self._owed = [], []
        surely = sum(sure for _, _, sure in owed)
        if not ids or statements.count_stored(ids, self._session) == len(ids):
            self._tally.owed += surely
            self._tally.found += surely
            return
        present = statements.stored(ids, self._session)
        absent = [one for oid, one in zip(ids, owed, strict=True) if oid not in present]
        found = surely - sum(sure for _, _, sure in absent)
        names = statements.followers_by_id({who for _, who, _ in absent if who is not None}, self._session)
        # Whoever was erased is owed nothing.
        missing = [(debt, who, sure) for debt, who, sure in absent if who is None or who in names]
        self._tally.found += found
        self._tally.owed += found + sum(sure for _, _, sure in missing)
        self._note(missing, names)

    def _note(self, missing: list[tuple[Debt, Recipient, bool]], names: dict[ObjectId, str]) -> None:
        for debt, who, sure in missing:
            name = names[who] if who is not None else ""
            if sure:
                debt.missing += 1
                self._tally.note_all(_gap(who), [(debt, who, name)], _missing)
            elif len(debt.doubtful) <= NAMED:
                debt.doubtful.append((who, name))


def _note_gone(debt: Debt, tally: Tally) -> None:
    """Notes the alerts that were written, are not stored, and were not named so far."""
    gone = debt.short - debt.missing
    if gone <= 0:
        return
    if len(debt.doubtful) <= min(gone, NAMED):  # Then all of them were written: nobody else is left to have lost one.
        for who, name in debt.doubtful:
            tally.note_all(_gap(who), [(debt, who, name)], _missing)
        gone -= len(debt.doubtful)
    if gone:
        key = debt.event["external_id"]
        text = (
            f"Event {key}: {debt.written:,} alerts were written and {debt.stored:,} are stored; "
            f"whose the other {gone:,} were, its followers of today do not tell."
        )
        tally.note_all(
            Gap.ALERTS_GONE, [text], lambda words: Finding(Gap.ALERTS_GONE, words, debt.event["_id"], key), count=gone
        )


def _gap(who: Recipient) -> Gap:
    return Gap.POST_MISSING if who is None else Gap.ALERT_MISSING


def _missing(lost: tuple[Debt, Recipient, str]) -> Finding:
    debt, who, name = lost
    event, key = debt.event, debt.event["external_id"]
    oid = notification_id(event["executed_at"], key, who or community_of(event["trader_id"]))
    if who is None:
        text = f"The community of the trader of event {key} has no post: {oid} is not stored."
    else:
        text = f"Follower {name} has no alert of event {key}: {oid} is not stored."
    return Finding(_gap(who), text, event["_id"], key, notification=oid, follower=who)
