"""One trade is one trace, from the engine's own span through every process to the vendors, over the real protocol."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest
from kafka import KafkaProducer

from devstack.commands import is_healthy
from devstack.stack import Stack
from devstack.vendors.client import Sandbox
from followers.models import Endpoint, Follower
from followers.mongo import collection
from notifications.models import Notification
from tests.end_to_end.collector import Collector, Span, collecting
from tests.end_to_end.processes import Processes, free_port, wait_until
from tests.end_to_end.test_logs import lines_of
from tests.pipeline import world

pytestmark = pytest.mark.django_db(transaction=True)
CHANNELS = ("apns", "fcm", "sms", "discord", "onesignal")
TRACE = "0af7651916cd43dd8448eb211c80319c"
ENGINE = "b7ad6b7169203331"
APP = "11111111111111112222222222222222"
TICKET = "Zm9vYmFyMTIz"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


def under(collector: Collector, parent: Span) -> set[str]:
    return {span.name for span in collector.spans if span.parent == parent.id}


def publish(stack: Stack, topic: str, event: world.Document, headers: dict[str, str]) -> None:
    producer = KafkaProducer(bootstrap_servers=stack.env["KAFKA_BOOTSTRAP_SERVERS"])
    kept = [(name, value.encode()) for name, value in headers.items()]
    producer.send(topic, json.dumps(event).encode(), headers=kept)
    producer.close()


def wait_for_alerts(number: int) -> None:
    rows = collection(Notification)
    wait_until(rows, lambda: rows.count_documents({"state": "delivered"}) == number, "all delivered")


def ask_web(port: int, path: str, headers: dict[str, str]) -> None:
    wait_until(collection(Notification), lambda: is_healthy(port), "the web process answers")
    request = HTTPConnection("127.0.0.1", port, timeout=10)
    request.request("GET", path, headers=headers)
    request.getresponse().read()
    request.close()


def test_one_trade_is_one_trace_through_every_process(
    processes: Processes, stack: Stack, topic: str, vendors: Sandbox, collector: Collector
) -> None:
    # Given followers on every channel, one of whose vendors fails at first
    trader = world.make_trader()
    for channel in CHANNELS:
        world.make_follower(trader, channel)
    vendors.behave("fcm", rules=[{"match": {"first_n": 1}, "status": 503, "code": "UNAVAILABLE"}])
    processes.env |= collector.env
    processes.manage("consume_trades")
    processes.manage("dispatch_due")
    workers = processes.workers()
    port = free_port()
    processes.web(port)

    # When the engine publishes a trade in a trace of its own, and an app asks for something in another
    publish(
        stack,
        topic,
        world.trade(trader),
        {"correlation-id": "order-4711", "traceparent": f"00-{TRACE}-{ENGINE}-01"},
    )
    wait_for_alerts(len(CHANNELS))
    ask_web(
        port, f"/api/v1/alerts/{world.alerts()[0]['_id']}/?ticket={TICKET}", {"traceparent": f"00-{APP}-{ENGINE}-01"}
    )
    workers.send_signal(signal.SIGTERM)  # What is recorded is sent before a worker ends.
    workers.wait(30)
    collector.wait_for(lambda: any(span.trace == APP for span in collector.spans), "the web process's span")

    # Then
    shows_every_step(collector)
    shows_what_was_asked_of_servers_where_it_belongs(collector)
    shows_nothing_that_is_nobody_elses_business(collector)
    told = [line for line in lines_of(processes) if line["message"] in {"Stored.", "Fanned out.", "Delivered a batch."}]
    assert {line.get("trace_id") for line in told} == {TRACE}
    (line,) = [line for line in told if line["message"] == "Fanned out."]
    assert line["span_id"] == collector.named("fan_out", TRACE)[0].id


def shows_every_step(collector: Collector) -> None:
    (intake,) = collector.named("intake", TRACE)
    assert (intake.service, intake.parent) == ("notifyhub-consume_trades", ENGINE)
    (fan_out,) = collector.named("fan_out", TRACE)
    assert (fan_out.service, fan_out.parent) == ("notifyhub-worker", intake.id)
    assert "push" in under(collector, fan_out)
    assert fan_out.attributes["messaging.destination.name"] == "fan_out_high"
    for channel in CHANNELS:
        delivers = collector.named(f"deliver {channel}", TRACE)
        assert {span.parent for span in delivers} == {intake.id}
        assert len(delivers) == (2 if channel == "fcm" else 1)  # dispatch_due had it sent again, in the same trace.
        assert all({"claim", f"send {channel}", "record"} <= under(collector, span) for span in delivers)
        sends = {span.id for span in collector.named(f"send {channel}", TRACE)}
        calls = collector.named(f"call {channel}", TRACE)
        assert {call.parent for call in calls} == sends
        assert all(call.attributes["peer.service"] == channel for call in calls)
    codes = [call.attributes.get("error.type") for call in collector.named("call fcm", TRACE)]
    assert sorted(filter(None, codes)) == ["UNAVAILABLE"]


def shows_what_was_asked_of_servers_where_it_belongs(collector: Collector) -> None:
    asked = [span for span in collector.spans if "db.system" in span.attributes]
    assert {span.attributes["db.system"] for span in asked} == {"mongodb", "redis"}
    known = {span.id for span in collector.spans}
    assert all(span.parent in known for span in asked)


def shows_nothing_that_is_nobody_elses_business(collector: Collector) -> None:
    (web,) = [span for span in collector.spans if span.trace == APP and span.parent == ENGINE]
    assert web.name.startswith("GET api/v1/")
    assert set(web.attributes) <= {"http.method", "http.route", "http.status_code"}
    sent = b"".join(collector.bodies)
    assert TICKET.encode() not in sent
    for endpoint in Endpoint.objects.all():
        assert endpoint.address.rpartition("/")[2].encode() not in sent
    said = {str(value) for span in collector.spans for value in span.attributes.values()}
    for follower in Follower.objects.all():
        assert not {follower.external_id, str(follower.pk), follower.name} & said


def test_a_collector_that_is_away_costs_a_line_and_no_alert(
    processes: Processes, stack: Stack, topic: str, vendors: Sandbox
) -> None:
    trader = world.make_trader()
    world.make_follower(trader, "fcm")
    processes.env |= {**Collector(free_port()).env, "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    consumer = processes.manage("consume_trades")
    workers = processes.workers()

    publish(stack, topic, world.trade(trader), {})
    wait_for_alerts(1)
    for process in (consumer, workers):
        process.send_signal(signal.SIGTERM)

    assert [process.wait(15) for process in (consumer, workers)] == [0, 0]
    lines = lines_of(processes)
    assert {line["message"] for line in lines if line["level"] == "warning"} == {
        "The trace collector is away; spans are lost until it answers."
    }
    assert not [line for line in lines if line["level"] in {"error", "critical"}]


def test_everything_runs_where_the_packages_are_not_installed(
    processes: Processes, stack: Stack, topic: str, vendors: Sandbox, without_opentelemetry: dict[str, str]
) -> None:
    trader = world.make_trader()
    world.make_follower(trader, "fcm")
    processes.env |= without_opentelemetry
    processes.manage("consume_trades")
    processes.workers()
    port = free_port()
    processes.web(port)

    publish(stack, topic, world.trade(trader), {"traceparent": f"00-{TRACE}-{ENGINE}-01"})

    wait_for_alerts(1)
    ask_web(port, "/healthz", {})
    assert not [line for line in lines_of(processes) if "trace_id" in line or line["level"] in {"error", "critical"}]
