"""The admin of events, those that were taken in and those that were rejected: for reading only.

Both are registered in delivery.admin, which adds what can be done about them.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from followers import clock
from followers.admin_base import (
    EMPTY,
    EPOCH,
    ReadOnlyModelAdmin,
    link,
    list_link,
    moment,
    moment_column,
    number_column,
    preformatted,
)
from followers.models import Trader
from followers.mongo import collection
from notifications.admin_tables import labelled, outcome_table, state_badge
from notifications.choices import FanOutState, Priority
from notifications.event_json import RejectCode
from notifications.models import Notification, RejectedEvent, TradeEvent
from notifications.statements import event_id, received_since


class FanOutStateFilter(admin.SimpleListFilter):
    """Index: notifications_tradeevent (state, received_at, _id)."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(s.value, str(s.label)) for s in FanOutState]

    def queryset(self, request: HttpRequest, queryset: QuerySet[TradeEvent]) -> QuerySet[TradeEvent]:
        return queryset.filter(state=self.value()) if self.value() else queryset


TRADE_FIELDS = (
    "instrument", "symbol", "exchange", "product_type", "expiry_date", "strike_", "right", "side", "action",
    "quantity_", "price_", "currency", "order_id", "urgency",
)  # fmt: skip
SIZING_FIELDS = (
    "trader_portfolio_", "quantity_step_", "min_quantity_", "min_notional_", "contract_multiplier_",
    "position_before_", "position_after_", "closes_position", "exit_fraction_",
)  # fmt: skip


class TradeEventAdmin(ReadOnlyModelAdmin):
    list_display = (
        "external_id",
        "received",
        "trader_id_",
        "symbol",
        "side",
        "action",
        "quantity_",
        "urgency",
        "progress",
    )
    list_filter = (FanOutStateFilter,)
    ordering = ("-received_at", "-id")
    search_fields = ("external_id",)
    search_help_text = "Event id, correlation id, or external id of a trader"
    deferred_in_list = ("payload",)
    fieldsets: Any = (
        (None, {"fields": ("external_id", "correlation_id", "trader_link", "progress", "outcomes", "alerts")}),
        ("Times", {"fields": ("executed", "received", "expires", "fanned_out")}),
        ("Trade", {"fields": TRADE_FIELDS}),
        ("Sizing", {"fields": SIZING_FIELDS}),
        ("As it came", {"fields": ("message",)}),
    )
    readonly_fields: Any = (
        "trader_link", "progress", "outcomes", "alerts", "executed", "received", "expires", "fanned_out", "urgency",
        "message",
        *(name for name in (*TRADE_FIELDS, *SIZING_FIELDS) if name.endswith("_")),
    )  # fmt: skip

    strike_ = number_column("strike", "Strike")
    price_ = number_column("price", "Price")
    quantity_ = number_column("quantity", "Quantity")
    trader_portfolio_ = number_column("trader_portfolio", "Trader's portfolio")
    quantity_step_ = number_column("quantity_step", "Quantity step")
    min_quantity_ = number_column("min_quantity", "Smallest quantity")
    min_notional_ = number_column("min_notional", "Smallest notional")
    contract_multiplier_ = number_column("contract_multiplier", "Contract multiplier")
    position_before_ = number_column("position_before", "Position before")
    position_after_ = number_column("position_after", "Position after")
    exit_fraction_ = number_column("exit_fraction", "Exit fraction")

    def found_by(self, term: str) -> Q:
        event = Q(pk=event_id(term)) | Q(correlation_id=term)  # An event's id follows from the engine's.
        trader = Trader.objects.filter(external_id=term).values_list("pk", flat=True).first()
        return event | Q(trader_id=trader) if trader is not None else event

    @admin.display(description="Trader")
    def trader_id_(self, event: TradeEvent) -> SafeString:
        return link(Trader, event.trader_id, event.trader_external_id)  # type: ignore[attr-defined]

    trader_link = trader_id_

    @admin.display(description="Priority")
    def urgency(self, event: TradeEvent) -> SafeString:
        return labelled(Priority, event.priority)

    @admin.display(description="Fan-out")
    def progress(self, event: TradeEvent) -> SafeString:
        label = str(FanOutState(event.state).label)
        if event.state in {FanOutState.PENDING, FanOutState.FAILED}:
            label += f", {len(event.shards_done)} of {event.shards} shards done"
        return state_badge("failed" if event.state == FanOutState.FAILED else event.state, label)

    @admin.display(description="Outcomes")
    def outcomes(self, event: TradeEvent) -> SafeString:
        return outcome_table(event)

    @admin.display(description="Alerts")
    def alerts(self, event: TradeEvent) -> SafeString:
        return list_link(Notification, "Show the alerts of this event", event__id__exact=event.pk)

    executed = moment_column("executed_at", "Executed")
    received = moment_column("received_at", "Received")
    expires = moment_column("expires_at", "Expires")
    fanned_out = moment_column("fanned_out_at", "Fanned out")

    @admin.display(description="Message")
    def message(self, event: TradeEvent) -> SafeString:
        return preformatted(event.payload)


class RejectCodeFilter(admin.SimpleListFilter):
    """Index: notifications_rejectedevent (code, _id)."""

    title = "code"
    parameter_name = "code"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(code.value, code.value) for code in RejectCode] + [("internal_error", "internal_error")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[RejectedEvent]) -> QuerySet[RejectedEvent]:
        return queryset.filter(code=self.value()) if self.value() else queryset


class ReplayedFilter(admin.SimpleListFilter):
    """Index: notifications_rejectedevent (replayed_at, _id)."""

    title = "replay"
    parameter_name = "replayed"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("no", "Not replayed"), ("yes", "Replayed")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[RejectedEvent]) -> QuerySet[RejectedEvent]:
        if self.value() == "no":
            return queryset.filter(replayed_at=None)
        return queryset.filter(replayed_at__gt=EPOCH) if self.value() == "yes" else queryset


class TopicFilter(admin.SimpleListFilter):
    """Index: notifications_rejectedevent (topic, partition, offset); usually there is one topic, and then no filter."""

    title = "topic"
    parameter_name = "topic"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        topics = sorted(collection(RejectedEvent).distinct("topic"))
        return [(topic, topic) for topic in topics] if len(topics) > 1 or self.value() else []

    def queryset(self, request: HttpRequest, queryset: QuerySet[RejectedEvent]) -> QuerySet[RejectedEvent]:
        return queryset.filter(topic=self.value()) if self.value() else queryset


class ReceivedFilter(admin.SimpleListFilter):
    """Index: the ids themselves, which begin with the time of receipt; received_at only makes it exact."""

    title = "received"
    parameter_name = "received"
    hours = {"1": "In the last hour", "24": "In the last 24 hours", "168": "In the last 7 days"}

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(self.hours.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[RejectedEvent]) -> QuerySet[RejectedEvent]:
        value = self.value()
        if value not in self.hours:
            return queryset
        return queryset.filter(**received_since(clock.now() - timedelta(hours=int(value))))


class RejectedEventAdmin(ReadOnlyModelAdmin):
    list_display = ("position", "received", "code", "short_reason", "replayed")
    list_filter = (ReplayedFilter, RejectCodeFilter, ReceivedFilter, TopicFilter)
    ordering = ("-id",)
    deferred_in_list = ("value", "key", "headers")  # A message may have a megabyte.
    fields = ("position", "received", "code", "reason", "replayed", "key_text", "headers", "message")
    readonly_fields = ("position", "received", "replayed", "key_text", "message")

    @admin.display(description="Topic / partition @ offset")
    def position(self, rejected: RejectedEvent) -> str:
        return f"{rejected.topic} / {rejected.partition} @ {rejected.offset}"

    received = moment_column("received_at", "Received")

    @admin.display(description="Reason")
    def short_reason(self, rejected: RejectedEvent) -> str:
        return rejected.reason if len(rejected.reason) <= 120 else f"{rejected.reason[:120]}…"

    @admin.display(description="Replayed")
    def replayed(self, rejected: RejectedEvent) -> SafeString | str:
        if rejected.replayed_at is None:
            return EMPTY
        event = rejected.replayed_as
        return link(TradeEvent, event_id(event), f"{moment(rejected.replayed_at)} as {event}")

    @admin.display(description="Key")
    def key_text(self, rejected: RejectedEvent) -> str:
        return EMPTY if rejected.key is None else bytes(rejected.key).decode(errors="replace")

    @admin.display(description="Message, bytes that are not UTF-8 replaced")
    def message(self, rejected: RejectedEvent) -> SafeString:
        return preformatted(bytes(rejected.value or b"").decode(errors="replace"))
