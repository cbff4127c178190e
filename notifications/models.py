"""What happened (TradeEvent), what each follower is told about it (Notification), and what their inbox shows."""

from __future__ import annotations

from decimal import Decimal

from django.db import models
from django_mongodb_backend.fields import (
    ArrayField,
    EmbeddedModelArrayField,
    EmbeddedModelField,
    ObjectIdAutoField,
    ObjectIdField,
)
from django_mongodb_backend.models import EmbeddedModel

from followers.choices import Channel
from followers.models import Follower, Money, Trader
from notifications.choices import (
    Action,
    DeliveryState,
    FanOutState,
    Kind,
    NotificationState,
    Priority,
    ProductType,
    Reason,
    ReviewReason,
    Right,
    Side,
)

SCHEMA_VERSION = 1


class TradeEvent(models.Model):
    """One executed trade as the engine told it, and how far its fan-out has come."""

    id = ObjectIdAutoField(primary_key=True)
    external_id = models.CharField("event id", max_length=128, unique=True)
    trader = models.ForeignKey(Trader, models.DO_NOTHING, null=True, blank=True, db_index=False)
    trader_external_id = models.CharField(max_length=128)
    executed_at = models.DateTimeField()
    received_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    priority = models.CharField(max_length=8, choices=Priority.choices)
    correlation_id = models.CharField(max_length=128)

    instrument = models.CharField(max_length=256, help_text="Exchange, symbol and contract as one key.")
    symbol = models.CharField(max_length=64)
    exchange = models.CharField(max_length=128, blank=True)
    product_type = models.CharField(max_length=16, choices=ProductType.choices)
    expiry_date = models.CharField(max_length=10, blank=True, help_text="YYYY-MM-DD")
    strike = Money(null=True, blank=True)
    right = models.CharField(max_length=4, choices=Right.choices, blank=True)
    side = models.CharField(max_length=4, choices=Side.choices)
    action = models.CharField(max_length=8, choices=Action.choices, blank=True)
    quantity = Money()
    price = Money()
    currency = models.CharField(max_length=12, blank=True)
    trader_portfolio = Money(null=True, blank=True)
    quantity_step = Money(default=Decimal(1))
    min_quantity = Money(default=Decimal(0))
    min_notional = Money(default=Decimal(0))
    contract_multiplier = Money(default=Decimal(1))
    position_before = Money(null=True, blank=True)
    position_after = Money(null=True, blank=True)
    order_id = models.CharField(max_length=128, blank=True)
    closes_position = models.BooleanField(default=False, help_text="A CLOSE, or a REDUCE to nothing.")
    exit_fraction = Money(null=True, blank=True, help_text="Exits: the share of the position that was given up.")
    traceparent = models.CharField(max_length=55, blank=True, default="", help_text="What continues its trace (W3C).")
    payload = models.TextField(help_text="The event as it came, unknown fields included (JSON).")

    state = models.CharField(max_length=8, choices=FanOutState.choices, default=FanOutState.PENDING)
    shards = models.PositiveSmallIntegerField(default=1)
    shards_done = ArrayField(models.PositiveSmallIntegerField(), default=list, blank=True)
    alerts_written = models.PositiveIntegerField(
        null=True, blank=True, help_text="How many alerts the finished shards have written; so many must be stored."
    )
    alerts_erased = models.PositiveIntegerField(
        default=0, help_text="How many of them went with their followers (notifications/erasure.py)."
    )
    fanned_out_at = models.DateTimeField(null=True, blank=True)
    alerts_pruned_at = models.DateTimeField(
        null=True, blank=True, help_text="Since then its finished alerts may be gone, as the retention settings say."
    )

    class Meta:
        verbose_name = "trade event"

    def __str__(self) -> str:
        return f"{self.action or self.side} {self.symbol} ({self.external_id})"


class RejectedEvent(models.Model):
    """A message that breaks the event contract, kept as it came. It can be replayed from the admin."""

    id = ObjectIdAutoField(primary_key=True)
    topic = models.CharField(max_length=249)
    partition = models.PositiveIntegerField()
    offset = models.PositiveBigIntegerField()
    key = models.BinaryField(null=True)
    value = models.BinaryField(null=True)
    headers = models.JSONField(default=list)
    code = models.CharField(max_length=32)
    reason = models.TextField()
    received_at = models.DateTimeField()
    replayed_at = models.DateTimeField(null=True, blank=True)
    replayed_as = models.CharField("replayed as event", max_length=128, blank=True)

    class Meta:
        unique_together = [("topic", "partition", "offset")]
        verbose_name = "rejected event"

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}@{self.offset}: {self.code}"


class Update(models.Model):
    """A general update: words for a trader's followers or for named ones, and how far its fan-out has come.

    The fan-out reads it as an event without a trade (notifications/update_events.py).
    """

    id = ObjectIdAutoField(primary_key=True)
    external_id = models.CharField("update id", max_length=100, unique=True)
    title = models.CharField(max_length=120)
    text = models.CharField(max_length=2_000)
    is_test = models.BooleanField("test", default=False)
    trader = models.ForeignKey(Trader, models.DO_NOTHING, null=True, blank=True, db_index=False)
    trader_external_id = models.CharField("trader", max_length=128, blank=True)
    follower_ids = ArrayField(ObjectIdField(), default=list, blank=True, help_text="Without a trader: who gets it.")
    unknown_followers = ArrayField(
        models.CharField(max_length=128), default=list, blank=True, help_text="External ids that nobody has."
    )
    fingerprint = models.CharField(max_length=64, help_text="Of what it says and to whom: the same again is no other.")
    published_by = models.CharField(max_length=200, blank=True)
    received_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    priority = models.CharField(max_length=8, choices=Priority.choices, default=Priority.NORMAL)
    correlation_id = models.CharField(max_length=128)
    traceparent = models.CharField(max_length=55, blank=True, default="", help_text="What continues its trace (W3C).")

    state = models.CharField(max_length=8, choices=FanOutState.choices, default=FanOutState.PENDING)
    shards = models.PositiveSmallIntegerField(default=1)
    shards_done = ArrayField(models.PositiveSmallIntegerField(), default=list, blank=True)
    alerts_written = models.PositiveIntegerField(null=True, blank=True)
    alerts_erased = models.PositiveIntegerField(
        default=0, help_text="How many of them went with their followers (notifications/erasure.py)."
    )
    fanned_out_at = models.DateTimeField(null=True, blank=True)
    alerts_pruned_at = models.DateTimeField(null=True, blank=True, help_text="Since then alerts of it may be gone.")

    class Meta:
        verbose_name = "general update"
        permissions = [("send_test_alert", "Can send a test alert to a follower")]

    def __str__(self) -> str:
        return f"{self.title} ({self.external_id})"


class Words(EmbeddedModel):
    """What a general update says; its alerts carry it."""

    title = models.CharField(max_length=120)
    text = models.CharField(max_length=2_000)
    is_test = models.BooleanField(default=False)


class Sizing(EmbeddedModel):
    """How the suggested quantity came about: the result and every input, so that support can explain it."""

    suggested_qty = Money(null=True)
    ratio = Money(null=True, help_text="Follower's portfolio over trader's, times the multiplier.")
    reason = models.CharField(max_length=32, blank=True, choices=Reason.choices)
    notional = Money(null=True)
    exit_fraction = Money(null=True, help_text="Share of one's own holding to sell; set on exits.")
    is_estimate = models.BooleanField(default=False)
    capped = models.BooleanField(default=False)
    executed_qty = Money(null=True)
    trader_portfolio = Money(null=True)
    follower_portfolio = Money(null=True)
    multiplier = Money(null=True)
    quantity_step = Money(null=True)
    min_quantity = Money(null=True)
    min_notional = Money(null=True)
    max_notional = Money(null=True)


class Attempt(EmbeddedModel):
    """One try at a delivery."""

    at = models.DateTimeField()
    outcome = models.CharField(max_length=16)
    code = models.CharField(max_length=64, blank=True)
    message = models.CharField(max_length=500, blank=True)
    latency_ms = models.FloatField(null=True)
    breaker = models.CharField(max_length=16, blank=True, help_text="The channel's circuit breaker when it was sent.")


class Acks(EmbeddedModel):
    """What the follower's app said of a delivery, and when it first did: an AckEvent each."""

    received = models.DateTimeField(null=True, blank=True)
    seen = models.DateTimeField(null=True, blank=True)
    opened = models.DateTimeField(null=True, blank=True)


class Delivery(EmbeddedModel):
    """One alert on one endpoint. `in_app` has no endpoint; it is inserted as sent."""

    channel = models.CharField(max_length=16, choices=Channel.choices)
    endpoint = ObjectIdField(null=True, blank=True)
    state = models.CharField(max_length=16, choices=DeliveryState.choices)
    attempts = models.PositiveSmallIntegerField(default=0)
    attempts_before_retry = models.PositiveSmallIntegerField(
        default=0, help_text="How many were spent when a person asked for another try, which has a budget of its own."
    )
    batch = ObjectIdField(null=True, blank=True)
    last_attempt_at = models.DateTimeField(null=True, blank=True)
    next_attempt_at = models.DateTimeField(null=True, blank=True)
    provider_message_id = models.CharField(max_length=256, blank=True)
    error_code = models.CharField(max_length=64, blank=True)
    error_message = models.CharField(max_length=500, blank=True)
    sent_at = models.DateTimeField(null=True, blank=True)
    delivered_at = models.DateTimeField(null=True, blank=True)
    acks = EmbeddedModelField(Acks, null=True, blank=True)
    attempt_log = EmbeddedModelArrayField(Attempt, default=list, blank=True)


class Review(EmbeddedModel):
    """Why a person should look at this notification, and what came of it. notifications/reviews.py has the rule."""

    open = models.BooleanField(default=True)
    reason = models.CharField(max_length=64, choices=ReviewReason.choices)
    channels = ArrayField(
        models.CharField(max_length=16), default=list, blank=True, help_text="Of the deliveries that need a person."
    )
    codes = ArrayField(
        models.CharField(max_length=81), default=list, blank=True, help_text="Their error codes, as channel:code."
    )
    seen = models.PositiveSmallIntegerField(
        default=0, help_text="Troubled deliveries that it knows of; one more reopens it."
    )
    opened_at = models.DateTimeField()
    assignee = models.CharField(max_length=150, blank=True)
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolved_by = models.CharField(max_length=150, blank=True)
    note = models.TextField(blank=True)


class Notification(models.Model):
    """What one follower is told about one event (or a trader's community channel, then without a follower)."""

    id = ObjectIdAutoField(primary_key=True)
    kind = models.CharField(max_length=16, choices=Kind.choices, default=Kind.TRADE_ALERT)
    event = models.ForeignKey(TradeEvent, models.DO_NOTHING, null=True, db_index=False)
    trader = models.ForeignKey(Trader, models.DO_NOTHING, null=True, db_index=False)
    follower = models.ForeignKey(Follower, models.DO_NOTHING, null=True, db_index=False)
    event_key = models.CharField("event id", max_length=128)
    executed_at = models.DateTimeField()
    instrument = models.CharField(max_length=256)
    symbol = models.CharField(max_length=64)
    side = models.CharField(max_length=4, choices=Side.choices)
    action = models.CharField(max_length=8, choices=Action.choices, blank=True)
    price = Money(null=True)
    currency = models.CharField(max_length=12, blank=True)
    exit_fraction = Money(null=True, blank=True)
    sizing = EmbeddedModelField(Sizing, null=True)
    words = EmbeddedModelField(Words, null=True, blank=True)
    priority = models.CharField(max_length=8, choices=Priority.choices)
    correlation_id = models.CharField(max_length=128)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    state = models.CharField(max_length=16, choices=NotificationState.choices)
    wake_at = models.DateTimeField(null=True, blank=True)
    superseded_by = models.CharField(max_length=128, blank=True, help_text="The exit that came after this entry.")
    deliveries = EmbeddedModelArrayField(Delivery, default=list)
    review = EmbeddedModelField(Review, null=True, blank=True)
    schema_version = models.PositiveSmallIntegerField(default=SCHEMA_VERSION)

    def __str__(self) -> str:
        return f"{self.action or self.side} {self.symbol} {self.id}"


class InAppEntry(models.Model):
    """One line of a follower's inbox. Its id is its notification's."""

    id = ObjectIdAutoField(primary_key=True)
    notification = models.ForeignKey(Notification, models.DO_NOTHING, db_index=False)
    follower = models.ForeignKey(Follower, models.DO_NOTHING, db_index=False)
    trader = models.ForeignKey(Trader, models.DO_NOTHING, null=True, db_index=False)
    instrument = models.CharField(max_length=256)
    order_id = models.CharField(max_length=128, blank=True)
    executed_at = models.DateTimeField()
    event_key = models.CharField("event id", max_length=128)
    payload = models.JSONField()
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    read_at = models.DateTimeField(null=True, blank=True)
    archived_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "in-app entry"
        verbose_name_plural = "in-app entries"

    def __str__(self) -> str:
        return f"{self.payload.get('title', '')} {self.id}"
