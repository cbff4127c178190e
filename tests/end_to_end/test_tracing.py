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
BROWSER = "11111111111111112222222222222222"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


def under(collector: Collector, parent: Span) -> set[str]:
    return {span.name for span in collector.spans if span.parent == parent.id}


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

    # When the engine publishes a trade in a trace of its own
    event = world.trade(trader)
    headers = [("correlation-id", b"order-4711"), ("traceparent", f"00-{TRACE}-{ENGINE}-01".encode())]
    producer = KafkaProducer(bootstrap_servers=stack.env["KAFKA_BOOTSTRAP_SERVERS"])
    producer.send(topic, json.dumps(event).encode(), headers=headers)
    producer.close()
    rows = collection(Notification)
    wait_until(rows, lambda: rows.count_documents({"state": "delivered"}) == len(CHANNELS), "all delivered")
    wait_until(rows, lambda: is_healthy(port), "the web process answers")
    request = HTTPConnection("127.0.0.1", port, timeout=10)
    path = f"/api/v1/alerts/{rows.find_one()['_id']}/?ticket=Zm9vYmFyMTIz"  # type: ignore[index]
    request.request("GET", path, headers={"traceparent": f"00-{BROWSER}-{ENGINE}-01"})
    request.getresponse().read()
    request.close()
    workers.send_signal(signal.SIGTERM)  # What is recorded is sent before a worker ends.
    workers.wait(30)
    collector.wait_for(lambda: any(span.trace == BROWSER for span in collector.spans), "the web process's span")

    # Then its trace has every step, under the engine's span and each other
    (intake,) = collector.named("intake", TRACE)
    assert (intake.service, intake.parent) == ("notifyhub-consume_trades", ENGINE)
    (fan_out,) = collector.named("fan_out", TRACE)
    assert (fan_out.service, fan_out.parent) == ("notifyhub-worker", intake.id)
    assert {"push", "notifyhub_test"} & {name.split(".")[0] for name in under(collector, fan_out)}
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

    # And what was asked of MongoDB and Redis is in it where it belongs, and nowhere else
    asked = [span for span in collector.spans if "db.system" in span.attributes]
    assert {span.attributes["db.system"] for span in asked} == {"mongodb", "redis"}
    known = {span.id for span in collector.spans}
    assert all(span.parent in known for span in asked)

    # And no address, no query and no person has left the processes
    sent = b"".join(collector.bodies)
    assert b"Zm9vYmFyMTIz" not in sent
    (web,) = [span for span in collector.spans if span.trace == BROWSER and span.parent == ENGINE]
    assert web.name.startswith("GET api/v1/")
    assert set(web.attributes) <= {"http.method", "http.route", "http.status_code"}
    for endpoint in Endpoint.objects.all():
        assert endpoint.address.rpartition("/")[2].encode() not in sent
    for follower in Follower.objects.all():
        assert f'"{follower.external_id}"'.encode() not in sent
        assert str(follower.pk).encode() not in sent

    # And the logs of a step name its trace
    told = [line for line in lines_of(processes) if line["message"] in {"Stored.", "Fanned out.", "Delivered a batch."}]
    assert {line.get("trace_id") for line in told} == {TRACE}
    (line,) = [line for line in told if line["message"] == "Fanned out."]
    assert line["span_id"] == fan_out.id


def test_a_collector_that_is_away_costs_a_line_and_no_alert(
    processes: Processes, stack: Stack, topic: str, vendors: Sandbox
) -> None:
    trader = world.make_trader()
    world.make_follower(trader, "fcm")
    processes.env |= Collector(free_port()).env
    consumer = processes.manage("consume_trades")
    workers = processes.workers()

    producer = KafkaProducer(bootstrap_servers=stack.env["KAFKA_BOOTSTRAP_SERVERS"])
    producer.send(topic, json.dumps(world.trade(trader)).encode())
    producer.close()
    rows = collection(Notification)
    wait_until(rows, lambda: rows.count_documents({"state": "delivered"}) == 1, "delivered")

    for process in (consumer, workers):
        process.send_signal(signal.SIGTERM)
    assert [process.wait(15) for process in (consumer, workers)] == [0, 0]
    about = [line for line in lines_of(processes) if "collector" in line["message"] or "telemetry" in line["logger"]]
    assert all(line["message"].startswith("The trace collector is") for line in about)
