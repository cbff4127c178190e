"""OneSignal's event stream: what one event says.

Sources: documentation.onesignal.com: event-streams, event-streams-data. An event carries no `data` of the message, but
its `name`, so that is where our reference travels. The stream's body is a template of ours (docs/operations.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from delivery.channels.answers import MAX_MESSAGE, Verdict, scrub
from delivery.channels.base import Outcome
from delivery.channels.receipts import Receipt, Reference, parse_reference

Event = Mapping[str, Any]

KINDS: Mapping[str, Verdict] = {
    "message.push.sent": (Outcome.SENT, ""),
    "message.push.received": (Outcome.DELIVERED, ""),  # Confirmed Delivery; not every platform can tell.
    "message.push.clicked": (Outcome.DELIVERED, ""),
    "message.push.failed": (Outcome.REFUSED, "OneSignal could not hand the message to the push service"),
    "message.push.unsubscribed": (Outcome.DEAD, "The subscription has ended"),
}
"""By event.kind. Other kinds are about other messages than ours."""

CODES: Mapping[Outcome, str] = {Outcome.REFUSED: "push_failed", Outcome.DEAD: "unsubscribed"}
"""OneSignal has words for a failure and no codes."""


class EventError(ValueError):
    """An event that is not in the form which was agreed on; the text says why."""


def reference(event: Event) -> Reference | None:
    """Whose receipt it is; None for a message that is not ours."""
    return parse_reference(_field(event, "message", "name"))


def receipt(event: Event) -> Receipt | None:
    """An event as a receipt; None for a kind that says nothing about a push message. Raises EventError."""
    kind = _field(event, "event", "kind")
    if not kind:
        raise EventError("event.kind is missing")
    if kind not in KINDS:
        return None
    outcome, reason = KINDS[kind]
    words = _field(event, "event", "data", "failure_reason")
    message = f"{reason}: {scrub(words, '')}"[:MAX_MESSAGE] if reason and words else reason
    return Receipt(outcome, kind, CODES.get(outcome, ""), message, _field(event, "message", "id"))


def _field(event: Event, *path: str) -> str:
    """A text by its path, in nested objects or, as in OneSignal's own examples, under one dotted name."""
    value: Any = event.get(".".join(path))
    if value is None:
        value = event
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) else ""
