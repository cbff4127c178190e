"""/readyz, as an orchestrator asks it: 503 within five seconds of a server's loss, 200 within five of its return."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from urllib.error import HTTPError

import pytest

from devstack.proxy import Faults, Proxy
from devstack.stack import Stack
from notifyhub.health import CHECK_SECONDS
from tests.delivery.kafka_topics import until
from tests.end_to_end.processes import Processes, free_port

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
WITHIN_SECONDS = 5.0
ASK_SECONDS = CHECK_SECONDS + 1
"""A check that hangs is answered in time, and a request that is not leaves time for another."""
SERVERS = {"mongodb": "mongodb", "valkey": "redis", "kafka": "kafka", "elasticmq": "broker"}
"""By the name that /readyz has for each."""


@pytest.fixture
def broker_url() -> str:
    """SQS, so that the queue and Redis are two servers."""
    return "sqs://"


def asked(port: int, seconds: float = ASK_SECONDS) -> tuple[int, list[str]]:
    """The status, and what is away; status 0 = the web process does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=seconds) as answer:
            return answer.status, json.load(answer)["away"]
    except HTTPError as error:
        with error:
            return error.code, json.load(error)["away"]
    except OSError:
        return 0, []


def answers_in_time(port: int, status: int, away: list[str]) -> None:
    """That the web process says so within WITHIN_SECONDS from now."""
    deadline = time.monotonic() + WITHIN_SECONDS
    pause, said = threading.Event(), (0, [""])
    while (rest := deadline - time.monotonic()) > 0:
        said = asked(port, min(rest, ASK_SECONDS))
        if said == (status, away) and time.monotonic() <= deadline:
            return
        pause.wait(0.1)
    raise AssertionError(f"Not within {WITHIN_SECONDS} s: {status} {away}; the last answer was {said}.")


def test_each_servers_loss_and_return_show_within_five_seconds(processes: Processes, stack: Stack) -> None:
    port = free_port()
    processes.web(port)
    until(lambda: asked(port) == (200, []))
    for server, name in SERVERS.items():
        at_fault = getattr(stack, server)
        at_fault.kill()
        try:
            answers_in_time(port, 503, [name])
        finally:
            at_fault.start()
        answers_in_time(port, 200, [])


def test_a_kafka_that_takes_everything_and_says_nothing_is_away_too(processes: Processes, stack: Stack) -> None:
    with Proxy(stack.kafka.port) as proxy:
        processes.env |= {"KAFKA_BOOTSTRAP_SERVERS": proxy.address}
        port = free_port()
        processes.web(port)
        until(lambda: asked(port) == (200, []))
        proxy.set(Faults(silent=True))
        answers_in_time(port, 503, ["kafka"])
        proxy.set(Faults())
        answers_in_time(port, 200, [])
