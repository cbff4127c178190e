"""OneSignal's event stream, as in its pages "Event Streams" and "Event Stream data reference".

The stream's address, headers and body are set up in OneSignal's dashboard; here the control API sets the first two. The
body is the custom one that docs/operations.md gives, filled in as the dashboard's Liquid would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from devstack.vendors.messages import Headers
from devstack.vendors.receipts import Receipt
from devstack.vendors.recorder import new_id, now

USUAL = ("sent", "received")
EVENTS = frozenset(("sent", "received", "clicked", "failed", "unsubscribed"))


@dataclass(frozen=True, slots=True)
class EventStream:
    """Where events are posted, and what goes with them."""

    url: str
    headers: Headers = ()


def event(word: str, stream: EventStream, body: Mapping[str, Any], address: str, message_id: str) -> Receipt:
    """The request for one event.

    Parameters:
      word: What follows `message.push.`, with a reason where it has one: `received`, `failed:Invalid token`.
      body: The notification as the client sent it.
      address: The subscription that it was for.
    """
    name, _, reason = word.partition(":")
    moment = now()
    content = {
        "event": {
            "kind": f"message.push.{name}",
            "id": new_id(),
            "timestamp": int(moment),
            "datetime": datetime.fromtimestamp(moment, UTC).isoformat(),
            "app_id": body["app_id"],
            "subscription_id": address,
            "data": {"failure_reason": reason},
        },
        "message": {"id": message_id, "name": str(body.get("name") or "")},
    }
    headers = (("content-type", "application/json"), *stream.headers)
    return Receipt(word, stream.url, headers, orjson.dumps(content))
