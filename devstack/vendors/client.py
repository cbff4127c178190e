"""A small blocking client of the sandbox's control API."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

TIMEOUT_SECONDS = 30
PAGE = 5000


class SandboxError(Exception):
    """The control API refused; the text says why."""


class Sandbox:
    """Reads the vendors' counters and tells them how to behave.

    Vendors: `apns`, `fcm`, `twilio` (or `sms`), `discord`, `onesignal`.
    """

    def __init__(self, control_url: str) -> None:
        self._host = urlsplit(control_url).netloc

    def stats(self, vendor: str) -> dict[str, Any]:
        """requests, accepted, refused {code: n}, duplicates, repeats_under_key, replays, faults, receipts, …"""
        return self._call("GET", f"/vendors/{vendor}/stats")

    def accepted(self, vendor: str, address: str | None = None, since_index: int = 0) -> list[dict[str, Any]]:
        """Every accepted message from `since_index` on: index, address, at, message_id, key, body, headers."""
        return list(self._pages(vendor, address, since_index))

    def _pages(self, vendor: str, address: str | None, since_index: int) -> Iterator[dict[str, Any]]:
        while True:
            query: dict[str, Any] = {"since_index": since_index, "limit": PAGE}
            if address is not None:
                query["address"] = address
            page = self._call("GET", f"/vendors/{vendor}/accepted?{urlencode(query)}")
            yield from page["messages"]
            if len(page["messages"]) < PAGE:
                return
            since_index = page["next_index"]

    def behave(self, vendor: str, *, rules: Sequence[dict[str, Any]] = (), **behaviour: Any) -> None:
        """Replace a vendor's behaviour; `devstack.vendors.behaviour` names the fields. Raises SandboxError."""
        self._call("POST", f"/vendors/{vendor}/behaviour", {"rules": list(rules), **behaviour})

    def behave_well(self, vendor: str) -> None:
        """No faults and no latency any more."""
        self._call("DELETE", f"/vendors/{vendor}/behaviour")

    def stream_events(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        """Set OneSignal's event stream up; an empty address takes it down."""
        self._call("POST", "/vendors/onesignal/event_stream", {"url": url, "headers": dict(headers or {})})

    def reset(self) -> None:
        """Forget every accepted message and counter of every vendor; behaviours stay, their rules count anew."""
        self._call("POST", "/reset")

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        connection = HTTPConnection(self._host, timeout=TIMEOUT_SECONDS)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status != HTTPStatus.OK:
            raise SandboxError(content.decode("utf-8", "replace"))
        decoded: dict[str, Any] = json.loads(content)
        return decoded
