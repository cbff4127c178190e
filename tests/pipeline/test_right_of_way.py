"""While a critical alert is under way, everything else waits before its next large statement, and no longer."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore, Event
from typing import Any

import pytest

from delivery import deliver as deliver_module
from delivery import right_of_way
from delivery.fan_out import fan_out_shard
from devstack.vendors.client import Sandbox
from followers.outage import REDIS
from tests.pipeline import world
from tests.web.private_redis import PrivateRedis

pytestmark = pytest.mark.django_db(transaction=True)
EXIT: dict[str, Any] = {"action": "CLOSE", "side": "SELL", "positionBefore": "50", "positionAfter": "0"}
LONG_MS = 60_000


@pytest.fixture(autouse=True)
def _on(settings: Any) -> None:
    settings.RIGHT_OF_WAY_MS = LONG_MS


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Event:
    """Set as soon as somebody has been told to wait."""
    told, is_claimed = Event(), right_of_way.is_claimed

    def look(priority: str) -> bool:
        claimed = is_claimed(priority)
        if claimed:
            told.set()
        return claimed

    monkeypatch.setattr(right_of_way, "is_claimed", look)
    monkeypatch.setattr(deliver_module, "is_claimed", look)
    monkeypatch.setattr(right_of_way, "PATIENCE_SECONDS", 60.0)
    return told


def in_the_background(work: Callable[[], Any]) -> Future[Any]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(work)
    pool.shutdown(wait=False)
    return future


def test_step_of_a_critical_alert_holds_everything_else_until_it_runs_out(settings: Any) -> None:
    assert not right_of_way.is_claimed("normal")
    right_of_way.claim_way("high")
    assert not right_of_way.is_claimed("normal"), "Only critical alerts have the right of way."

    settings.RIGHT_OF_WAY_MS = 1
    right_of_way.claim_way("critical")
    right_of_way.give_way("normal")
    assert not right_of_way.is_claimed("normal")

    settings.RIGHT_OF_WAY_MS = LONG_MS
    right_of_way.claim_way("critical")
    assert [right_of_way.is_claimed(p) for p in ("critical", "high", "normal")] == [False, True, True]
    settings.RIGHT_OF_WAY_MS = 0
    assert not right_of_way.is_claimed("normal"), "It is switched off."


def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(right_of_way, "PATIENCE_SECONDS", 0.05)
    right_of_way.claim_way("critical")
    right_of_way.give_way("normal")
    assert right_of_way.is_claimed("normal")


def test_exit_claims_the_way_as_soon_as_it_is_read_and_at_each_step(vendors: Sandbox) -> None:
    trader = world.make_trader()
    world.make_follower(trader, "fcm")
    claimed: list[bool] = []

    def step(work: Callable[[], Any]) -> Any:
        result = work()
        claimed.append(right_of_way.is_claimed("normal"))
        right_of_way.client().delete(right_of_way._key())
        return result

    (batch,) = step(lambda: world.take_in_trades(world.trade(trader, **EXIT)))
    step(lambda: fan_out_shard(batch["_id"]))
    step(world.deliver_all)
    assert claimed == [True, True, True]


def test_normal_alerts_are_neither_stored_nor_claimed_meanwhile_and_all_go_out_after(
    vendors: Sandbox, waits: Event
) -> None:
    trader = world.make_trader()
    followers = [world.make_follower(trader, "fcm") for _ in range(3)]
    event = world.trade(trader)
    (batch,) = world.take_in_trades(event)

    def held_back(work: Callable[[], Any], shows_nothing: Callable[[], bool]) -> None:
        waits.clear()
        right_of_way.claim_way("critical")
        future = in_the_background(work)
        assert waits.wait(30)
        assert shows_nothing()
        assert not future.done()
        right_of_way.client().delete(right_of_way._key())
        future.result(30)

    held_back(lambda: fan_out_shard(batch["_id"]), lambda: world.alerts(event) == [])
    held_back(world.deliver_all, lambda: vendors.accepted("fcm") == [] and len(world.unclaimed()) == 1)
    assert [world.states(world.alert(event, f))["fcm"] for f in followers] == ["sent"] * 3


def test_large_statements_of_a_kind_go_one_at_a_time_and_critical_ones_at_once() -> None:
    kind = BoundedSemaphore(1)
    has_begun, may_end = Event(), Event()

    def normal() -> None:
        with right_of_way.in_turn(kind, "normal", 200):
            pass

    def holds_the_turn() -> None:
        with right_of_way.in_turn(kind, "high", 200):
            has_begun.set()
            may_end.wait(30)

    first = in_the_background(holds_the_turn)
    assert has_begun.wait(30)
    with right_of_way.in_turn(kind, "critical", 200), right_of_way.in_turn(kind, "normal", 1):
        assert not first.done(), "Critical and small ones wait for nobody."
    second = in_the_background(normal)
    with pytest.raises(TimeoutError):
        second.result(0.1)
    may_end.set()
    first.result(30)
    second.result(30)
    assert kind.acquire(blocking=False), "Each gives its turn back."


def test_statement_that_hangs_holds_up_nobody_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(right_of_way, "TURN_PATIENCE_SECONDS", 0.05)
    kind = BoundedSemaphore(1)
    with right_of_way.in_turn(kind, "normal", 200):
        with right_of_way.in_turn(kind, "normal", 200):
            pass
        assert not kind.acquire(blocking=False), "Who went without a turn gives none back."
    assert kind.acquire(blocking=False)


def test_without_redis_nobody_waits_and_nothing_fails(settings: Any, tmp_path: Any) -> None:
    private = PrivateRedis(tmp_path)
    private.start()
    settings.REDIS_URL = private.url
    private.stop()
    try:
        right_of_way.claim_way("critical")
        assert REDIS.is_on
        began = time.monotonic()
        right_of_way.give_way("normal")
        assert time.monotonic() - began < right_of_way.PATIENCE_SECONDS
    finally:
        REDIS.back()
