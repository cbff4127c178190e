"""The operations page: what it shows, to whom, what it costs, and what it says while something is away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import count
from threading import Event
from typing import Any

import pytest
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.urls import reverse
from kafka.errors import KafkaConnectionError
from pymongo.errors import ServerSelectionTimeoutError
from redis import ConnectionError as RedisConnectionError

from delivery import dispatcher, lag, operations_page
from delivery import operations_figures as figures
from delivery.sweeps import last_sweep, note_sweep
from followers import clock
from tests.admin.builders import build_event, build_world
from tests.admin.scenes import busy_scene, member, outage_scene

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


@pytest.fixture
def support(client: Client) -> Client:
    client.force_login(member("Support"))
    return client


def test_it_shows_the_pipeline_and_links_to_what_can_be_done(support: Client) -> None:
    outage_scene(valid=2, over=1)
    busy_scene()
    page = support.get(reverse("operations")).content.decode()
    for words in (
        "25 failed of 30 calls within 10 s",
        "http_503",
        "The provider is in trouble.",
        "T-17",
        "channel=sms",
        "dispatch_due is at work",
        'class="ops-chart"',
    ):
        assert words in page, words
    fragment = support.get(reverse("operations"), {"fragment": ""})
    assert "<html" not in fragment.content.decode()
    assert "no-store" in fragment["Cache-Control"]


def test_an_empty_system_has_a_page_too(support: Client) -> None:
    assert "No trade in the last 30 minutes." in support.get(reverse("operations")).content.decode()


def test_only_who_may_sees_it(client: Client, django_user_model: Any) -> None:
    client.force_login(django_user_model.objects.create_user("visitor", password="x", is_staff=True))
    assert client.get(reverse("operations")).status_code == 403
    assert reverse("operations") not in client.get(reverse("admin:index")).content.decode()


def test_only_an_operator_is_offered_the_switch(client: Client) -> None:
    busy_scene()
    for group, word in (("Support", "History"), ("Operator", "Switch")):
        client.force_login(member(group, group))
        assert f">{word}</a>" in client.get(reverse("operations")).content.decode()


def test_it_says_what_is_away(support: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any) -> Any:
        raise RedisConnectionError

    monkeypatch.setattr(figures, "queue_depths", gone)
    assert "broker is away" in support.get(reverse("operations")).content.decode()
    cache.clear()

    def nothing(*_: Any) -> Any:
        raise ServerSelectionTimeoutError

    monkeypatch.setattr(operations_page, "read", nothing)
    assert "MongoDB is away" in support.get(reverse("operations")).content.decode()


@pytest.mark.parametrize(
    ("seconds_ago", "words"),
    [(None, "dispatch_due has never run"), (45, "dispatch_due is silent since 45 s"), (2, "dispatch_due is at work")],
)
def test_whether_dispatch_due_is_at_work_is_what_it_says_itself(
    support: Client, seconds_ago: int | None, words: str
) -> None:
    # Given nothing that is due, and a dispatcher that has last swept then
    if seconds_ago is not None:
        note_sweep(clock.now() - timedelta(seconds=seconds_ago))

    # Then the page says so
    page = support.get(reverse("operations")).content.decode()
    assert words in page
    assert "on time" in page


def test_a_dispatcher_notes_its_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = Event()

    def sweep(now: datetime) -> dispatcher.Sweep:
        stop.set()
        return dispatcher.Sweep()

    monkeypatch.setattr(dispatcher, "sweep_once", sweep)
    before = clock.now().replace(tzinfo=None)

    dispatcher.run(stop)

    noted = last_sweep(0)
    assert noted is not None
    assert noted >= before.replace(microsecond=before.microsecond // 1000 * 1000)


def test_what_waits_in_kafka_is_shown(support: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag, "WATCH", lag.LagWatch(lambda: {0: 1_200, 1: 34}))
    page = support.get(reverse("operations")).content.decode()
    assert "1,234" in page
    assert "trades not taken in yet" in page


def test_a_kafka_that_is_away_or_hangs_is_unknown_and_keeps_nobody_waiting(
    support: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone() -> lag.Lag:
        raise KafkaConnectionError

    answered = Event()

    def hang() -> lag.Lag:
        answered.wait(30)
        return {0: 7}

    for look in (gone, hang):
        monkeypatch.setattr(lag, "WATCH", lag.LagWatch(look))
        page = support.get(reverse("operations")).content.decode()
        assert "Kafka has not answered in time" in page
        assert not answered.is_set()
        cache.clear()

    # When it answers after all, the next look has it, without another connection
    answered.set()
    assert lag.WATCH.latest(10) == {0: 7}
    assert ">7<" in support.get(reverse("operations")).content.decode()


def test_lookers_on_share_one_look_at_kafka() -> None:
    counted = count(1)
    watch = lag.LagWatch(lambda: {0: next(counted)})
    assert [watch.latest(10), watch.latest(10)] == [{0: 1}, {0: 1}]


def test_pace_is_counted_by_the_minute_and_a_cut_leaves_a_gap() -> None:
    now = clock.now().replace(second=20, microsecond=0, tzinfo=None)
    event = {"received_at": now, "fanned_out_at": now - timedelta(minutes=1), "alerts_written": 7}
    minute = now.replace(second=0) - timedelta(minutes=2)
    pace = figures.pace(now, [event], {minute: 5}, cut_at=minute - timedelta(minutes=1))
    assert len(pace.minutes) == figures.MINUTES
    assert pace.created[-2:] == [7, 0]
    assert pace.finished[-4:] == [None, 5, 0, 0]


def test_percentiles_are_of_the_nearest_rank() -> None:
    assert figures.spread([]) is None
    assert figures.spread(range(1, 101)) == figures.Spread(100, 51, 96, 100)


def test_every_statement_is_served_by_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """As MongoDB itself saw them: the profiler keeps every statement with its plan."""
    world = build_world()
    for n in range(50):
        build_event(world.trader, f"E-{n}")
    busy_scene()
    database: Any = connection
    mongo = database.database
    mongo.command("profile", 2)
    try:
        figures.read(clock.now())
    finally:
        mongo.command("profile", 0)
    try:
        seen = list(
            mongo["system.profile"].find({"op": {"$in": ["query", "command"]}, "planSummary": {"$exists": True}})
        )
    finally:
        mongo["system.profile"].drop()
    plans = Counter((entry["ns"].split(".", 1)[1], entry["planSummary"]) for entry in seen)
    assert {name for name, _ in plans} >= {
        "delivery_batch", "notifications_notification", "notifications_tradeevent",
    }  # fmt: skip
    assert not [name for name, plan in plans if "COLLSCAN" in plan]
    assert not any(entry.get("hasSortStage") for entry in seen)
