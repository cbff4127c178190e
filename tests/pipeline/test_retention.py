"""manage.py prune: what is old and finished goes, nothing else does, and the proof still holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from pymongo.errors import AutoReconnect

from delivery import proof as proof_module
from delivery.fan_out import fan_out_shard
from delivery.proof import prove
from delivery.updates import Draft, publish_update
from devstack.vendors.client import Sandbox
from followers import clock
from followers.mongo import collection, database
from notifications import retention
from notifications.models import InAppEntry, Notification, RejectedEvent, TradeEvent, Update
from notifications.update_events import update_id
from tests.pipeline import world

pytestmark = pytest.mark.django_db(transaction=True)
Document = dict[str, Any]

LATELY, FAR = datetime(2026, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _second_look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof_module, "SECOND_LOOK_SECONDS", 0.0)


def prune(*options: str) -> str:
    out = StringIO()
    call_command("prune", *options, stdout=out, stderr=StringIO())
    return out.getvalue()


def sent_alerts(followers: int = 3) -> Document:
    trader = world.make_trader()
    for _ in range(followers):
        world.make_follower(trader, "fcm")
    event = world.trade(trader)
    world.fan_out(event)
    world.deliver_all()
    return event


def grow_old(event: Document, days: int) -> None:
    """As if the trade and its alerts had come so many days ago."""
    at = clock.now() - timedelta(days=days)
    which = world.stored_event(event)["_id"]
    collection(TradeEvent).update_one({"_id": which}, {"$set": {"received_at": at, "fanned_out_at": at}})
    collection(Notification).update_many({"event_id": which}, {"$set": {"created_at": at, "expires_at": at}})


def test_in_app_entries_go_by_themselves_when_they_expire() -> None:
    indexes = collection(InAppEntry).index_information().values()
    (expiry,) = [index for index in indexes if "expireAfterSeconds" in index]
    assert (expiry["key"], expiry["expireAfterSeconds"]) == ([("expires_at", 1)], 0)
    expires_at = InAppEntry._meta.get_field("expires_at")
    assert (type(expires_at).__name__, expires_at.null) == ("DateTimeField", False)  # Others would stay for ever.


def test_old_alerts_go_first_their_trade_later_and_the_proof_holds(vendors: Sandbox) -> None:
    kept, old, ancient = sent_alerts(), sent_alerts(), sent_alerts()
    grow_old(old, 100)
    grow_old(ancient, 500)

    said = prune()

    assert "6 alerts, 1 trades" in said
    assert [len(world.alerts(e)) for e in (kept, old, ancient)] == [3, 0, 0]
    assert world.stored_event(old)["alerts_pruned_at"] is not None
    assert world.stored_event(kept).get("alerts_pruned_at") is None
    assert collection(TradeEvent).count_documents({}) == 2
    assert prove().holds
    assert "0 alerts, 0 trades" in prune()


@pytest.mark.parametrize(
    "fields", [{"state": "pending"}, {"review": {"open": True}}, {"expires_at": FAR}, {"wake_at": FAR}]
)  # fmt: skip
def test_unfinished_or_reviewed_or_valid_alerts_stay_and_so_does_their_trade(
    vendors: Sandbox, fields: Document
) -> None:
    event = sent_alerts()
    grow_old(event, 500)
    first = world.alerts(event)[0]
    collection(Notification).update_one({"_id": first["_id"]}, {"$set": fields})

    prune()

    assert [row["_id"] for row in world.alerts(event)] == [first["_id"]]
    assert world.stored_event(event)


@pytest.mark.parametrize("state", ["pending", "failed"])
def test_a_trade_whose_fan_out_has_not_ended_stays_whole(vendors: Sandbox, state: str) -> None:
    event = sent_alerts()
    grow_old(event, 500)
    collection(TradeEvent).update_many({}, {"$set": {"state": state}})
    prune()
    assert len(world.alerts(event)) == 3
    assert world.stored_event(event).get("alerts_pruned_at") is None


def test_a_run_that_is_killed_between_two_batches_leaves_a_proof_that_holds(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = sent_alerts()
    grow_old(event, 500)
    monkeypatch.setattr(retention, "BATCH", 1)
    real, calls = retention.delete, iter(range(10))

    def die_at_the_second(target: Any, query: Document) -> int:
        if next(calls) == 1:
            raise world.WorkerDied
        return real(target, query)

    monkeypatch.setattr(retention, "delete", die_at_the_second)
    with pytest.raises(world.WorkerDied):
        prune()
    assert len(world.alerts(event)) == 2
    assert prove().holds

    monkeypatch.setattr(retention, "delete", real)
    prune()

    assert world.alerts() == []
    assert collection(TradeEvent).count_documents({}) == 0
    assert prove().holds


def test_a_dry_run_counts_and_removes_nothing(vendors: Sandbox) -> None:
    event = sent_alerts()
    grow_old(event, 500)
    assert "at most 3 alerts, 1 trades" in prune("--dry-run")
    assert len(world.alerts(event)) == 3
    assert world.stored_event(event).get("alerts_pruned_at") is None


def test_rejected_messages_go_by_the_trades_time() -> None:
    for days in (1, 399, 401):
        RejectedEvent.objects.create(
            topic="t", partition=0, offset=days, code="x", reason="x", received_at=clock.now() - timedelta(days=days)
        )
    assert "1 rejected" in prune()
    assert RejectedEvent.objects.filter(offset=401).count() == 0


def test_a_lost_database_is_one_readable_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(*args: Any, **kwargs: Any) -> None:
        raise AutoReconnect("gone")

    monkeypatch.setattr("notifications.management.commands.prune.prune", lose)
    with pytest.raises(CommandError, match="Run it again"):
        prune()


@pytest.mark.parametrize(
    ("table", "query", "sort", "index"),
    [
        ("tradeevent", retention.finished_before(LATELY), {"received_at": 1, "_id": 1}, "received_at"),
        ("notification", {"event_id": {"$in": [1, 2]}, **retention.removable(LATELY)}, {}, "event_id"),
        ("rejectedevent", retention.rejected_before(LATELY), {}, "received_at"),
    ],
)
def test_every_query_is_answered_by_an_index(table: str, query: Document, sort: Document, index: str) -> None:
    command: Document = {"find": f"notifications_{table}", "filter": query, **({"sort": sort} if sort else {})}
    plan = str(database().command({"explain": command, "verbosity": "queryPlanner"})["queryPlanner"]["winningPlan"])
    assert "COLLSCAN" not in plan
    assert "'SORT'" not in plan
    assert f"{index}_" in plan


def test_general_updates_go_the_same_way(vendors: Sandbox) -> None:
    trader = world.make_trader()
    named = world.make_follower(trader, "fcm")
    for name in ("old", "new"):
        publish_update(Draft(external_id=name, title="Holiday", text="Closed.", followers=[named.external_id]))
    for batch in world.unclaimed("fan_out"):
        fan_out_shard(batch["_id"])
    world.deliver_all()
    at, old = clock.now() - timedelta(days=100), update_id("old")
    collection(Update).update_one({"_id": old}, {"$set": {"received_at": at, "fanned_out_at": at}})
    collection(Notification).update_many({"event_id": old}, {"$set": {"created_at": at, "expires_at": at}})

    said = prune()

    assert "1 alerts, 0 trades" in said
    assert collection(Notification).count_documents({}) == 1
    assert prove().holds
