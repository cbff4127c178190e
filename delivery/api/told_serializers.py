"""What the follower's calls on what became of alerts give, as the schema shows it."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from notifications.api.serializers import PayloadField
from notifications.choices import DeliveryState


class QuantityStepSerializer(serializers.Serializer[Any]):
    label = serializers.CharField()
    value = serializers.CharField()


class ExplanationSerializer(serializers.Serializer[Any]):
    summary = serializers.CharField(help_text="Why this quantity, in a sentence.")
    steps = QuantityStepSerializer(many=True)


class ToldDeliverySerializer(serializers.Serializer[Any]):
    channel = serializers.CharField()
    label = serializers.CharField()
    state = serializers.ChoiceField(choices=DeliveryState.choices)
    reason = serializers.CharField(help_text="A stable code where we decided not to send; else empty.")
    words = serializers.CharField()
    sent_at = serializers.DateTimeField(allow_null=True)
    delivered_at = serializers.DateTimeField(allow_null=True)


class MyAlertSerializer(serializers.Serializer[Any]):
    id = serializers.CharField()
    kind = serializers.CharField()
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()
    title = serializers.CharField()
    body = serializers.CharField()
    payload = PayloadField()
    in_inbox = serializers.BooleanField()
    explanation = ExplanationSerializer(allow_null=True)
    deliveries = ToldDeliverySerializer(many=True)


class NotSentSerializer(serializers.Serializer[Any]):
    id = serializers.CharField()
    created_at = serializers.DateTimeField()
    title = serializers.CharField()
    why = serializers.CharField(help_text="Where nothing of it was sent: the reason in a sentence; else empty.")
    deliveries = ToldDeliverySerializer(many=True, help_text="Only those that were not sent, or did not arrive.")


class NotSentPageSerializer(serializers.Serializer[Any]):
    next = serializers.URLField(allow_null=True, help_text="The address of the next page; null on the last one.")
    results = NotSentSerializer(many=True)
