"""The unit of claiming: a batch of deliveries, or a shard of one trade's fan-out."""

from __future__ import annotations

from django.db import models
from django_mongodb_backend.fields import ArrayField, ObjectIdAutoField, ObjectIdField

from delivery.choices import BatchKind, BreakerStatus
from followers.choices import VENDOR_CHANNELS
from notifications.choices import Priority
from notifications.models import Notification

CHANNEL_CHOICES = [(c.value, c.label) for c in VENDOR_CHANNELS]


class Batch(models.Model):
    """Work that one worker claims as a whole, under a lease. The queue carries nothing but its id.

    A deliver batch names each notification at most once: a second device on the same channel goes into another batch.
    """

    id = ObjectIdAutoField(primary_key=True)
    kind = models.CharField(max_length=8, choices=BatchKind.choices)
    channel = models.CharField(max_length=16, choices=CHANNEL_CHOICES, blank=True)
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


class LastSweep(models.Model):
    """When dispatch_due last looked at all that was due: one document, as its metrics stay on its own machine."""

    id = models.CharField(max_length=16, primary_key=True)
    swept_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.id} {self.swept_at}"


class Breaker(models.Model):
    """A channel's circuit breaker at one provider account, as staff see and switch it.

    The live state is shared among the workers through Redis (delivery/breaker.py). This row keeps what must outlive
    Redis, what staff have forced, and the state as of its last change.
    """

    id = ObjectIdAutoField(primary_key=True)
    channel = models.CharField(max_length=16, choices=CHANNEL_CHOICES)
    account = models.CharField(max_length=200, blank=True, help_text="The provider account; a new one starts closed.")
    status = models.CharField(max_length=16, choices=BreakerStatus.choices, default=BreakerStatus.CLOSED)
    reason = models.CharField(max_length=500, blank=True)
    changed_at = models.DateTimeField(null=True, blank=True)
    next_probe_at = models.DateTimeField(null=True, blank=True)
    forced = models.CharField(
        max_length=16,
        choices=[(s.value, s.label) for s in (BreakerStatus.OPEN, BreakerStatus.CLOSED)],
        blank=True,
        help_text="Empty = it decides by itself.",
    )
    forced_by = models.CharField(max_length=150, blank=True)
    forced_at = models.DateTimeField(null=True, blank=True)
    note = models.CharField(max_length=500, blank=True, help_text="Why it was forced.")
    used_at = models.DateTimeField(
        null=True, blank=True, help_text="When a worker last began to send with this account."
    )

    class Meta:
        permissions = [("view_operations", "Can see the operations page")]

    def __str__(self) -> str:
        return f"{self.channel} {self.account}".strip()


class BreakerChange(models.Model):
    """One change of a circuit breaker: its history."""

    id = ObjectIdAutoField(primary_key=True)
    channel = models.CharField(max_length=16, choices=CHANNEL_CHOICES)
    account = models.CharField(max_length=200, blank=True)
    at = models.DateTimeField()
    status_before = models.CharField(max_length=16, choices=BreakerStatus.choices)
    status_after = models.CharField(max_length=16, choices=BreakerStatus.choices)
    reason = models.CharField(max_length=500, blank=True, help_text="In words: what was counted, or what staff wrote.")
    by = models.CharField(max_length=200, help_text="The worker that saw it, or the member of staff.")

    class Meta:
        verbose_name = "breaker change"

    def __str__(self) -> str:
        return f"{self.channel}: {self.status_before} → {self.status_after}"


class ProofRun(models.Model):
    """One run of the proof that nobody was forgotten (delivery/proof.py), and what it found."""

    id = ObjectIdAutoField(primary_key=True)
    started_at = models.DateTimeField()
    seconds = models.FloatField()
    by = models.CharField(max_length=150)
    since = models.DateTimeField(null=True, blank=True, help_text="Trades received since then; empty = all.")
    cut_short = models.BooleanField(default=False, help_text="A limit ended it before it had looked at every trade.")
    proved_back_to = models.DateTimeField(null=True, blank=True, help_text="Where it was cut short, if anywhere.")
    missing = models.PositiveIntegerField(help_text="How many gaps were found; 0 = proved.")
    result = models.JSONField(help_text="The figures, and the gaps by name.")

    class Meta:
        verbose_name = "proof"

    def __str__(self) -> str:
        return f"{self.started_at:%Y-%m-%d %H:%M} by {self.by}"


class ReviewItem(Notification):
    """An alert that a person should look at, or has looked at: a Notification with a review."""

    class Meta:
        proxy = True
        verbose_name = "review item"
        default_permissions = ("view",)
        permissions = [("work_on_reviews", "Can retry, assign and resolve review items")]

    def __str__(self) -> str:
        return f"{self.symbol} {self.pk}"
