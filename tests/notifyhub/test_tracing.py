"""Tracing: off unless asked for, one line where it cannot be on, OpenTelemetry's own settings, and what is exported."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from followers import spans
from followers.spans import Step
from notifyhub.tracing import NAME_MAX_CHARACTERS, OpenTelemetry, make_provider
from tests.notifyhub.test_settings import run

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def provider_and_exporter() -> tuple[TracerProvider, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    return make_provider("worker", [exporter]), exporter


# --- On and off ------------------------------------------------------------------------------------------------------
def test_it_is_off_by_default_and_then_nothing_of_it_is_loaded() -> None:
    script = (
        "import sys, notifyhub.asgi, delivery.actors\n"
        "from followers import spans\n"
        "traced = ('notifyhub.tracing', 'opentelemetry.sdk.trace', 'opentelemetry.instrumentation')\n"
        "print(spans.tracer().is_on, [name for name in traced if name in sys.modules])"
    )
    ended = run("-c", script)
    assert ended.stdout.strip() == "False []", ended.stderr


@pytest.mark.parametrize("command", ["consume_trades", "dispatch_due", "rundramatiq"])
def test_without_its_packages_a_process_names_the_command_that_brings_them(
    command: str, without_opentelemetry: dict[str, str]
) -> None:
    ended = run("manage.py", command, TRACING_ENABLED="true", **without_opentelemetry)

    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "TRACING_ENABLED" in line
    assert "pip install -r requirements-otel.txt" in line


def test_an_exporter_that_is_not_installed_is_named_with_its_package() -> None:
    ended = run("manage.py", "dispatch_due", TRACING_ENABLED="true", OTEL_EXPORTER_OTLP_PROTOCOL="grpc")

    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "pip install opentelemetry-exporter-otlp-proto-grpc" in line


def test_a_process_that_does_not_trace_says_nothing() -> None:
    off = spans.Tracer()
    with off.trade(Step.INTAKE, TRACEPARENT, is_first=True) as span, span.current():
        span.note(alerts=1)
        assert off.ids() == {}
        assert off.current_traceparent() == ""
    assert span is spans.NO_SPAN


# --- OpenTelemetry's own settings ------------------------------------------------------------------------------------
def test_the_sampler_of_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    provider, exporter = provider_and_exporter()
    with OpenTelemetry(provider).trade(Step.INTAKE, "", is_first=True) as span:
        assert not int(span.traceparent[-2:], 16) & 1  # So that whoever continues it does not record it either.
    provider.force_flush()
    assert exporter.get_finished_spans() == ()


@pytest.mark.parametrize(
    ("setting", "value", "name"),
    [
        ("OTEL_SERVICE_NAME", "alerts", "alerts"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=others,deployment.environment.name=test", "others"),
        ("OTEL_SERVICE_NAME", "", "notifyhub-worker"),
    ],
)
def test_a_service_is_called_as_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, setting: str, value: str, name: str
) -> None:
    monkeypatch.setenv(setting, value)
    provider, _ = provider_and_exporter()
    assert provider.resource.attributes["service.name"] == name
    assert provider.resource.attributes["notifyhub.process"] == "worker"


# --- What is exported ------------------------------------------------------------------------------------------------
def test_what_an_instrumentation_says_too_much_is_not_exported() -> None:
    provider, exporter = provider_and_exporter()
    tracer = provider.get_tracer("an instrumentation")
    said: dict[str, str | int] = {
        "http.url": "http://host/ws/inbox/?ticket=secret",
        "db.statement": "find secret",
        "net.peer.ip": "192.0.2.7",
        "http.route": "api/v1/inbox/",
        "notifyhub.alerts": 3,
    }
    with pytest.raises(ValueError, match="secret"), tracer.start_as_current_span("GET", attributes=said):
        raise ValueError("a secret in an error")
    provider.force_flush()

    (span,) = exporter.get_finished_spans()
    assert dict(span.attributes or {}) == {"http.route": "api/v1/inbox/", "notifyhub.alerts": 3}
    assert [dict(event.attributes or {}) for event in span.events] == [{"exception.type": "ValueError"}]
    assert not span.status.is_ok
    assert "secret" not in span.to_json()


def test_polls_outside_of_a_trace_are_left_out() -> None:
    provider, exporter = provider_and_exporter()
    tracer = provider.get_tracer("an instrumentation")
    with tracer.start_as_current_span("BLPOP", kind=SpanKind.CLIENT), tracer.start_as_current_span("inside"):
        assert OpenTelemetry(provider).ids() == {}
    with (
        tracer.start_as_current_span("GET", kind=SpanKind.SERVER),
        tracer.start_as_current_span("PUBLISH " * 500, kind=SpanKind.CLIENT),
    ):
        assert set(OpenTelemetry(provider).ids()) == {"trace_id", "span_id"}
    provider.force_flush()

    client, server = exporter.get_finished_spans()
    assert (server.name, client.parent) == ("GET", server.get_span_context())
    assert len(client.name) == NAME_MAX_CHARACTERS
