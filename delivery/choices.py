"""The words of the delivery app, one place each."""

from django.db.models import TextChoices

from followers.choices import Channel
from notifications.choices import Priority


class BatchKind(TextChoices):
    """What a batch holds; each kind is worked off by the actor of the same name."""

    FAN_OUT = "fan_out", "Fan-out shard"
    DELIVER = "deliver", "Deliveries"


KEYED_CHANNELS = frozenset({Channel.APNS, Channel.FCM, Channel.ONESIGNAL})
"""Channels on which a repeat under the same key reaches the person once, whatever the address.

Discord has a key for direct messages only; its webhooks, like SMS, have none.
"""


class BreakerStatus(TextChoices):
    """Where a channel's circuit breaker stands."""

    CLOSED = "closed", "Closed"  # Alerts are sent.
    OPEN = "open", "Open"  # Nothing is sent; alerts wait until the next probe, or until they expire.
    HALF_OPEN = "half_open", "Half open"  # A few probes are under way; the rest waits for what they find.


PRIORITY_SHARES = {Priority.CRITICAL.value: 70, Priority.HIGH.value: 20, Priority.NORMAL.value: 10}
"""How whatever is scarce (a channel's slots, its rate, a sweep) is shared among the priorities that have work, in per
cent: critical alerts overtake all others, and normal ones do not starve."""
