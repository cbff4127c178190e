"""The judge: what must have become of every accepted trade, and what has. Needs Django set up.

It knows by itself who follows whom and on which addresses (audience.py), which trades Kafka has acknowledged
(load.py), and from the vendors what they accepted. From MongoDB it reads what NotifyHub says, and compares.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bson import ObjectId

from delivery.models import Batch
from devstack.chaos.audience import COMMUNITY, Audience, Owner, external_ids, vendor_form
from devstack.chaos.load import Accepted
from devstack.chaos.system import VENDORS
from devstack.chaos.verdict import Verdict
from devstack.vendors.client import Sandbox
from followers.models import Endpoint, Follower, Trader
from followers.mongo import collection
from notifications.choices import EXITS, DeliveryState
from notifications.models import Notification, TradeEvent
from notifications.statements import event_id

REACHED = {DeliveryState.SENT.value, DeliveryState.DELIVERED.value}
CHANNEL_OF = {"twilio": "sms"}  # A vendor that bears another name than its channel.
UNKEYED = {"", None}

Pair = tuple[str, ObjectId | None]
"""An event's id and its follower; None for the trader's community."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Where the vendors' counters stood."""

    accepted: dict[str, int]
    duplicates: int
    repeats: int


class Judge:
    """One for the whole run, made once the followers are loaded."""

    def __init__(self, audience: Audience, sandbox: Sandbox) -> None:
        self._audience = audience
        self._sandbox = sandbox
        numbers = external_ids(audience.size)
        self._ids = {numbers[f.external_id]: f.pk for f in Follower.objects.only("external_id")}
        self._numbers = {pk: number for number, pk in self._ids.items()}
        self._traders = {t.pk: t.external_id for t in Trader.objects.only("external_id")}
        self._communities: set[str] = set()
        for endpoint in Endpoint.objects.exclude(trader_id=None):
            self._communities.add(self._traders[endpoint.trader_id])
            audience.owners[endpoint.channel, vendor_form(endpoint.address)] = (COMMUNITY, endpoint.channel)

    def mark(self) -> Mark:
        stats = {vendor: self._sandbox.stats(vendor) for vendor in VENDORS}
        return Mark(
            {vendor: s["accepted"] for vendor, s in stats.items()},
            sum(s["duplicates"] for s in stats.values()),
            sum(s["repeats_under_key"] + s["replays"] for s in stats.values()),
        )

    def expected(self, trades: Sequence[Accepted]) -> dict[Pair, Accepted]:
        """Whom each trade must be told to."""
        pairs: dict[Pair, Accepted] = {}
        for trade in trades:
            for number in self._audience.followers_of[trade.trader_id]:
                pairs[trade.event_id, self._ids[number]] = trade
            if trade.trader_id in self._communities:
                pairs[trade.event_id, None] = trade
        return pairs

    def unsettled(self, trades: Sequence[Accepted]) -> int:
        """Alerts that are not there yet or not at an end, and batches that somebody still has to look at."""
        ids = [event_id(trade.event_id) for trade in trades]
        settled = collection(Notification).count_documents({"event_id": {"$in": ids}, "state": {"$ne": "pending"}})
        return len(self.expected(trades)) - settled + self._open_batches(ids)

    def judge(self, trades: Sequence[Accepted], since: Mark) -> Verdict:
        """Compare what must be with what is."""
        verdict = Verdict(events=len(trades))
        expected = self.expected(trades)
        rows = self._rows(trades)
        verdict.alerts = len(expected)
        for event, follower in expected.keys() - rows.keys():
            verdict.lost.append(f"No alert of {event} for {self._who(follower)}.")
        for event, follower in rows.keys() - expected.keys():
            verdict.untrue.append(f"An alert of {event} for {self._who(follower)}, who was not to get one.")
        for row in rows.values():
            verdict.states.update(d["state"] for d in row["deliveries"] if d["channel"] != "in_app")
            verdict.lost += self._unfinished(row)
            verdict.untrue += self._unexplained(row)
        verdict.lost += self._stuck_events(trades)
        self._compare_with_vendors(rows, since, verdict)
        now = self.mark()
        verdict.duplicates = now.duplicates - since.duplicates
        verdict.repeats = now.repeats - since.repeats
        return verdict

    # What NotifyHub says.

    def _rows(self, trades: Sequence[Accepted]) -> dict[Pair, dict[str, Any]]:
        ids = [event_id(trade.event_id) for trade in trades]
        found = collection(Notification).find({"event_id": {"$in": ids}})
        return {(row["event_key"], row["follower_id"]): row for row in found}

    def _open_batches(self, ids: list[ObjectId]) -> int:
        """Those made by dispatch_due belong to no event: all of them count."""
        return collection(Batch).count_documents({"finished_at": None, "event": {"$in": [*ids, None]}})

    def _stuck_events(self, trades: Sequence[Accepted]) -> list[str]:
        ids = [event_id(trade.event_id) for trade in trades]
        states = {e["external_id"]: e["state"] for e in collection(TradeEvent).find({"_id": {"$in": ids}})}
        return [
            f"Trade {trade.event_id} is {states.get(trade.event_id, 'not stored')}."
            for trade in trades
            if states.get(trade.event_id) != "done"
        ]

    @staticmethod
    def _unfinished(row: dict[str, Any]) -> list[str]:
        waiting = [d for d in row["deliveries"] if d["state"] == DeliveryState.QUEUED]
        if not waiting and row["state"] != "pending":
            return []
        return [f"Alert {row['_id']} is {row['state']}, with {len(waiting)} deliveries queued."]

    def _unexplained(self, row: dict[str, Any]) -> list[str]:
        """An end state needs its reason, and every address its delivery."""
        if not row["deliveries"]:
            explained = row["action"] not in EXITS and row["sizing"]["reason"]
            return [] if explained else [f"Alert {row['_id']} ({row['action']}) is {row['state']} without a reason."]
        wrong = [
            f"Alert {row['_id']}: {d['channel']} is {d['state']} without a reason."
            for d in row["deliveries"]
            if d["state"] not in {*REACHED, DeliveryState.QUEUED} and not d["error_code"]
        ]
        number = self._number(row)
        wanted = {"discord": 1} if number == COMMUNITY else {"in_app": 1, **self._audience.channels_of[number]}
        if Counter(d["channel"] for d in row["deliveries"]) != Counter(wanted):
            wrong.append(f"Alert {row['_id']} of {self._who(row['follower_id'])} does not go to {wanted}.")
        return wrong

    # What the vendors say.

    def _compare_with_vendors(self, rows: dict[Pair, dict[str, Any]], since: Mark, verdict: Verdict) -> None:
        """Sent = accepted by the vendor, and the other way round; only `unknown` may be either."""
        accepted = self._accepted(since, verdict)
        recorded: dict[Owner, set[str]] = defaultdict(set)
        unknown: Counter[Owner] = Counter()
        for row in rows.values():
            for delivery in row["deliveries"]:
                owner = (self._number(row), delivery["channel"])
                if delivery["channel"] != "in_app" and delivery["state"] in REACHED:
                    recorded[owner].add(delivery["provider_message_id"])
                    if delivery["provider_message_id"] not in {m["message_id"] for m in accepted[owner]}:
                        verdict.lost.append(f"Alert {row['_id']} is sent by {owner[1]}, and the vendor knows nothing.")
                unknown[owner] += delivery["state"] == DeliveryState.UNKNOWN
        for owner, messages in accepted.items():
            verdict.untrue += _unclaimed(owner, messages, recorded[owner], unknown[owner])

    def _accepted(self, since: Mark, verdict: Verdict) -> dict[Owner, list[dict[str, Any]]]:
        accepted: dict[Owner, list[dict[str, Any]]] = defaultdict(list)
        for vendor in VENDORS:
            channel = CHANNEL_OF.get(vendor, vendor)
            for message in self._sandbox.accepted(vendor, since_index=since.accepted[vendor]):
                owner = self._audience.owners.get((channel, message["address"]))
                if owner is None:
                    verdict.untrue.append(f"{vendor} accepted a message for {message['address']}, who is nobody.")
                else:
                    accepted[owner].append(message)
        return accepted

    def _number(self, row: dict[str, Any]) -> int:
        return COMMUNITY if row["follower_id"] is None else self._numbers[row["follower_id"]]

    def _who(self, follower: ObjectId | None) -> str:
        return "the community" if follower is None else f"follower {self._numbers.get(follower, follower)}"


def _unclaimed(owner: Owner, messages: list[dict[str, Any]], recorded: set[str], unknown: int) -> list[str]:
    """Messages that the vendor took over, and no delivery says so: that many may be `unknown`, and no more.

    Repeats under one key are one message.
    """
    claimed = {m["key"] for m in messages if m["message_id"] in recorded} - UNKEYED
    open_ = [m for m in messages if m["message_id"] not in recorded and m["key"] not in claimed]
    count = len({m["key"] for m in open_} - UNKEYED) + sum(1 for m in open_ if m["key"] in UNKEYED)
    if count <= unknown:
        return []
    return [f"The vendor accepted {count} messages for {owner} that are neither sent nor unknown ({unknown})."]
