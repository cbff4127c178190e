"""What the logs say of a server that is away."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from followers import mongo, outage
from followers.outage import EVERY_SECONDS, Outage


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """The lines, with their fields."""
    lines: list[tuple[str, dict[str, Any]]] = []

    class Logger:
        def warning(self, line: str, **fields: Any) -> None:
            lines.append((line, fields))

        info = warning

    monkeypatch.setattr(outage, "logger", Logger())
    return lines


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_outage_is_a_line_then_one_every_ten_seconds_then_one_at_its_end(said: list[Any]) -> None:
    clock = Clock()
    server = Outage("Redis", lambda: "host:1", clock)
    for _ in range(250):  # Ten failures a second, for 25 seconds.
        server.away(ConnectionError("refused"))
        clock.now += 0.1
    server.back()

    assert [line for line, _ in said] == [
        "Redis is away; work goes on when it answers.", "Redis is still away.", "Redis is still away.",
        "Redis answers again.",
    ]  # fmt: skip
    assert said[0][1] == {"server": "host:1", "error": "ConnectionError: refused"}
    assert said[3][1] == {"server": "host:1", "seconds": 25.0, "failures": 250}


def test_a_server_that_comes_and_goes_gets_no_more_lines_than_one_that_stays_away(said: list[Any]) -> None:
    clock = Clock()
    server = Outage("Redis", lambda: "host:1", clock)
    for _ in range(30):
        server.away(ConnectionError("refused"))
        clock.now += 0.5
        server.back()
        clock.now += 0.5

    assert len(said) <= 2 * (30 / EVERY_SECONDS + 1)


def test_a_server_that_answers_is_not_spoken_of(said: list[Any]) -> None:
    server = Outage("Redis", lambda: "host:1")
    server.back()
    assert said == []


def test_many_threads_make_one_line(said: list[Any]) -> None:
    server = Outage("Redis", lambda: "host:1")
    threads = [threading.Thread(target=server.away, args=(ConnectionError("refused"),)) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.back()
    assert [line for line, _ in said] == ["Redis is away; work goes on when it answers.", "Redis answers again."]
    assert said[1][1]["failures"] == 40


def test_an_address_is_told_without_its_credentials(settings: Any, said: list[Any]) -> None:
    settings.REDIS_URL = "rediss://user:secret@cache.example:6380/1"
    Outage("Redis", outage._host_in("REDIS_URL")).away("gone")
    assert said[0][1]["server"] == "cache.example:6380"


def test_a_statement_is_not_repeated_by_a_process_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def fail() -> None:
        tries.append(1)
        raise AutoReconnect("away")

    monkeypatch.setattr(mongo, "_repeat_no_more", threading.Event())
    mongo.repeat_no_more()
    with pytest.raises(AutoReconnect):
        mongo.durably(fail)
    assert len(tries) == 1
