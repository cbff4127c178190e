"""The spans of a batch of deliveries: one in the trace of each trade that it has alerts of (followers/spans.py).

A batch of a fan-out belongs to one trade; one that dispatch_due has made may hold several. What is said of the vendor's
answers is taken from what is recorded anyway, once a batch is sent: sending itself knows nothing of traces.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from bson import ObjectId
from django.conf import settings
from dramatiq.middleware import CurrentMessage

from delivery import telemetry
from delivery.channels.base import Outcome
from delivery.statements import Patch
from followers.spans import Attribute, Span, Step, tracer
from notifications.statements import traceparents

Document = dict[str, Any]
Traces = Mapping[ObjectId, str]
"""A trade's id → what continues its trace."""


def traces_of(rows: Iterable[Document]) -> Traces:
    """The traces that loaded rows belong to; none are asked for while nobody traces."""
    return traceparents({row["event_id"] for row in rows}) if tracer().is_on else {}


def hinted(since_ns: int) -> dict[str, Attribute]:
    """Which queue brought a batch here, and how long its hint had waited there by `since_ns`."""
    message = CurrentMessage.get_current_message() if tracer().is_on else None
    if message is None:
        return {}
    return {"queue": message.queue_name, "hint_waited_ms": max(0, since_ns // 1_000_000 - message.message_timestamp)}


class BatchSpans:
    """The open spans of a claimed batch, by trade; none where nobody traces."""

    def __init__(self, channel: str, rows: Iterable[Document], opened: Mapping[ObjectId, Span]) -> None:
        self._channel = channel
        self._opened = opened
        self._began_ns = time.time_ns()
        self._trades = {row["_id"]: row["event_id"] for row in rows} if opened else {}

    def sent(self, patches: Sequence[Patch]) -> None:
        """Everything has its answer."""
        ended_ns = time.time_ns()
        for trade, span in self._opened.items():
            logs = [patch.log for patch in patches if patch.log and self._trades[patch.notification] == trade]
            outcomes = Counter(log["outcome"] for log in logs)
            if logs:
                said: dict[str, Attribute] = {"channel": self._channel, "vendor": self._channel, **outcomes}
                sends = tracer().past(span, Step.SEND, self._began_ns, ended_ns, calls=len(logs), **said)
                self._calls(sends, logs)

    def _calls(self, sends: Span, logs: list[Document]) -> None:
        """A span for a few of the calls: those that went wrong, then the slowest. A trade has thousands of them."""
        asked = [log for log in logs if log["latency_ms"]]
        asked.sort(key=lambda log: (log["outcome"] == Outcome.SENT, -log["latency_ms"]))
        for log in asked[: settings.TRACING_CALLS_PER_BATCH]:
            began_ns = int(log["at"].timestamp() * 1e9)
            said: dict[str, Attribute] = {"channel": self._channel, "vendor": self._channel, "outcome": log["outcome"]}
            if log["code"]:
                said["error"] = telemetry.error_label(self._channel, log["code"])
            tracer().past(sends, Step.CALL, began_ns, began_ns + int(log["latency_ms"] * 1e6), **said)


@contextmanager
def open_spans(
    step: Step, batch: Document, rows: Sequence[Document], traces: Traces, since_ns: int | None = None
) -> Iterator[BatchSpans]:
    """A span of the batch in each trade's trace. What is done meanwhile belongs to it if it is the only one.

    `since_ns` is when somebody began to claim the batch, for a hint; everything up to now was claiming it.
    """
    with ExitStack() as stack:
        alerts = Counter(row["event_id"] for row in rows) if traces else {}
        opened = {
            trade: stack.enter_context(
                tracer().trade(
                    step,
                    traceparent,
                    is_current=len(traces) == 1,
                    since_ns=since_ns,
                    batch_id=str(batch["_id"]),
                    channel=batch["channel"],
                    alerts=alerts[trade],
                    trades=len(traces),
                )
            )
            for trade, traceparent in traces.items()
        }
        if since_ns is not None:
            for span in opened.values():
                span.note(**hinted(since_ns))
                tracer().past(span, Step.CLAIM, since_ns, time.time_ns())
        yield BatchSpans(batch["channel"], rows, opened)
