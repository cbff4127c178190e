"""The sandbox's control API: counters, accepted messages, behaviour. HTTP and JSON, one port for all vendors.

GET    /vendors                      the vendors' names
GET    /vendors/{name}/stats         counters
GET    /vendors/{name}/accepted      ?address=&since_index=0&limit=1000
POST   /vendors/{name}/behaviour     replaces the behaviour (`behaviour.py` names the fields)
DELETE /vendors/{name}/behaviour     a vendor at its best again
POST   /vendors/onesignal/event_stream   {"url", "headers"}: where events are posted; {} = nowhere
POST   /reset                        forgets messages and counters; rules count from the beginning
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import orjson

from devstack.vendors.behaviour import BehaviourError
from devstack.vendors.messages import Reply, Request
from devstack.vendors.onesignal import OneSignal
from devstack.vendors.vendor import Vendor

CHANNEL_NAMES = {"sms": "twilio"}  # A channel of the project whose vendor bears another name.
DEFAULT_LIMIT = 1000


class Control:
    """A Service beside the vendors'."""

    def __init__(self, vendors: Mapping[str, Vendor]) -> None:
        self._vendors = vendors

    def connection_opened(self) -> None:
        """Connections to the control API are not counted."""

    def connection_closed(self) -> None:
        """Connections to the control API are not counted."""

    def finished(self) -> None:
        """Nor are its requests."""

    def handle(self, request: Request) -> Reply:
        try:
            return self._route(request)
        except (BehaviourError, ValueError, TypeError) as error:
            return Reply.json(400, {"error": str(error)})

    def _route(self, request: Request) -> Reply:
        match [request.method, *request.path.strip("/").split("/")]:
            case ["GET", "vendors"]:
                return Reply.json(200, {"vendors": sorted(self._vendors)})
            case ["POST", "reset"]:
                for vendor in self._vendors.values():
                    vendor.reset()
                return Reply.json(200, {})
            case [method, "vendors", name, action]:
                vendor_or_none = self._vendors.get(CHANNEL_NAMES.get(name, name))
                if vendor_or_none is not None:
                    return self._route_vendor(vendor_or_none, method, action, request)
        return Reply.json(404, {"error": f"{request.method} {request.path} is not known here"})

    def _route_vendor(self, vendor: Vendor, method: str, action: str, request: Request) -> Reply:
        match method, action:
            case "GET", "stats":
                return Reply.json(200, vendor.recorder.stats())
            case "GET", "accepted":
                return Reply.json(200, accepted(vendor, parse_qs(request.query)))
            case "POST", "behaviour":
                vendor.behave(orjson.loads(request.body))
                return Reply.json(200, {})
            case "POST", "event_stream" if isinstance(vendor, OneSignal):
                vendor.stream_events(orjson.loads(request.body))
                return Reply.json(200, {})
            case "DELETE", "behaviour":
                vendor.behave({})
                return Reply.json(200, {})
        return Reply.json(404, {"error": f"{method} {action} is not known here"})


def accepted(vendor: Vendor, query: Mapping[str, list[str]]) -> dict[str, Any]:
    """`messages`, and the `next_index` to go on from."""
    since = int(query.get("since_index", ["0"])[-1])
    limit = int(query.get("limit", [str(DEFAULT_LIMIT)])[-1])
    address = query.get("address", [None])[-1]
    found = vendor.recorder.accepted(vendor.plain_address(address) if address else None, since, limit)
    next_index = found[-1].index + 1 if len(found) == limit else max(since, len(vendor.recorder.entries))
    return {"messages": [entry.as_json() for entry in found], "next_index": next_index}
