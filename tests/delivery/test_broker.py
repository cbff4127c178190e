"""Hints on a real Redis: many in one round trip, and what becomes of them when Redis forgets or is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from bson import ObjectId

from delivery import broker as broker_module
from delivery.broker import WAKE_LIST_LENGTH, WakingRedisBroker, make_broker, queue_depths, send_hints
from followers.outage import QUEUE
from tests.web.private_redis import PrivateRedis

QUEUE_NAME = "deliver_fcm_high"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRedis]:
    folder: Path = tmp_path_factory.mktemp("redis")
    private = PrivateRedis(folder)
    private.start()
    yield private
    private.stop()


@pytest.fixture
def broker(server: PrivateRedis, monkeypatch: pytest.MonkeyPatch) -> WakingRedisBroker:
    if not server.is_running:
        server.start()
    server.client.flushall()
    made = make_broker(server.url, "hints", "", [])
    assert isinstance(made, WakingRedisBroker)
    monkeypatch.setattr(dramatiq, "get_broker", lambda: made)
    return made


def batches(count: int, priority: str = "high") -> list[dict[str, Any]]:
    return [{"_id": ObjectId(), "kind": "deliver", "channel": "fcm", "priority": priority} for _ in range(count)]


def fetched(broker: WakingRedisBroker, count: int) -> list[str]:
    consumer = broker.consume(QUEUE_NAME)
    found = []
    for data in broker.do_fetch(QUEUE_NAME, count):
        message = dramatiq.Message.decode(data)
        found.append(message.args[0])
        consumer.ack(dramatiq.MessageProxy(message))
    return found


def test_each_batch_is_hinted_once_on_its_own_queue(broker: WakingRedisBroker) -> None:
    high, normal = batches(230), batches(3, "normal")
    assert send_hints([*high, *normal]) == []
    depths = queue_depths()
    assert (depths[QUEUE_NAME], depths["deliver_fcm_normal"], sum(depths.values())) == (230, 3, 233)
    assert fetched(broker, 230) == [str(batch["_id"]) for batch in high]
    assert queue_depths()[QUEUE_NAME] == 0


def test_consumers_that_wait_are_woken(broker: WakingRedisBroker) -> None:
    send_hints(batches(3))
    assert broker.client.llen(broker.wake_key(QUEUE_NAME)) == 3
    send_hints(batches(200))
    assert broker.client.llen(broker.wake_key(QUEUE_NAME)) == WAKE_LIST_LENGTH


def test_a_redis_that_was_restarted_has_forgotten_the_script(broker: WakingRedisBroker) -> None:
    send_hints(batches(1))
    broker.client.script_flush()
    assert send_hints(batches(2)) == []
    assert queue_depths()[QUEUE_NAME] == 3


def test_what_could_not_be_hinted_is_named(
    broker: WakingRedisBroker, server: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "HINTS_IN_ONE_GO", 2)
    push, waiting = broker._push, batches(5)

    def die_after_the_first(messages: Any) -> None:
        push(messages)
        server.stop()

    monkeypatch.setattr(broker, "_push", die_after_the_first)
    assert send_hints(waiting) == waiting[2:]
    assert QUEUE.is_on
    server.start()
    assert send_hints([]) == []
    QUEUE.back()


def test_a_hint_is_never_delayed(broker: WakingRedisBroker) -> None:
    with pytest.raises(ValueError, match="never delayed"):
        broker.enqueue(broker_module.hint(batches(1)[0]), delay=1_000)
