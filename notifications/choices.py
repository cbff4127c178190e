"""The words of the notifications app, one place each; the documentation's lists are made from here."""

from django.db.models import TextChoices


class Side(TextChoices):
    BUY = "BUY", "Buy"
    SELL = "SELL", "Sell"


class Action(TextChoices):
    """What a trade does to the trader's position. An event may come without one."""

    OPEN = "OPEN", "Open"
    ADD = "ADD", "Add"
    REDUCE = "REDUCE", "Reduce"
    CLOSE = "CLOSE", "Close"


EXITS = frozenset({Action.REDUCE, Action.CLOSE})
"""Actions that take a trader out of a position: nothing silently drops one."""


class ProductType(TextChoices):
    INTRADAY = "INTRADAY", "Intraday"
    DELIVERY = "DELIVERY", "Delivery"
    POSITIONAL = "POSITIONAL", "Positional"
    FUTURES = "FUTURES", "Futures"
    OPTIONS = "OPTIONS", "Options"
    CRYPTO = "CRYPTO", "Crypto"


DERIVATIVES = frozenset({ProductType.FUTURES, ProductType.OPTIONS})
"""Products that expire; their events carry `expiryDate`."""


class Right(TextChoices):
    """The right that an option gives."""

    CALL = "CALL", "Call"
    PUT = "PUT", "Put"


class Priority(TextChoices):
    """How soon an alert must be sent. The words sort in the order of urgency, and statements rely on it."""

    CRITICAL = "critical", "Critical"
    HIGH = "high", "High"
    NORMAL = "normal", "Normal"


class Kind(TextChoices):
    """What a notification is about."""

    TRADE_ALERT = "trade_alert", "Trade alert"
    UPDATE = "update", "General update"


class DeliveryState(TextChoices):
    """Where one delivery stands. Only `queued` is unfinished."""

    QUEUED = "queued", "Queued"
    SENT = "sent", "Sent"  # The vendor took it over.
    DELIVERED = "delivered", "Delivered"  # A receipt or the client confirmed it.
    FAILED = "failed", "Failed"  # Refused for good, or out of attempts.
    EXPIRED = "expired", "Expired"  # Its validity ran out before it was sent.
    SKIPPED = "skipped", "Skipped"  # Never meant to be sent; the reason says why.
    UNKNOWN = "unknown", "Unknown"  # Perhaps sent: the connection or the worker died in between.
    CANCELLED = "cancelled", "Cancelled"  # Withdrawn before it was sent.


class AckEvent(TextChoices):
    """What an app may say of an alert. Each is kept as it was said; none stands for another."""

    RECEIVED = "received", "Received"  # The app has it.
    SEEN = "seen", "Seen"  # It was in front of a person.
    OPENED = "opened", "Opened"  # A person opened it.


class NotificationState(TextChoices):
    """The summary of a notification's deliveries; always derived, never set by hand."""

    PENDING = "pending", "Pending"
    DELIVERED = "delivered", "Delivered"
    PARTIAL = "partial", "Partial"
    FAILED = "failed", "Failed"
    EXPIRED = "expired", "Expired"
    CANCELLED = "cancelled", "Cancelled"
    SKIPPED = "skipped", "Skipped"


class FanOutState(TextChoices):
    """How far a stored trade has come."""

    PENDING = "pending", "Pending"
    DONE = "done", "Fanned out"
    FAILED = "failed", "Failed"  # A shard failed too often; it can be run again.
    EXPIRED = "expired", "Expired on arrival"


class Reason(TextChoices):
    """Why something was not sent; a delivery's `error_code` or a sizing's `reason`."""

    NO_PORTFOLIO = "no_portfolio", "The follower's or the trader's portfolio value is not known"
    BELOW_MIN_QTY = "below_min_qty", "The follower's quantity is below the smallest that can be traded"
    BELOW_MIN_NOTIONAL = "below_min_notional", "The follower's order would be worth less than the minimum"
    CURRENCY_MISMATCH = "currency_mismatch", "The follower's portfolio is in another currency than the trade"
    UNREADABLE_FIGURES = (
        "unreadable_figures",
        "The follower's stored figures cannot be read; an operator must mend them",
    )
    SUPERSEDED_BY_EXIT = "superseded_by_exit", "The trader has left the position since"
    VALIDITY_OVER = "validity_over", "The alert's validity ran out before it could be sent"
    CHANNEL_OFF = "channel_off", "The channel has no credentials here"
    CHANNEL_OFF_BY_FOLLOWER = "channel_off_by_follower", "The follower has switched this channel off"
    CRITICAL_ONLY = "critical_only", "The follower wants only critical alerts on this channel"
    MUTED = "muted", "The follower has muted this trader"
    BELOW_MIN_VALUE = "below_min_value", "The order would be worth less than the follower wants to hear of"
    QUIET_HOURS = "quiet_hours", "It is the follower's quiet hours"
    SMS_LEGAL_HOURS = "sms_legal_hours", "No SMS may be sent at this hour where the follower lives"
    SMS_DAILY_CAP = "sms_daily_cap", "The follower has had as many SMS today as one person is sent in a day"
    TEST_MODE = "test_mode", "This system is in test mode and sends only to named followers"
    ENDPOINT_INACTIVE = "endpoint_inactive", "The address was deactivated before the alert was sent"
    FOLLOWER_ERASED = "follower_erased", "The follower was erased before the alert was sent"
    LEASE_LOST = "lease_lost", "The worker that was sending it died; it is sent again under the same key"
    CRASHED_IN_SEND = "crashed_in_send", "The worker died while sending it; the vendor may have accepted it"
    NO_ANSWER = "no_answer", "The vendor did not answer; it may have accepted the alert"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted", "Every allowed attempt failed"


class ReviewReason(TextChoices):
    """Why an alert waits in the review bucket."""

    UNKNOWN = "unknown", "Nobody knows whether it arrived"
    FAILED = "failed", "A delivery failed for good"
    UNREACHED = "unreached", "Every address is dead, and nothing else reached the follower"
    UNDONE = "undone", "What a person asked for was not sent"
