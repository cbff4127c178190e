"""What the services' bulk calls take and give, as the schema shows it; followers/api/items.py reads the items."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from followers.api.fields import IdField, NumberField, OptionalNumberField, one_of
from followers.choices import VENDOR_CHANNELS, Environment, Platform
from followers.upserts import Outcome

MAX_ITEMS = 1_000


class TraderItem(serializers.Serializer[Any]):
    external_id = IdField()
    name = serializers.CharField(max_length=200, required=False, allow_null=True, allow_blank=True)
    portfolio_value = OptionalNumberField(required=False)
    currency = serializers.CharField(max_length=12, required=False, allow_null=True, allow_blank=True)


class FollowerItem(TraderItem):
    locale = serializers.CharField(
        max_length=35, required=False, allow_null=True, allow_blank=True, help_text="Such as en or pt-BR."
    )
    timezone = serializers.CharField(
        max_length=64, required=False, allow_null=True, allow_blank=True, help_text="IANA, such as Asia/Kolkata."
    )


class FollowItem(serializers.Serializer[Any]):
    trader_id = IdField()
    follower_id = IdField()
    multiplier = OptionalNumberField(required=False, help_text="1 by default.")
    allocation = OptionalNumberField(required=False, help_text="null = the whole portfolio.")
    max_notional = OptionalNumberField(required=False, help_text="What a suggested order may be worth; null = any.")


class OwnedItem(serializers.Serializer[Any]):
    follower_id = IdField(required=False, allow_null=True, help_text="Either this or trader_id.")
    trader_id = IdField(required=False, allow_null=True)
    also = one_of("follower_id", "trader_id")


class EndpointItem(OwnedItem):
    channel = serializers.ChoiceField(choices=[c.value for c in VENDOR_CHANNELS])
    address = serializers.CharField(max_length=4096, help_text="Push token, phone number, webhook URL, …")
    platform = serializers.ChoiceField(choices=Platform.values, required=False, allow_blank=True, allow_null=True)
    app = serializers.CharField(max_length=200, required=False, allow_blank=True, allow_null=True)
    environment = serializers.ChoiceField(choices=Environment.values, required=False, allow_blank=True, allow_null=True)


class PortfolioItem(OwnedItem):
    portfolio_value = NumberField()
    currency = serializers.CharField(max_length=12, required=False, allow_null=True, allow_blank=True)
    as_of = serializers.DateTimeField(
        required=False, allow_null=True, help_text="A value never replaces one as of a later time."
    )


class ItemAnswer(serializers.Serializer[Any]):
    index = serializers.IntegerField(min_value=0, help_text="The item's place in the call, from 0.")
    external_id = serializers.CharField(allow_null=True, help_text="The item's external_id, follower_id or trader_id.")
    id = serializers.CharField(allow_null=True, help_text="Ours; an endpoint is deactivated by it.")
    status = serializers.ChoiceField(choices=[*(o.value for o in Outcome), "error"])
    code = serializers.ChoiceField(choices=["invalid", "unknown_trader", "unknown_follower"], allow_null=True)
    detail = serializers.CharField(allow_null=True)


class ItemAnswers(serializers.Serializer[Any]):
    results = ItemAnswer(many=True)


def _bulk(item: type[serializers.Serializer[Any]], name: str) -> type[serializers.Serializer[Any]]:
    items = serializers.ListField(child=item(), min_length=1, max_length=MAX_ITEMS)
    return type(name, (serializers.Serializer,), {"items": items})


TraderItems = _bulk(TraderItem, "TraderItems")
FollowerItems = _bulk(FollowerItem, "FollowerItems")
FollowItems = _bulk(FollowItem, "FollowItems")
EndpointItems = _bulk(EndpointItem, "EndpointItems")
PortfolioItems = _bulk(PortfolioItem, "PortfolioItems")
