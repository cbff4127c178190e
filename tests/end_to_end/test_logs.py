"""One search for a correlation id over all processes' logs tells an alert's story; and no address is in any of them."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import Any

import pytest
from kafka import KafkaProducer
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from devstack.commands import is_healthy
from devstack.stack import Stack
from devstack.vendors.client import Sandbox
from followers.models import Endpoint
from followers.mongo import collection
from notifications import tokens
from notifications.frames import SUBPROTOCOL
from notifications.models import Notification
from tests.end_to_end.processes import Processes, free_port, wait_until
from tests.pipeline import world

pytestmark = pytest.mark.django_db(transaction=True)
CORRELATION_ID = "order-4711.retry+1"


def lines_of(processes: Processes) -> list[dict[str, Any]]:
    """Every line of every process, in the order of time. Each is one JSON object."""
    text = "".join(path.read_text() for path in processes.directory.glob("*.log"))
    return sorted((json.loads(line) for line in text.splitlines()), key=lambda line: line["time"])


def test_one_search_shows_each_step_in_order_and_no_address(
    processes: Processes, stack: Stack, topic: str, vendors: Sandbox
) -> None:
    trader = world.make_trader()
    followers = {
        channel: world.make_follower(trader, channel) for channel in ("fcm", "apns", "sms", "discord", "onesignal")
    }
    vendors.behave("twilio", rules=[{"match": {}, "status": 400, "code": "21211"}])
    vendors.behave("fcm", rules=[{"match": {"first_n": 1}, "status": 503, "code": "UNAVAILABLE"}])
    processes.manage("consume_trades")
    processes.manage("dispatch_due")
    processes.workers()
    port = free_port()
    processes.web(port)
    event = world.trade(trader)
    rows = collection(Notification)
    wait_until(rows, lambda: is_healthy(port), "the web process answers")

    protocols = [Subprotocol(SUBPROTOCOL), Subprotocol(tokens.mint(followers["apns"]))]
    with connect(f"ws://127.0.0.1:{port}/ws/inbox/", subprotocols=protocols) as socket:
        assert "unread_count.changed" in str(socket.recv(timeout=20))
        producer = KafkaProducer(bootstrap_servers=stack.env["KAFKA_BOOTSTRAP_SERVERS"])
        producer.send(topic, json.dumps(event).encode(), headers=[("correlation-id", CORRELATION_ID.encode())])
        producer.close()
        frame = json.loads(socket.recv(timeout=60))
    wait_until(rows, lambda: rows.count_documents({"state": {"$in": ["delivered", "failed"]}}) == 5, "all settled")

    request = HTTPConnection("127.0.0.1", port, timeout=10)
    request.request("GET", "/healthz?ticket=Zm9vYmFyMTIz", headers={"X-Correlation-ID": "asked-by-a-test"})
    assert request.getresponse().headers["X-Correlation-ID"] == "asked-by-a-test"
    request.close()

    lines = lines_of(processes)
    (asked,) = [line for line in lines if line.get("correlation_id") == "asked-by-a-test"]
    assert asked["logger"] == "uvicorn.access"
    story = [line for line in lines if line.get("correlation_id") == CORRELATION_ID]
    steps = [line["message"] for line in story]
    assert steps[:3] == ["Received.", "Stored.", "Alerts stored."]
    # The shard may end while its first alerts are on their way already.
    assert set(steps[3:]) == {"Pushed.", "Fanned out.", "Delivered a batch."}
    (pushed,) = [line for line in story if line["message"] == "Pushed."]
    assert (pushed["entries"], pushed["frames"]) == (5, 1)
    assert (frame["type"], frame["payload"]["correlation_id"]) == ("notification.created", CORRELATION_ID)
    (fcm,), (apns,), (onesignal,) = (vendors.accepted(vendor) for vendor in ("fcm", "apns", "onesignal"))
    told = (fcm["body"]["data"], apns["body"], onesignal["body"]["data"])
    assert [data["correlation_id"] for data in told] == [CORRELATION_ID] * 3
    sent = [line for line in story if line["message"] == "Delivered a batch."]
    ended = {line["channel"]: {state for state in ("sent", "failed") if state in line} for line in sent}
    assert ended == {"fcm": {"sent"}, "apns": {"sent"}, "sms": {"failed"}, "discord": {"sent"}, "onesignal": {"sent"}}
    text = json.dumps(lines)
    assert "Zm9vYmFyMTIz" not in text
    for endpoint in Endpoint.objects.all():
        assert endpoint.address not in text
        assert endpoint.address.rpartition("/")[2] not in text
