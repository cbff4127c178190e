"""The unit of claiming: a batch of deliveries, or a shard of one trade's fan-out."""

from __future__ import annotations

from django.db import models
from django_mongodb_backend.fields import ArrayField, ObjectIdAutoField, ObjectIdField

from delivery.choices import BatchKind
from followers.choices import VENDOR_CHANNELS
from notifications.choices import Priority


class Batch(models.Model):
    """Work that one worker claims as a whole, under a lease. The queue carries nothing but its id.

    A deliver batch names each notification at most once: a second device on the same channel goes into another batch.
    """

    id = ObjectIdAutoField(primary_key=True)
    kind = models.CharField(max_length=8, choices=BatchKind.choices)
    channel = models.CharField(max_length=16, choices=[(c.value, c.label) for c in VENDOR_CHANNELS], blank=True)
    priority = models.CharField(max_length=8, choices=Priority.choices)
    ids = ArrayField(ObjectIdField(), default=list, blank=True)
    event = ObjectIdField(null=True, blank=True)
    shard = models.PositiveSmallIntegerField(null=True, blank=True)
    shard_batch = ObjectIdField(null=True, blank=True, help_text="The fan-out shard that made this batch.")
    correlation_id = models.CharField(max_length=128, blank=True)
    created_at = models.DateTimeField()
    next_look_at = models.DateTimeField(null=True, blank=True)
    hints = models.PositiveIntegerField(default=0)
    failures = models.PositiveSmallIntegerField(default=0)
    error = models.CharField(max_length=500, blank=True)
    token = models.CharField(max_length=32, null=True, blank=True)
    worker = models.CharField(max_length=200, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name_plural = "batches"

    def __str__(self) -> str:
        return f"{self.kind} {self.channel} {self.id}"
