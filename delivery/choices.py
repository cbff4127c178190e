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


class Gap(TextChoices):
    """What a proof can find missing (delivery/proof.py); docs/operations.md says what to do about each."""

    EVENT_FAILED = "event_failed", "Fan-out failed"  # A shard failed too often; a person must run it again.
    EVENT_STATE = "event_state", "State of an event is not true"  # It contradicts its own shards or times.
    SHARD_LOST = "shard_lost", "Shard without a worker"  # Neither done, nor in hand, nor looked at again.
    ALERT_MISSING = "alert_missing", "Alert missing"  # A follower is owed one, and it is not stored.
    POST_MISSING = "post_missing", "Community post missing"
    ALERTS_GONE = "alerts_gone", "Alerts gone"  # Fewer are stored than were written; whose, cannot be told.
    STATE_WRONG = "state_wrong", "State of an alert is not true"  # It does not follow from its deliveries.
    NEVER_WAKES = "never_wakes", "No wake-up ahead"  # Unfinished, and nothing will look at it at the right time.
    BATCH_LOST = "batch_lost", "Batch lost"  # Unfinished, in a batch that nobody will send.
    OVERDUE = "overdue", "Overdue"  # Should have been woken long ago: dispatch_due is not running, or far behind.
