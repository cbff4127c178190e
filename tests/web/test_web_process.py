"""The web process: how it starts, what it serves, and what it says about its health."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from django.test import AsyncClient

from devstack.proxy import Faults, Proxy
from devstack.stack import Stack
from notifyhub import health
from tests.web.server import Server

ROOT = Path(__file__).resolve().parents[2]
UNREACHABLE = "127.0.0.1:1"  # Nothing listens on port 1.


@pytest.mark.parametrize(
    ("name", "value"), [("DJANGO_SECRET_KEY", ""), ("MONGODB_URL", "postgres://x/y"), ("PRESENCE_TTL_SECONDS", "soon")]
)
def test_a_wrong_setting_ends_in_one_line_that_names_it(name: str, value: str):
    command = [sys.executable, "-m", "uvicorn", "notifyhub.asgi:application", "--port", "0"]
    ended = subprocess.run(
        command, env={**os.environ, name: value}, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.returncode != 0
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith(f"notifyhub: {name} ")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("unfold/css/styles.css", "text/css"),
        ("notifications/notifyhub-inbox.js", "text/javascript"),
        ("notifications/icon.svg", "image/svg+xml"),
    ],
)
def test_static_files_are_served_without_collectstatic(server: Server, path: str, content_type: str):
    with urllib.request.urlopen(f"http://{server.address}/static/{path}", timeout=10) as answer:
        assert answer.headers["content-type"].startswith(content_type)
        assert answer.read()


async def test_healthz_answers_without_any_server():
    answer = await AsyncClient().get("/healthz")

    assert (answer.status_code, answer.content) == (200, b"ok")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("broker", ["redis", "sqs"])
async def test_readyz_is_200_when_everything_is_reachable(stack: Stack, settings, broker: str):
    if broker == "sqs":
        settings.DRAMATIQ_BROKER_URL = "sqs://"

    answer = await AsyncClient().get("/readyz")

    assert (answer.status_code, answer.json()) == (200, {"ready": True, "away": []})


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("changes", "away"),
    [
        ({"REDIS_URL": f"redis://{UNREACHABLE}/0"}, ["redis"]),
        ({"DRAMATIQ_BROKER_URL": f"redis://{UNREACHABLE}/1"}, ["broker"]),
        ({"DRAMATIQ_BROKER_URL": "sqs://", "SQS_ENDPOINT_URL": f"http://{UNREACHABLE}"}, ["broker"]),
        ({"KAFKA_BOOTSTRAP_SERVERS": [UNREACHABLE], "REDIS_URL": f"redis://{UNREACHABLE}/0"}, ["redis", "kafka"]),
    ],
)
async def test_readyz_names_what_is_away(stack: Stack, settings, changes: dict[str, object], away: list[str]):
    for name, value in changes.items():
        setattr(settings, name, value)

    answer = await AsyncClient().get("/readyz")

    assert (answer.status_code, answer.json()) == (503, {"ready": False, "away": away})


@pytest.mark.django_db(transaction=True)
async def test_readyz_of_some_servers_looks_at_no_others(stack: Stack, settings):
    settings.KAFKA_BOOTSTRAP_SERVERS, settings.REDIS_URL = [UNREACHABLE], f"redis://{UNREACHABLE}/0"

    ready = await AsyncClient().get("/readyz", {"only": "mongodb"})
    away = await AsyncClient().get("/readyz", {"only": "mongodb,redis"})
    nonsense = await AsyncClient().get("/readyz", {"only": "mongo"})

    assert (ready.status_code, ready.json()) == (200, {"ready": True, "away": []})
    assert (away.status_code, away.json()["away"]) == (503, ["redis"])
    assert nonsense.status_code == 400


@pytest.mark.django_db(transaction=True)
async def test_readyz_names_a_database_that_does_not_answer(stack: Stack, monkeypatch):
    def no_answer() -> None:
        raise TimeoutError

    monkeypatch.setitem(health.CHECKS, "mongodb", no_answer)

    answer = await AsyncClient().get("/readyz")

    assert (answer.status_code, answer.json()["away"]) == (503, ["mongodb"])


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("setting", "name"),
    [("REDIS_URL", "redis"), ("DRAMATIQ_BROKER_URL", "broker")],
)
async def test_readyz_notices_a_server_that_went_silent_and_its_return(stack: Stack, settings, setting: str, name: str):
    with Proxy(stack.valkey.port) as proxy:
        setattr(settings, setting, f"redis://{proxy.address}/0")
        ready = await AsyncClient().get("/readyz")
        proxy.set(Faults(silent=True))
        async with asyncio.timeout(5):  # An orchestrator is to know by then.
            away = await AsyncClient().get("/readyz")
        proxy.set(Faults())
        back = await AsyncClient().get("/readyz")

    assert (ready.status_code, away.status_code, back.status_code) == (200, 503, 200)
    assert away.json()["away"] == [name]
