"""Who trades, who follows whom with how much money, and where each person can be reached."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import Any

from bson import ObjectId
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.utils import timezone
from django_mongodb_backend.fields import ArrayField, ObjectIdAutoField

from followers.addresses import mask_address, normalise_address
from followers.choices import VENDOR_CHANNELS, Channel, Environment, Platform, Scope
from followers.encryption import EncryptedTextField, address_hash

BUCKETS = 256
"""Follows are spread over so many buckets; a large audience is fanned out in ranges of them."""


class Money(models.DecimalField):
    """An amount or a quantity: a MongoDB Decimal128, so at most 34 digits, 18 of them after the point."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"max_digits": 34, "decimal_places": 18, **kwargs})


class Trader(models.Model):
    id = ObjectIdAutoField(primary_key=True)
    external_id = models.CharField(max_length=128, unique=True)
    name = models.CharField(max_length=200, blank=True)
    portfolio_value = Money(null=True, blank=True, validators=[MinValueValidator(Decimal(0))])
    portfolio_as_of = models.DateTimeField(null=True, blank=True)
    currency = models.CharField(max_length=12, blank=True, help_text="Empty = the currency of each trade.")

    def __str__(self) -> str:
        return self.name or self.external_id


class Follower(models.Model):
    id = ObjectIdAutoField(primary_key=True)
    external_id = models.CharField(max_length=128, unique=True)
    name = models.CharField(max_length=200, blank=True)
    portfolio_value = Money(null=True, blank=True, validators=[MinValueValidator(Decimal(0))])
    portfolio_as_of = models.DateTimeField(null=True, blank=True)
    currency = models.CharField(max_length=12, blank=True, help_text="Empty = the currency of each trade.")
    locale = models.CharField(max_length=35, default="en")
    timezone = models.CharField(max_length=64, default="UTC")
    preferences = models.JSONField(default=dict, blank=True)

    def __str__(self) -> str:
        return self.name or self.external_id


def follower_bucket(follower_id: object) -> int:
    """The bucket (0 to 255) of a follower: a hash of the id, so that every trader's audience spreads evenly."""
    return hashlib.sha256(str(follower_id).encode()).digest()[0]


class Follow(models.Model):
    """One person's following of one trader. Following again after an end reuses the row."""

    trader_id: ObjectId
    follower_id: ObjectId

    id = ObjectIdAutoField(primary_key=True)
    trader = models.ForeignKey(Trader, models.CASCADE, db_index=False)
    follower = models.ForeignKey(Follower, models.CASCADE)
    since = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True, blank=True)
    bucket = models.PositiveSmallIntegerField(editable=False)
    multiplier = Money(default=Decimal(1), validators=[MinValueValidator(Decimal(0))])
    allocation = Money(
        null=True,
        blank=True,
        validators=[MinValueValidator(Decimal(0))],
        help_text="The amount set aside for this trader. Empty = the whole portfolio.",
    )
    max_notional = Money(null=True, blank=True, validators=[MinValueValidator(Decimal(0))])

    class Meta:
        unique_together = [("trader", "follower")]

    def __str__(self) -> str:
        return f"{self.follower_id} follows {self.trader_id}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.bucket = follower_bucket(self.follower_id)
        super().save(*args, **kwargs)


class Endpoint(models.Model):
    """An address of a follower, or of a trader's community channel. (channel, address) belongs to one owner."""

    follower_id: ObjectId | None
    trader_id: ObjectId | None

    id = ObjectIdAutoField(primary_key=True)
    follower = models.ForeignKey(Follower, models.CASCADE, null=True, blank=True, related_name="endpoints")
    trader = models.ForeignKey(
        Trader,
        models.CASCADE,
        null=True,
        blank=True,
        related_name="community_endpoints",
        help_text="Set for a community channel: one post per trade, without anybody's quantity.",
    )
    channel = models.CharField(max_length=16, choices=[(c.value, c.label) for c in VENDOR_CHANNELS])
    address = EncryptedTextField(help_text="Push token, phone number, webhook URL, …; encrypted at rest.")
    address_hash = models.CharField(max_length=64, editable=False)
    platform = models.CharField(max_length=16, choices=Platform.choices, blank=True)
    app = models.CharField(max_length=200, blank=True)
    environment = models.CharField(max_length=16, choices=Environment.choices, default=Environment.PRODUCTION)
    active = models.BooleanField(default=True)
    deactivated_reason = models.CharField(max_length=200, blank=True)
    deactivated_at = models.DateTimeField(null=True, blank=True)
    registered_at = models.DateTimeField(default=timezone.now)

    class Meta:
        unique_together = [("channel", "address_hash")]
        permissions = [("switch_endpoint", "Can deactivate and reactivate endpoints, with a reason")]

    def __str__(self) -> str:
        return f"{Channel(self.channel).label} {mask_address(self.address)}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.address_hash = address_hash(self.address)
        super().save(*args, **kwargs)

    def clean(self) -> None:
        if (self.follower_id is None) == (self.trader_id is None):
            raise ValidationError("An endpoint belongs either to a follower or to a trader.")
        self.address = normalise_address(self.channel, self.address)
        self.address_hash = address_hash(self.address)


class ServiceKey(models.Model):
    """A service's key to the API; followers/service_keys.py makes and finds them."""

    id = ObjectIdAutoField(primary_key=True)
    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=16, unique=True, editable=False)
    key_hash = models.CharField(max_length=64, editable=False)
    scopes = ArrayField(models.CharField(max_length=32, choices=Scope.choices), default=list, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True, help_text="Empty = it does not expire.")
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False, help_text="To the minute.")

    class Meta:
        verbose_name = "API key"

    def __str__(self) -> str:
        return f"{self.name} (nh_{self.prefix}_…)"


class Erasure(models.Model):
    """That a follower was erased, and what became of what they left; its id is the follower's.

    It names nobody: of the external id there is only a keyed hash, by which a repeated request finds its report.
    Whoever writes something about a follower looks here afterwards, so that nothing comes back (followers/erasures.py).
    """

    id = ObjectIdAutoField(primary_key=True)
    external_id_hash = models.CharField(max_length=64, editable=False)
    erased_at = models.DateTimeField(help_text="When it was last asked for.")
    finished_at = models.DateTimeField(null=True, blank=True)
    keeps_notifications = models.BooleanField(help_text="Alerts are kept, under a name that says nothing.")
    counts = models.JSONField(default=dict)

    def __str__(self) -> str:
        return str(self.pk)
