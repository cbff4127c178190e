"""Several writes that wait for the disks once: what becomes of them when another primary is elected in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from bson import ObjectId

from delivery import fan_out as fan_out_module
from delivery.fan_out import fan_out_shard
from devstack.vendors.client import Sandbox
from followers import mongo
from followers.mongo import PRIMARY_ONLY, PrimaryChangedError, is_passing, one_primary, provisional
from notifications.models import InAppEntry
from tests.pipeline import world

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def elect(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Has the driver hear of another primary."""
    found = mongo._election()
    assert found is not None
    elections: list[ObjectId | None] = [found]
    monkeypatch.setattr(mongo, "_election", lambda: elections[-1])
    return lambda: elections.append(ObjectId())


def after(module: Any, name: str, happens: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Something happens once, right after that function's first return."""
    function: Any = getattr(module, name)

    def once(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(module, name, function)
        result = function(*args, **kwargs)
        happens()
        return result

    monkeypatch.setattr(module, name, once)


def test_on_a_replica_set_only_the_last_write_waits_for_the_majority() -> None:
    assert provisional(InAppEntry).write_concern == PRIMARY_ONLY
    with one_primary():
        pass


def test_without_elections_every_write_waits_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mongo, "_election", lambda: None)
    assert provisional(InAppEntry).write_concern.document == {"w": "majority", "j": True}


def test_another_primary_in_between_is_a_passing_error(elect: Callable[[], None]) -> None:
    with pytest.raises(PrimaryChangedError) as raised, one_primary():
        elect()
    assert is_passing(raised.value)


def test_what_fails_in_there_is_told_as_it_is(elect: Callable[[], None]) -> None:
    with pytest.raises(ZeroDivisionError), one_primary():
        elect()
        raise ZeroDivisionError


@pytest.mark.parametrize(
    "step", ["insert_batches_with_rows", "insert_notifications", "insert_entries", "prune_entries"]
)
def test_shard_is_not_done_and_runs_again(
    vendors: Sandbox, elect: Callable[[], None], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    trader = world.make_trader()
    followers = [world.make_follower(trader, "fcm") for _ in range(3)]
    event = world.trade(trader)
    (batch,) = world.take_in_trades(event)
    module = fan_out_module.batches if step == "insert_batches_with_rows" else fan_out_module.notifications
    after(module, step, elect, monkeypatch)

    assert fan_out_shard(batch["_id"]) is None
    assert world.stored_event(event)["shards_done"] == []

    assert fan_out_shard(batch["_id"]) is not None
    world.deliver_all()
    assert world.stored_event(event)["state"] == "done"
    assert [world.states(world.alert(event, f))["fcm"] for f in followers] == ["sent"] * 3
    assert [len(world.entries(f)) for f in followers] == [1] * 3
    assert len(vendors.accepted("fcm")) == 3
