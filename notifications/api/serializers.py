"""What the followers' calls take and give, as the schema shows it."""

from __future__ import annotations

from typing import Any

from bson import ObjectId
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from followers.api.fields import IdField, one_of
from followers.choices import PUSH_CHANNELS, Channel
from notifications.choices import AckEvent
from notifications.frames import ACK_CHANNELS

MAX_IDS = 500


@extend_schema_field({"type": "string", "pattern": "^[0-9a-fA-F]{24}$"})
class ObjectIdField(serializers.CharField):
    """An id: 24 hexadecimal digits."""

    def to_internal_value(self, data: Any) -> Any:
        text = super().to_internal_value(data)
        if len(text) != 24 or not ObjectId.is_valid(text):
            raise serializers.ValidationError("An id is 24 hexadecimal digits.", code="invalid_id")
        return ObjectId(text)


class PayloadField(serializers.DictField):
    """What an alert says, in an inbox and in its detail: see the table in docs/api.md."""

    child = serializers.CharField(allow_blank=True)


class EntrySerializer(serializers.Serializer[Any]):
    id = serializers.CharField()
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()
    read_at = serializers.DateTimeField(allow_null=True)
    payload = PayloadField()


class InboxPageSerializer(serializers.Serializer[Any]):
    next = serializers.URLField(allow_null=True, help_text="The address of the next page; null on the last one.")
    results = EntrySerializer(many=True)


class CountSerializer(serializers.Serializer[Any]):
    unread = serializers.IntegerField(min_value=0)


class ReadSerializer(serializers.Serializer[Any]):
    """Either `ids`, or everything that was made up to `before`."""

    ids = serializers.ListField(child=ObjectIdField(), min_length=1, max_length=MAX_IDS, required=False)
    before = serializers.DateTimeField(required=False)
    also = one_of("ids", "before")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if len(attrs) != 1:
            raise serializers.ValidationError("Give either `ids` or `before`.", code="one_of")
        return attrs


class ReadCountSerializer(serializers.Serializer[Any]):
    changed = serializers.IntegerField(min_value=0)


class AckSerializer(serializers.Serializer[Any]):
    event = serializers.ChoiceField(choices=AckEvent.choices)
    channel = serializers.ChoiceField(
        choices=[(c.value, c.label) for c in ACK_CHANNELS],
        default=Channel.IN_APP.value,
        help_text="Which of the alert's deliveries is meant: `in_app`, or the push channel it came by.",
    )
    device_id = ObjectIdField(
        required=False,
        help_text="The push message's `device_id`; may be left out where the alert went to one device on the channel.",
    )
    also = {
        "if": {"required": ["device_id"]},
        "then": {"required": ["channel"], "properties": {"channel": {"enum": [c.value for c in PUSH_CHANNELS]}}},
    }

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "device_id" in attrs and attrs["channel"] == Channel.IN_APP:
            raise serializers.ValidationError({"device_id": ["It goes with a push channel."]}, code="not_in_app")
        return attrs


class MintSerializer(serializers.Serializer[Any]):
    follower_id = IdField(help_text="The follower's external id.")


class TokenSerializer(serializers.Serializer[Any]):
    token = serializers.CharField()
    expires_in = serializers.IntegerField(help_text="Seconds.")


class TicketSerializer(serializers.Serializer[Any]):
    ticket = serializers.CharField(help_text="For `/ws/inbox/?ticket=`, once.")
    expires_in = serializers.IntegerField(help_text="Seconds.")
