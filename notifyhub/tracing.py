"""OpenTelemetry: loaded only where TRACING_ENABLED is on, so that nothing of it need be installed elsewhere.

The standard OTEL_* variables choose exporter, sampler and resource. What leaves the process is chosen here: an
attribute that is not on the list below is not exported, whoever set it.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import entry_points
from os import environ
from threading import Event, Thread
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.instrumentation.pymongo import PymongoInstrumentor
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import Event as SpanEvent
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from followers.outage import Outage
from followers.spans import NO_SPAN, NOWHERE, Attribute, Span, Step, Tracer

PROCESSES: Final = ("consume_trades", "worker", "dispatch_due", "web")
WEB: Final = PROCESSES[-1]
NOT_WORTH_A_TRACE: Final = "healthz,readyz,metrics,static/"
STOP_SECONDS: Final = 2.0
"""For the last spans at a stop; a collector that is away must not hold up a deployment."""

KINDS: Final[Mapping[Step, SpanKind]] = {
    Step.INTAKE: SpanKind.CONSUMER,
    Step.FAN_OUT: SpanKind.CONSUMER,
    Step.DELIVER: SpanKind.CONSUMER,
    Step.SEND: SpanKind.CLIENT,
    Step.CALL: SpanKind.CLIENT,
}
CONVENTIONAL: Final[Mapping[str, str]] = {
    "topic": "messaging.destination.name",
    "partition": "messaging.destination.partition.id",
    "offset": "messaging.kafka.offset",
    "queue": "messaging.destination.name",
    "error": "error.type",
    "vendor": "peer.service",
}
"""Names that the semantic conventions have for what we say; everything else of ours begins with `notifyhub.`."""

OURS: Final = "notifyhub."
EXPORTED: Final = frozenset(
    {
        *CONVENTIONAL.values(),
        *("db.system", "db.system.name", "db.name", "db.namespace", "db.mongodb.collection", "db.collection.name"),
        *("db.redis.pipeline_length", "http.method", "http.request.method", "http.route", "http.status_code"),
        *("http.response.status_code", "net.peer.name", "server.address", "server.port", "exception.type"),
    }
)
"""Of what the instrumentations say: no URL, no query, no statement, no client's address, no words of an error."""

NAME_MAX_CHARACTERS: Final = 64
"""A pipeline of Redis is named by all its commands."""


def start(process: str) -> OpenTelemetry:
    """Sets this process up to trace what it does. Raises ImproperlyConfigured for an exporter that is not there."""
    provider = make_provider(process, _exporters())
    PymongoInstrumentor().instrument(tracer_provider=provider)
    RedisInstrumentor().instrument(tracer_provider=provider)
    if process == WEB:
        DjangoInstrumentor().instrument(tracer_provider=provider, excluded_urls=NOT_WORTH_A_TRACE)
    tracer = OpenTelemetry(provider)
    atexit.register(tracer.stop)
    return tracer


def make_provider(process: str, exporters: Sequence[SpanExporter]) -> TracerProvider:
    """A provider that exports no more than it should; the sampler is the one that OTEL_TRACES_SAMPLER names."""
    provider = TracerProvider(resource=_resource(process), shutdown_on_exit=False)
    provider.sampler = NothingAlone(provider.sampler)
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(Discreet(exporter)))
    return provider


def _resource(process: str) -> Resource:
    """OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES outrank our name for the service."""
    given = Resource.create({"notifyhub.process": process})
    is_named = not str(given.attributes[SERVICE_NAME]).startswith("unknown_service")
    return given if is_named else given.merge(Resource({SERVICE_NAME: f"notifyhub-{process}"}))


def _exporters() -> list[SpanExporter]:
    """What OTEL_TRACES_EXPORTER names: otlp unless it says otherwise, by HTTP unless the protocol says otherwise."""
    protocol = (
        environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "http"
    ).partition("/")[0]
    names = [name.strip() for name in environ.get("OTEL_TRACES_EXPORTER", "otlp").split(",")]
    return [_exporter(f"otlp_proto_{protocol}" if name == "otlp" else name) for name in names if name != "none"]


def _exporter(name: str) -> SpanExporter:
    found = list(entry_points(group="opentelemetry_traces_exporter", name=name))
    if not found:
        package = f"opentelemetry-exporter-{name.replace('_', '-')}"
        raise ImproperlyConfigured(f"There is no exporter {name!r} of traces: pip install {package}, or see OTEL_*.")
    exporter: SpanExporter = found[0].load()()
    return exporter


# --- What is recorded and what leaves ---------------------------------------------------------------------------------
class NothingAlone(Sampler):
    """Leaves out what was asked of MongoDB and Redis outside of any trace: polls and heartbeats, thousands a minute."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Any = None,
        links: Sequence[Link] | None = None,
        trace_state: Any = None,
    ) -> SamplingResult:
        if kind is SpanKind.CLIENT and not trace.get_current_span(parent_context).get_span_context().is_valid:
            return SamplingResult(Decision.DROP)
        return self._sampler.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        return f"NothingAlone{{{self._sampler.get_description()}}}"


class Discreet(SpanExporter):
    """Hands spans on without anything that is not on the list, and says once an outage that nobody takes them."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._collector = Outage("The trace collector", _endpoint, meanwhile="spans are lost until it answers")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export([discreet(span) for span in spans])
        if result is SpanExportResult.SUCCESS:
            self._collector.back()
        else:
            self._collector.away("Spans were not taken.")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _endpoint() -> str:
    return (
        environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        or "localhost, as OpenTelemetry defaults to"
    )


def discreet(span: ReadableSpan) -> ReadableSpan:
    """The span with listed attributes only. An error's words stay here, in the logs, where secrets are masked."""
    return ReadableSpan(
        name=span.name[:NAME_MAX_CHARACTERS],
        context=span.get_span_context(),
        parent=span.parent,
        resource=span.resource,
        attributes=_listed(span.attributes),
        events=[SpanEvent(event.name, _listed(event.attributes), event.timestamp) for event in span.events],
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _listed(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (attributes or {}).items() if name in EXPORTED or name.startswith(OURS)}


# --- The pipeline's own spans -----------------------------------------------------------------------------------------
class OpenTelemetry(Tracer):
    """Records what the pipeline says."""

    is_on = True

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("notifyhub")
        self._told_to_end, self._ended = Event(), Event()
        # Started now: an interpreter that is shutting down starts no threads any more.
        Thread(target=self._shut_down, name="traces", daemon=True).start()

    @contextmanager
    def trade(
        self,
        step: Step,
        traceparent: str,
        is_first: bool = False,
        is_current: bool = True,
        since_ns: int | None = None,
        **attributes: Attribute,
    ) -> Iterator[Span]:
        parent = _context(traceparent)
        if not is_first and not trace.get_current_span(parent).get_span_context().is_valid:
            yield NO_SPAN
            return
        with self._opened(step, parent, since_ns, attributes) as span:
            if is_current:
                with span.current():
                    yield span
            else:
                yield span

    def step(self, step: Step, **attributes: Attribute) -> AbstractContextManager[Span]:
        return self._part(step, attributes) if trace.get_current_span().is_recording() else NOWHERE

    @contextmanager
    def _part(self, step: Step, attributes: Mapping[str, Attribute]) -> Iterator[Span]:
        with self._opened(step, None, None, attributes) as span, span.current():
            yield span

    @contextmanager
    def _opened(
        self, step: Step, parent: Context | None, since_ns: int | None, attributes: Mapping[str, Attribute]
    ) -> Iterator[Recorded]:
        span = self._start(step, parent, since_ns, attributes)
        try:
            yield span
        except BaseException as error:
            span.fail(type(error).__name__)
            raise
        finally:
            span.end()

    def past(self, parent: Span, step: Step, began_ns: int, ended_ns: int, **attributes: Attribute) -> Span:
        if not isinstance(parent, Recorded):
            return NO_SPAN
        span = self._start(step, parent.context, began_ns, attributes)
        span.end(ended_ns)
        return span

    def _start(
        self, step: Step, parent: Context | None, since_ns: int | None, attributes: Mapping[str, Attribute]
    ) -> Recorded:
        name = f"{step} {attributes['channel']}" if "channel" in attributes else str(step)
        said = _named(attributes)
        kind = KINDS.get(step, SpanKind.INTERNAL)
        return Recorded(self._tracer.start_span(name, parent, kind, said, start_time=since_ns))

    def current_traceparent(self) -> str:
        return _traceparent(None)

    def ids(self) -> dict[str, str]:
        context = trace.get_current_span().get_span_context()
        if not context.trace_flags.sampled:  # Nobody will find such a trace.
            return {}
        return {"trace_id": trace.format_trace_id(context.trace_id), "span_id": trace.format_span_id(context.span_id)}

    def stop(self) -> None:
        self._told_to_end.set()
        self._ended.wait(STOP_SECONDS)

    def _shut_down(self) -> None:
        self._told_to_end.wait()
        self._provider.shutdown()
        self._ended.set()


class Recorded(Span):
    """A span that is recorded, unless the sampler decided against it."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self.context = trace.set_span_in_context(span, Context())
        self.traceparent = _traceparent(self.context)

    def note(self, **attributes: Attribute) -> None:
        self._span.set_attributes(_named(attributes))

    def link(self, traceparent: str) -> None:
        linked = trace.get_current_span(_context(traceparent)).get_span_context()
        if linked.is_valid:
            self._span.add_link(linked)

    def current(self) -> AbstractContextManager[Any]:
        return trace.use_span(self._span, record_exception=False, set_status_on_exception=False)

    def fail(self, reason: str) -> None:
        self.note(error=reason)
        self._span.set_status(StatusCode.ERROR)

    def end(self, at_ns: int | None = None) -> None:
        self._span.end(at_ns)


_W3C: Final = TraceContextTextMapPropagator()


def _context(traceparent: str) -> Context:
    """Where a span of that trace begins; nowhere if it is none."""
    return _W3C.extract({"traceparent": traceparent}, Context())


def _traceparent(context: Context | None) -> str:
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, context)
    return carrier.get("traceparent", "")


def _named(attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
    return {CONVENTIONAL.get(name, f"{OURS}{name}"): value for name, value in attributes.items()}
