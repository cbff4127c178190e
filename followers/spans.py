"""What the pipeline says about a trade's way, for those who trace it. Off, as by default, nobody records anything.

One trace per trade: its event keeps a W3C `traceparent`, and every step of every process, however much later, continues
it. `start` decides once in a process who records: notifyhub/tracing.py, or the `Tracer` here, which does nothing. There
is no call per alert in any case.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

Attribute = str | int | float | bool


class Step(StrEnum):
    """The spans of a trade; docs/operations.md says what each of them covers."""

    INTAKE = "intake"
    FAN_OUT = "fan_out"
    PUSH = "push"
    DELIVER = "deliver"
    CLAIM = "claim"
    SEND = "send"
    CALL = "call"
    RECORD = "record"
    TAKE_OVER = "take_over"


class Span:
    """A span that nobody records."""

    traceparent = ""
    """What continues this span, in the form of W3C Trace Context; empty = nothing does."""

    def note(self, **attributes: Attribute) -> None:
        """Says more about it: ids of ours, counts, codes. Never a person, an address or a secret."""

    def link(self, traceparent: str) -> None:
        """Names another trace that it has to do with."""

    def current(self) -> AbstractContextManager[Any]:
        """What is logged and asked of servers in there belongs to it."""
        return nullcontext()


NO_SPAN = Span()
NOWHERE: AbstractContextManager[Span] = nullcontext(NO_SPAN)


class Tracer:
    """Records nothing."""

    is_on = False

    def trade(
        self,
        step: Step,
        traceparent: str,
        is_first: bool = False,
        is_current: bool = True,
        since_ns: int | None = None,
        **attributes: Attribute,
    ) -> AbstractContextManager[Span]:
        """A step of a trade, in the trade's own trace.

        Parameters:
          traceparent: The trade's. Without a valid one nothing is recorded, unless it `is_first`: that begins a trace.
          is_current: Whether what is done meanwhile belongs to it.
          since_ns: When it began, in nanoseconds since 1970; None = now.
        """
        return NOWHERE

    def step(self, step: Step, **attributes: Attribute) -> AbstractContextManager[Span]:
        """A part of the current span; nothing where there is none."""
        return NOWHERE

    def past(self, parent: Span, step: Step, began_ns: int, ended_ns: int, **attributes: Attribute) -> Span:
        """A part of `parent` that is over."""
        return NO_SPAN

    def current_traceparent(self) -> str:
        """What continues the current span; empty = there is none."""
        return ""

    def ids(self) -> dict[str, str]:
        """The current span's `trace_id` and `span_id`, for a log line."""
        return {}

    def stop(self) -> None:
        """Sends what is recorded; within a moment, whatever the collector does."""


_chosen = Tracer()


def tracer() -> Tracer:
    """Whoever records in this process."""
    return _chosen


def use(chosen: Tracer) -> None:
    global _chosen  # noqa: PLW0603  Chosen once in a process.
    _chosen = chosen


def start(process: str) -> None:
    """Begins to trace where TRACING_ENABLED asks for it. `process` is what a trace calls this one: worker, web, …

    Before the process has asked anything of MongoDB: only connections that are opened afterwards are traced.
    """
    if settings.TRACING_ENABLED:
        use(import_string(settings.TRACER)(process))


def name_span(logger: Any, method: str, event_dict: dict[str, Any]) -> dict[str, Any]:
    """A structlog processor: the line names the span in which it was said."""
    event_dict.update(_chosen.ids())
    return event_dict
