"""X-Correlation-ID: taken over or made, on every answer and every WebSocket."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import Any

import pytest
from websockets.sync.client import connect

from delivery.models import Batch
from followers import service_keys
from followers.choices import Scope
from followers.models import Follower
from notifications.frames import SUBPROTOCOL
from notifications.models import Update
from tests.web.server import Server

pytestmark = pytest.mark.django_db(transaction=True)
HEADER = "X-Correlation-ID"


def answered(server: Server, path: str, given: str | None = None) -> str:
    """The correlation id that comes back."""
    connection = HTTPConnection(server.address, timeout=10)
    try:
        connection.request("GET", path, headers={} if given is None else {HEADER: given})
        return str(connection.getresponse().headers[HEADER])
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/healthz", "/no-such-page", "/admin/", "/static/notifications/icon.svg"])
def test_a_given_id_comes_back_on_every_answer(server: Server, path: str) -> None:
    assert answered(server, path, "order-4711.retry+1") == "order-4711.retry+1"
    assert answered(server, path, "x" * 128) == "x" * 128


@pytest.mark.parametrize("given", [None, "", "x" * 129, "tab\tbed", "caf\u00e9"])
def test_one_is_made_where_none_is_usable(server: Server, given: str | None) -> None:
    first, second = answered(server, "/healthz", given), answered(server, "/healthz", given)

    assert first != second
    assert {len(first), len(second)} == {32}


def test_an_update_and_its_alerts_are_found_by_the_id_of_the_request_that_published_it(
    server: Server, ann: Follower
) -> None:
    key = service_keys.create("Platform", [Scope.UPDATES_WRITE])[1]
    words = {"id": "U-1", "title": "Markets close early", "text": "At 14:00.", "follower_ids": [ann.external_id]}
    headers = {"Authorization": f"Api-Key {key}", "Content-Type": "application/json", HEADER: "order-4711"}
    connection = HTTPConnection(server.address, timeout=10)
    connection.request("POST", "/api/v1/updates/", json.dumps(words), headers)
    answer = connection.getresponse()
    said = json.load(answer)
    connection.close()

    assert (answer.status, said["correlation_id"]) == (201, "order-4711")
    assert (Update.objects.get().correlation_id, Batch.objects.get().correlation_id) == ("order-4711", "order-4711")


def test_a_websocket_has_one_too(server: Server) -> None:
    options: dict[str, Any] = {"subprotocols": [SUBPROTOCOL, "no-token"], "additional_headers": {HEADER: "socket-1"}}
    with connect(f"ws://{server.address}/ws/inbox/", **options) as socket:
        assert socket.response is not None
        assert socket.response.headers[HEADER] == "socket-1"
