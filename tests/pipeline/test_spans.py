"""One trace per trade, whoever works on it and however often; and nothing in it that is nobody else's business."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext

from delivery.fan_out import fan_out_shard
from delivery.intake import IncomingMessage, take_in
from delivery.updates import Draft, publish_update
from devstack.vendors.client import Sandbox
from followers import clock, spans
from followers.models import Endpoint
from notifyhub.tracing import OpenTelemetry, make_provider
from tests.pipeline import world

pytestmark = pytest.mark.django_db(transaction=True)
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ENGINE = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{ENGINE}-01"


class Recording:
    """What was exported so far."""

    def __init__(self, provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
        self._provider = provider
        self._exporter = exporter

    def all(self) -> list[ReadableSpan]:
        self._provider.force_flush()
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span


@pytest.fixture
def recording() -> Iterator[Recording]:
    exporter = InMemorySpanExporter()
    provider = make_provider("tests", [exporter])
    spans.use(OpenTelemetry(provider))
    yield Recording(provider, exporter)
    spans.tracer().stop()
    spans.use(spans.Tracer())


def take(event: world.Document, **headers: str) -> list[world.Document]:
    """Takes an event in as Kafka brings it. Returns its shards."""
    found = tuple((name.replace("_", "-"), value.encode()) for name, value in headers.items())
    message = IncomingMessage("trade.executed", 0, next(world.numbers), None, json.dumps(event).encode(), found)
    return take_in([message], clock.now()).batches


def context_of(span: ReadableSpan) -> SpanContext:
    context = span.get_span_context()
    assert context is not None
    return context


def trace_of(span: ReadableSpan) -> str:
    return f"{context_of(span).trace_id:032x}"


def said(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def is_child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    return span.parent is not None and span.parent.span_id == context_of(parent).span_id


def test_the_engines_trace_goes_on_to_the_vendors_answer(recording: Recording, vendors: Sandbox) -> None:
    trader = world.make_trader()
    for _ in range(3):
        world.make_follower(trader, "fcm")

    for batch in take(world.trade(trader, event="E-traced"), traceparent=TRACEPARENT, correlation_id="order-4711"):
        fan_out_shard(batch["_id"])
    world.deliver_all()

    assert {trace_of(span) for span in recording.all()} == {TRACE}
    intake, fan_out, deliver = (recording.one(name) for name in ("intake", "fan_out", "deliver fcm"))
    assert intake.parent is not None
    assert f"{intake.parent.span_id:016x}" == ENGINE
    assert is_child(fan_out, intake)
    assert is_child(deliver, intake)
    assert is_child(recording.one("push"), fan_out)
    assert all(is_child(recording.one(name), deliver) for name in ("claim", "send fcm", "record"))
    assert [is_child(call, recording.one("send fcm")) for call in recording.named("call fcm")] == [True] * 3
    assert said(intake)["notifyhub.event_id"] == "E-traced"
    assert said(intake)["notifyhub.correlation_id"] == "order-4711"
    assert (said(fan_out)["notifyhub.alerts"], said(deliver)["notifyhub.alerts"]) == (3, 3)
    assert (said(recording.one("send fcm"))["notifyhub.sent"], said(recording.one("send fcm"))["peer.service"]) == (
        3,
        "fcm",
    )


def test_a_trade_without_a_trace_begins_one_and_an_unusable_header_is_no_reason_to_refuse_it(
    recording: Recording, vendors: Sandbox
) -> None:
    trader = world.make_trader()
    world.make_follower(trader, "fcm")

    for batch in take(world.trade(trader), traceparent="00-0-0-01"):
        fan_out_shard(batch["_id"])
    world.deliver_all()

    assert recording.one("intake").parent is None
    assert len({trace_of(span) for span in recording.all()}) == 1
    assert recording.named("deliver fcm")


def test_what_the_engine_does_not_sample_is_not_recorded_anywhere(recording: Recording, vendors: Sandbox) -> None:
    trader = world.make_trader()
    world.make_follower(trader, "fcm")

    for batch in take(world.trade(trader), traceparent=TRACEPARENT.removesuffix("01") + "00"):
        fan_out_shard(batch["_id"])
    world.deliver_all()

    assert recording.all() == []


def test_a_batch_of_several_trades_is_in_the_trace_of_each(recording: Recording, vendors: Sandbox) -> None:
    """A retry, made by dispatch_due long afterwards."""
    trader = world.make_trader()
    world.make_follower(trader, "fcm")
    events = [world.trade(trader) for _ in range(2)]
    world.fan_out(*events)
    world.free_all_rows()
    world.sweep(after_seconds=1)
    (batch,) = world.unclaimed()
    assert len(batch["ids"]) == 2

    world.deliver_all()

    traces = {trace_of(span) for span in recording.named("intake")}
    assert len(traces) == 2
    for name in ("fan_out", "deliver fcm", "claim", "send fcm", "call fcm"):
        assert Counter(trace_of(span) for span in recording.named(name)) == dict.fromkeys(traces, 1), name
    assert {said(span)["notifyhub.trades"] for span in recording.named("deliver fcm")} == {2}


def test_what_a_dead_worker_held_stays_in_its_trace(recording: Recording, vendors: Sandbox) -> None:
    trader = world.make_trader()
    world.make_follower(trader, "fcm")
    world.fan_out(world.trade(trader))
    (batch,) = world.unclaimed()
    world.crash_in(batch["_id"])

    world.sweep()
    world.sweep(after_seconds=60)
    world.deliver_all()

    taken_over = recording.one("take_over fcm")
    assert is_child(taken_over, recording.one("intake"))
    assert trace_of(recording.one("deliver fcm")) == trace_of(taken_over)


def test_a_message_that_comes_twice_names_the_trace_of_the_first(recording: Recording) -> None:
    event = world.trade(world.make_trader())

    take(event)
    take(event)

    first, second = recording.named("intake")
    assert said(second)["notifyhub.outcome"] == "duplicate"
    assert [link.context.span_id for link in second.links] == [context_of(first).span_id]


def test_a_message_that_is_no_trade_ends_its_trace_with_the_reason(recording: Recording) -> None:
    take({**world.trade("T-1"), "version": 2}, traceparent=TRACEPARENT)

    rejected = recording.one("intake")
    assert trace_of(rejected) == TRACE
    assert said(rejected)["notifyhub.outcome"] == "rejected"
    assert said(rejected)["notifyhub.code"] == "unknown_version"


def test_a_general_update_continues_the_request_that_published_it(recording: Recording, vendors: Sandbox) -> None:
    trader = world.make_trader()
    world.make_follower(trader, "fcm")
    with spans.tracer().trade(spans.Step.INTAKE, TRACEPARENT):
        published = publish_update(Draft(external_id="U-1", title="Hello", text="World", trader=trader.external_id))

    assert published.is_new
    (shard,) = world.unclaimed("fan_out")
    fan_out_shard(shard["_id"])
    world.deliver_all()

    assert trace_of(recording.one("deliver fcm")) == TRACE


def test_failed_calls_are_shown_first_and_no_more_than_asked_for(
    recording: Recording, vendors: Sandbox, settings: Any
) -> None:
    settings.TRACING_CALLS_PER_BATCH = 2
    trader = world.make_trader()
    followers = [world.make_follower(trader, "fcm") for _ in range(6)]
    dead = Endpoint.objects.get(follower=followers[3]).address
    vendors.behave("fcm", rules=[{"match": {"address": dead}, "code": "dead"}])

    world.fan_out(world.trade(trader))
    world.deliver_all()

    outcomes = [said(call)["notifyhub.outcome"] for call in recording.named("call fcm")]
    assert outcomes == ["dead", "sent"]
    sends = said(recording.one("send fcm"))
    assert (sends["notifyhub.sent"], sends["notifyhub.dead"], sends["notifyhub.calls"]) == (5, 1, 6)


def test_a_step_that_fails_says_what_kind_of_error_it_was_and_not_its_words(recording: Recording) -> None:
    with pytest.raises(ValueError, match="secret"), spans.tracer().trade(spans.Step.FAN_OUT, TRACEPARENT):
        raise ValueError("a secret of somebody's")

    failed = recording.one("fan_out")
    assert said(failed)["error.type"] == "ValueError"
    assert not failed.status.is_ok
    assert "secret" not in failed.to_json()


def test_nothing_is_asked_or_recorded_while_nobody_traces(vendors: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **keywords: Any) -> None:
        raise AssertionError("Nobody traces.")

    monkeypatch.setattr("delivery.batch_spans.traceparents", refuse)
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm")
    event = world.trade(trader)

    for batch in take(event, traceparent=TRACEPARENT):
        fan_out_shard(batch["_id"])
    world.deliver_all()

    assert world.states(world.alert(event, follower)) == {"in_app": "sent", "fcm": "sent"}
    assert world.stored_event(event)["traceparent"] == TRACEPARENT  # For whoever traces the rest.
