"""What a follower's calls about themselves take and give, as the schema shows it."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from followers.choices import PUSH_CHANNELS, Environment, Platform
from followers.preferences import DAYS, Level


class HoursSerializer(serializers.Serializer[Any]):
    start = serializers.CharField(help_text="Such as 22:00, in the follower's own time zone.")
    end = serializers.CharField(help_text="On the next day if it is before the start.")
    days = serializers.ListField(child=serializers.ChoiceField(choices=list(DAYS)), help_text="On which it starts.")


class MinValueSerializer(serializers.Serializer[Any]):
    amount = serializers.CharField(help_text="A decimal number.")
    currency = serializers.CharField(max_length=12)


class PreferencesSerializer(serializers.Serializer[Any]):
    channels = serializers.DictField(
        child=serializers.ChoiceField(choices=[level.value for level in Level]),
        help_text="By channel; the inbox itself cannot be switched off.",
    )
    muted_traders = serializers.ListField(child=serializers.CharField(), help_text="External ids.")
    mute_exits = serializers.BooleanField(help_text="Muting a trader mutes the exits too.")
    quiet_hours = HoursSerializer(allow_null=True)
    quiet_exits = serializers.BooleanField(help_text="Quiet hours hold for exits too.")
    sms_at_night = serializers.BooleanField()
    min_value = MinValueSerializer(allow_null=True, help_text="Entries that are worth less are not told.")


class DeviceToRegister(serializers.Serializer[Any]):
    channel = serializers.ChoiceField(choices=[(c.value, c.label) for c in PUSH_CHANNELS])
    address = serializers.CharField(max_length=4096, help_text="The push token; OneSignal: the subscription's id.")
    platform = serializers.ChoiceField(choices=Platform.choices, required=False, allow_blank=True)
    app = serializers.CharField(max_length=200, required=False, allow_blank=True, help_text="Bundle or package id.")
    environment = serializers.ChoiceField(choices=Environment.choices, required=False)


class DeviceToRemove(serializers.Serializer[Any]):
    channel = serializers.ChoiceField(choices=[(c.value, c.label) for c in PUSH_CHANNELS])
    address = serializers.CharField(max_length=4096)


class DeviceSerializer(serializers.Serializer[Any]):
    id = serializers.CharField()
    channel = serializers.CharField()
    address = serializers.CharField(help_text="Masked.")
    platform = serializers.CharField()
    app = serializers.CharField()
    environment = serializers.CharField()
    active = serializers.BooleanField()
    deactivated_reason = serializers.CharField()
    registered_at = serializers.DateTimeField()


class DevicesSerializer(serializers.Serializer[Any]):
    results = DeviceSerializer(many=True)
