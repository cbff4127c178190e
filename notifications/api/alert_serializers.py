"""Alerts as services see them, for the schema."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from followers.choices import Channel
from notifications.choices import DeliveryState, Kind, NotificationState, Priority


class SizingSerializer(serializers.Serializer[Any]):
    suggested_qty = serializers.CharField(allow_null=True)
    ratio = serializers.CharField(allow_null=True)
    exit_fraction = serializers.CharField(allow_null=True)
    reason = serializers.CharField(allow_null=True, help_text="Why there is no quantity.")
    is_estimate = serializers.BooleanField()
    capped = serializers.BooleanField()


class AcksSerializer(serializers.Serializer[Any]):
    """When the follower's app first said each."""

    received = serializers.DateTimeField(allow_null=True)
    seen = serializers.DateTimeField(allow_null=True)
    opened = serializers.DateTimeField(allow_null=True)


class DeliverySerializer(serializers.Serializer[Any]):
    channel = serializers.ChoiceField(choices=Channel.choices)
    state = serializers.ChoiceField(choices=DeliveryState.choices)
    in_progress = serializers.BooleanField(help_text="Queued, and in a worker's hands or about to be.")
    endpoint_id = serializers.CharField(allow_null=True)
    address = serializers.CharField(allow_null=True, help_text="Masked; null where it is erased.")
    attempts = serializers.IntegerField()
    error_code = serializers.CharField(allow_null=True)
    error_message = serializers.CharField(allow_null=True)
    provider_message_id = serializers.CharField(allow_null=True)
    next_attempt_at = serializers.DateTimeField(allow_null=True)
    sent_at = serializers.DateTimeField(allow_null=True)
    delivered_at = serializers.DateTimeField(allow_null=True)
    acks = AcksSerializer()


class AlertSerializer(serializers.Serializer[Any]):
    id = serializers.CharField()
    kind = serializers.ChoiceField(choices=Kind.values)
    event_id = serializers.CharField(allow_null=True)
    trader_id = serializers.CharField(allow_null=True)
    follower_id = serializers.CharField(allow_null=True, help_text="null for a trader's community channel.")
    symbol = serializers.CharField()
    side = serializers.CharField()
    action = serializers.CharField()
    price = serializers.CharField(allow_null=True)
    currency = serializers.CharField()
    priority = serializers.ChoiceField(choices=Priority.values)
    state = serializers.ChoiceField(choices=NotificationState.choices)
    superseded_by = serializers.CharField(allow_null=True, help_text="The exit that withdrew it.")
    correlation_id = serializers.CharField()
    executed_at = serializers.DateTimeField()
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()
    sizing = SizingSerializer(allow_null=True)
    deliveries = DeliverySerializer(many=True)


class StepSerializer(serializers.Serializer[Any]):
    at = serializers.DateTimeField()
    what = serializers.CharField(
        help_text="executed, received, stored, sent, delivered, read, archived; attempt_ and what came of it; "
        "ack_ and what the app said."
    )
    channel = serializers.CharField(allow_null=True)
    address = serializers.CharField(allow_null=True)
    code = serializers.CharField(allow_null=True)
    message = serializers.CharField(allow_null=True)
    latency_ms = serializers.FloatField(allow_null=True)


class AlertDetailSerializer(AlertSerializer):
    timeline = StepSerializer(many=True)


class AlertPageSerializer(serializers.Serializer[Any]):
    next = serializers.CharField(allow_null=True, help_text="The `cursor` of the next page; null on the last one.")
    results = AlertSerializer(many=True)
