"""What the calls about general updates take and give, as the schema shows it."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from delivery.updates import FOLLOWERS_MAX
from followers.api.fields import IdField, WordsField, one_of
from notifications.choices import FanOutState, NotificationState

UPDATE_ID = r"[A-Za-z0-9._:-]{1,100}"


class UpdateSerializer(serializers.Serializer[Any]):
    """Either `trader_id`, for that trader's followers and community channels, or `follower_ids`."""

    id = serializers.RegexField(f"^{UPDATE_ID}$", help_text="Yours: publishing under it again changes nothing.")
    title = WordsField(max_length=120)
    text = WordsField(max_length=2_000)
    trader_id = IdField(required=False)
    follower_ids = serializers.ListField(child=IdField(), min_length=1, max_length=FOLLOWERS_MAX, required=False)
    also = one_of("trader_id", "follower_ids")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("trader_id" in attrs) == ("follower_ids" in attrs):
            raise serializers.ValidationError("Give either `trader_id` or `follower_ids`.", code="one_of")
        return attrs


class AlertCountsSerializer(serializers.Serializer[Any]):
    """How many alerts are in which state."""

    def get_fields(self) -> dict[str, Any]:
        return {state.value: serializers.IntegerField(min_value=0) for state in NotificationState}


class StoredUpdateSerializer(serializers.Serializer[Any]):
    id = serializers.CharField()
    state = serializers.ChoiceField(choices=FanOutState.choices, help_text="`done`: everybody has their alert.")
    published_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()
    correlation_id = serializers.CharField()
    unknown_follower_ids = serializers.ListField(child=serializers.CharField(), help_text="Ids that nobody has.")
    shards = serializers.IntegerField()
    shards_done = serializers.IntegerField()
    alerts = AlertCountsSerializer()


class TestAlertSerializer(serializers.Serializer[Any]):
    id = serializers.CharField(help_text="The payload's `update_id`.")
    expires_at = serializers.DateTimeField()
