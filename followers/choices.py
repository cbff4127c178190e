"""The words of the followers app, one place each; the documentation's lists are made from here."""

from django.db.models import TextChoices


class Channel(TextChoices):
    """A way to reach a person. `in_app` has no endpoint: it lives in our own inbox."""

    IN_APP = "in_app", "In-app"
    APNS = "apns", "Apple push (APNs)"
    FCM = "fcm", "Firebase push (FCM)"
    SMS = "sms", "SMS"
    DISCORD = "discord", "Discord"
    ONESIGNAL = "onesignal", "OneSignal"


VENDOR_CHANNELS = tuple(c for c in Channel if c is not Channel.IN_APP)
"""The channels that speak to somebody else's servers."""

PUSH_CHANNELS = (Channel.FCM, Channel.APNS, Channel.ONESIGNAL)
"""The channels that end in an app: it registers its own device, and can say what became of an alert."""


class Platform(TextChoices):
    """What kind of device stands behind a push endpoint; empty where the channel has no devices."""

    IOS = "ios", "iOS"
    ANDROID = "android", "Android"
    WEB = "web", "Web"


class Environment(TextChoices):
    """Which of a vendor's environments issued an address (APNs keeps two sets of tokens)."""

    PRODUCTION = "production", "Production"
    SANDBOX = "sandbox", "Sandbox"


class Scope(TextChoices):
    """What a service's key may do."""

    AUDIENCE_WRITE = "audience:write", "Write traders, followers, follows, endpoints and portfolio values"
    NOTIFICATIONS_READ = "notifications:read", "Read notifications"
    TOKENS_MINT = "tokens:mint", "Mint followers' tokens"
    UPDATES_WRITE = "updates:write", "Send general updates"
    FOLLOWERS_ERASE = "followers:erase", "Erase followers"
