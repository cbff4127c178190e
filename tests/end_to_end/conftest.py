"""All of NotifyHub's processes against real servers, with a topic, a group and queues of each test's own."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings as django_settings
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic

from devstack.commands import QUICK_SETTINGS
from devstack.stack import Stack
from devstack.vendors.client import Sandbox
from devstack.vendors.process import VendorProcess
from tests.end_to_end.processes import Processes

PARTITIONS = 4


@pytest.fixture
def topic(stack: Stack) -> str:
    name = f"trades.{uuid.uuid4().hex[:12]}"
    admin = KafkaAdminClient(bootstrap_servers=stack.env["KAFKA_BOOTSTRAP_SERVERS"])
    admin.create_topics([NewTopic(name, PARTITIONS, 1)])
    admin.close()
    return name  # It goes with the session's Kafka, which a test may have killed meanwhile.


@pytest.fixture
def broker_url(stack: Stack) -> str:
    """Redis; a test for SQS overrides it."""
    return stack.env["DRAMATIQ_BROKER_URL"]


@pytest.fixture
def processes(
    db: None,
    transactional_db: None,
    stack: Stack,
    vendor_process: VendorProcess,
    vendors: Sandbox,
    topic: str,
    broker_url: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Processes]:
    database = django_settings.DATABASES["default"]["NAME"]
    url = stack.env["MONGODB_URL"].replace("/notifyhub?", f"/{database}?")
    assert database in url
    running = Processes(
        tmp_path,
        {
            **stack.env,
            **vendor_process.env,
            **QUICK_SETTINGS,
            "MONGODB_URL": url,
            "DRAMATIQ_BROKER_URL": broker_url,
            "KAFKA_TRADE_TOPIC": topic,
            "KAFKA_GROUP_ID": topic,
            "QUEUE_NAMESPACE": topic.replace(".", "_"),
        },
    )
    yield running
    failed = getattr(request.node, "failed", False)
    if failed:
        print(running.logs())  # noqa: T201  Shown by pytest beside the failure.
    running.close()
    redis.Redis.from_url(stack.env["DRAMATIQ_BROKER_URL"]).flushdb()


@pytest.fixture
def publish(stack: Stack, topic: str) -> Iterator[Callable[..., None]]:
    """Puts events (or raw bytes) on the test's topic, keyed by trader, and waits until Kafka has them."""
    producer = KafkaProducer(bootstrap_servers=stack.env["KAFKA_BOOTSTRAP_SERVERS"], acks="all")

    def send(*events: dict[str, Any] | bytes) -> None:
        for event in events:
            value = event if isinstance(event, bytes) else json.dumps(event).encode()
            key = None if isinstance(event, bytes) else event["traderId"].encode()
            producer.send(topic, value, key=key)
        producer.flush()

    yield send
    producer.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    item.failed = outcome.get_result().failed  # type: ignore[attr-defined]
