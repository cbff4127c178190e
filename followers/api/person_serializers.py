"""What a follower's calls about themselves take and give, as the schema shows it."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from followers.api.fields import CLOCK_PATTERN, CONTROL, AmountField
from followers.choices import PUSH_CHANNELS, VENDOR_CHANNELS, Channel, Environment, Platform
from followers.preferences import DAYS, MUTED_MAX, Level

PUSH_ADDRESSES = {
    Channel.FCM: rf"^[^\s{CONTROL}]+$",
    Channel.APNS: r"^([0-9a-fA-F]{2}){16,100}$",
    Channel.ONESIGNAL: r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
}
"""The form of the addresses that an app may register by itself; followers/addresses.py checks them."""


CLOSED = {"additionalProperties": False}
"""A name that is not known is a mistake, and is refused."""

LEVELS = [level.value for level in Level]


class HoursSerializer(serializers.Serializer[Any]):
    start = serializers.RegexField(CLOCK_PATTERN, help_text="Such as 22:00, in the follower's own time zone.")
    end = serializers.RegexField(CLOCK_PATTERN, help_text="On the next day if it is before the start.")
    days = serializers.ListField(child=serializers.ChoiceField(choices=list(DAYS)), help_text="On which it starts.")


class MinValueSerializer(serializers.Serializer[Any]):
    amount = serializers.CharField(help_text="A decimal number.")
    currency = serializers.CharField(max_length=12)


class ChannelLevelsSerializer(serializers.Serializer[Any]):
    """The level of each channel; the inbox itself cannot be switched off."""

    def get_fields(self) -> dict[str, Any]:
        return {str(channel): serializers.ChoiceField(choices=LEVELS) for channel in VENDOR_CHANNELS}


class PreferencesSerializer(serializers.Serializer[Any]):
    channels = ChannelLevelsSerializer()
    muted_traders = serializers.ListField(child=serializers.CharField(), help_text="External ids.")
    mute_exits = serializers.BooleanField(help_text="Muting a trader mutes the exits too.")
    quiet_hours = HoursSerializer(allow_null=True)
    quiet_exits = serializers.BooleanField(help_text="Quiet hours hold for exits too.")
    sms_at_night = serializers.BooleanField()
    min_value = MinValueSerializer(allow_null=True, help_text="Entries that are worth less are not told.")


class HoursChange(HoursSerializer):
    days = serializers.ListField(
        child=serializers.ChoiceField(choices=list(DAYS)), min_length=1, required=False, allow_null=True
    )
    also = CLOSED


class MinValueChange(serializers.Serializer[Any]):
    amount = AmountField()
    currency = serializers.RegexField(r"^[A-Za-z0-9]{1,12}$")
    also = CLOSED


class ChannelLevelsChange(serializers.Serializer[Any]):
    """Channels that are left out stay as they are; null is the default, `all`."""

    also = CLOSED

    def get_fields(self) -> dict[str, Any]:
        level = {"choices": LEVELS, "required": False, "allow_null": True}
        return {str(channel): serializers.ChoiceField(**level) for channel in VENDOR_CHANNELS}


class PreferencesChange(serializers.Serializer[Any]):
    """What is left out stays as it is; null is the default again."""

    channels = ChannelLevelsChange(required=False, allow_null=True)
    muted_traders = serializers.ListField(
        child=serializers.CharField(min_length=1, max_length=128), max_length=MUTED_MAX, required=False, allow_null=True
    )
    mute_exits = serializers.BooleanField(required=False, allow_null=True)
    quiet_hours = HoursChange(required=False, allow_null=True, help_text="Replaced as a whole.")
    quiet_exits = serializers.BooleanField(required=False, allow_null=True)
    sms_at_night = serializers.BooleanField(required=False, allow_null=True)
    min_value = MinValueChange(required=False, allow_null=True, help_text="Replaced as a whole.")
    also = CLOSED


class DeviceToRemove(serializers.Serializer[Any]):
    channel = serializers.ChoiceField(choices=[c.value for c in PUSH_CHANNELS])
    address = serializers.CharField(max_length=4096, help_text="The push token; OneSignal: the subscription's id.")
    also = {
        "oneOf": [
            {"properties": {"channel": {"const": channel.value}, "address": {"pattern": pattern}}}
            for channel, pattern in PUSH_ADDRESSES.items()
        ]
    }


class DeviceToRegister(DeviceToRemove):
    platform = serializers.ChoiceField(choices=Platform.choices, required=False, allow_blank=True, allow_null=True)
    app = serializers.RegexField(
        rf"^[^{CONTROL}]*$",
        max_length=200,
        required=False,
        allow_null=True,
        help_text="Bundle or package id.",
    )
    environment = serializers.ChoiceField(
        choices=Environment.choices, required=False, allow_blank=True, allow_null=True
    )


class DeviceSerializer(serializers.Serializer[Any]):
    id = serializers.CharField()
    channel = serializers.CharField()
    address = serializers.CharField(help_text="Masked.")
    platform = serializers.CharField(allow_blank=True)
    app = serializers.CharField(allow_blank=True)
    environment = serializers.CharField()
    active = serializers.BooleanField()
    deactivated_reason = serializers.CharField(allow_blank=True)
    registered_at = serializers.DateTimeField()


class DevicesSerializer(serializers.Serializer[Any]):
    results = DeviceSerializer(many=True)
