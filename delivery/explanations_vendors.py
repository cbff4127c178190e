"""The vendors' codes in words of a support person. Each table covers its channel's own in delivery/channels/."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from followers.choices import Channel


class Explanation(NamedTuple):
    """Two sentences or three: no jargon, nobody's address."""

    what: str  # What happened.
    todo: str  # What a support person can do about it.


ASK_OPERATORS = "Tell the operators; once it is mended, retry what is still valid."
WAIT_AND_RETRY = "Wait a few minutes, and retry what is still valid."
OTHER_CHANNEL = "send it on another channel."
_REOPEN_APP = f"Ask the follower to open the app, which registers the device again, or {OTHER_CHANNEL}"
_OURS = f"The fault is on our side, not the follower's. {ASK_OPERATORS}"
_MESSAGE = f"The message itself was at fault, so that a retry would fail in the same way. {ASK_OPERATORS}"
_BUSY = f"Many alerts at once. {WAIT_AND_RETRY}"

_SWITCHED_OFF = (
    "The address was switched off, unless many were refused so at once: then the fault is ours, and the operators know."
)

_DEVICE_GONE = Explanation(
    "The app was removed from the device, or its address has expired. The address was switched off.", _REOPEN_APP
)
_APPLE_TROUBLE = Explanation("Apple's servers are in trouble.", WAIT_AND_RETRY)
_APPLE_KEY = Explanation("Apple does not accept our key for this app.", _OURS)
_APPLE_ENVIRONMENT = Explanation("Our key belongs to Apple's test environment, or the other way round.", _OURS)
_APPLE_FORM = Explanation("Apple refused the form of the message.", _MESSAGE)
_APPLE_CLOSED = Explanation("Apple closed the connection before it took the message.", WAIT_AND_RETRY)

APNS: Mapping[str, Explanation] = {
    "Unregistered": _DEVICE_GONE,
    "ExpiredToken": _DEVICE_GONE,
    "BadDeviceToken": Explanation(
        f"Apple does not know this device address, or knows it only in its other environment. {_SWITCHED_OFF}",
        _REOPEN_APP,
    ),
    "DeviceTokenNotForTopic": Explanation(
        f"The device address belongs to another app. {_SWITCHED_OFF}", _REOPEN_APP
    ),
    "TopicDisallowed": _APPLE_KEY,
    "BadCertificate": _APPLE_KEY,
    "BadCertificateEnvironment": _APPLE_ENVIRONMENT,
    "Forbidden": _APPLE_KEY,
    "InvalidProviderToken": _APPLE_KEY,
    "MissingProviderToken": _APPLE_KEY,
    "BadEnvironmentKeyInToken": _APPLE_ENVIRONMENT,
    "BadEnvironmentKeyIdInToken": _APPLE_ENVIRONMENT,
    "ExpiredProviderToken": Explanation("Apple calls our sign-in expired; our clock may be wrong.", _OURS),
    "UnrelatedKeyIdInToken": _APPLE_CLOSED,
    "TooManyProviderTokenUpdates": Explanation("Apple found that we signed in too often.", WAIT_AND_RETRY),
    "TooManyRequests": Explanation("Too many alerts went to this one device.", WAIT_AND_RETRY),
    "IdleTimeout": _APPLE_CLOSED,
    "Shutdown": _APPLE_CLOSED,
    "InternalServerError": _APPLE_TROUBLE,
    "ServiceUnavailable": _APPLE_TROUBLE,
    # These are in no table of ours: the channel takes them for refusals, as their HTTP status says.
    **dict.fromkeys(
        ("BadCollapseId", "BadExpirationDate", "BadMessageId", "BadPriority", "BadTopic", "BadPath", "DuplicateHeaders",
         "InvalidPushType", "MissingDeviceToken", "MissingTopic", "PayloadEmpty", "MethodNotAllowed"),
        _APPLE_FORM,
    ),
    "PayloadTooLarge": Explanation("Apple found the message too large.", _MESSAGE),
}  # fmt: skip

_GOOGLE_ACCESS = Explanation("Google does not accept our service account for this project.", _OURS)
_GOOGLE_BUSY = Explanation("More alerts than Google takes at once, for the project or for this device.", _BUSY)

FCM: Mapping[str, Explanation] = {
    "UNREGISTERED": _DEVICE_GONE,
    "SENDER_ID_MISMATCH": Explanation(
        f"The device registered with another Firebase project. {_SWITCHED_OFF}", _REOPEN_APP
    ),
    "INVALID_ARGUMENT": Explanation(
        f"Google refused either the device's address or the message; its own words say which. If it was the address: "
        f"{_SWITCHED_OFF}",
        _REOPEN_APP,
    ),
    "THIRD_PARTY_AUTH_ERROR": Explanation(
        "Google may not pass the alert on to Apple or to the browser: a key is missing in Firebase.", _OURS
    ),
    "PERMISSION_DENIED": _GOOGLE_ACCESS,
    "UNAUTHENTICATED": _GOOGLE_ACCESS,
    "NOT_FOUND": Explanation("Google does not know our Firebase project.", _OURS),
    "QUOTA_EXCEEDED": _GOOGLE_BUSY,
    "RESOURCE_EXHAUSTED": _GOOGLE_BUSY,
    "UNAVAILABLE": Explanation("Google's push service is overloaded.", WAIT_AND_RETRY),
    "INTERNAL": Explanation("Google's push service is in trouble.", WAIT_AND_RETRY),
}

_TWILIO_ACCOUNT = Explanation("Twilio does not accept our account.", _OURS)
_TWILIO_SENDER = Explanation("Twilio does not accept our sender's number.", _OURS)
_ASK_NUMBER = f"Ask the follower for a mobile number that takes SMS, or {OTHER_CHANNEL}"
_PHONE_OFF = f"The phone may be off or out of reach. {WAIT_AND_RETRY} Or {OTHER_CHANNEL}"

SMS: Mapping[str, Explanation] = {
    "20003": _TWILIO_ACCOUNT,
    "20403": Explanation("Our Twilio account may not do this.", _OURS),
    "10001": Explanation("Our Twilio account is suspended.", _OURS),
    "21606": _TWILIO_SENDER,
    "21212": _TWILIO_SENDER,
    "21608": Explanation("Our Twilio account is a trial, which sends to verified numbers only.", _OURS),
    "20429": Explanation("More SMS at once than Twilio takes.", _BUSY),
    "21211": Explanation("The phone number is not valid. The address was switched off.", _ASK_NUMBER),
    "21614": Explanation("The number is not a mobile number. The address was switched off.", _ASK_NUMBER),
    "21610": Explanation(
        "The follower has replied STOP to our SMS. The address was switched off.",
        f"Respect it: only the follower can undo it, by replying START. Until then, {OTHER_CHANNEL}",
    ),
    "21408": Explanation(
        "SMS to this country is not switched on for our Twilio account.", f"{_OURS} Or {OTHER_CHANNEL}"
    ),
    "21612": Explanation("Our sender cannot reach this number: no route leads to its network.", _ASK_NUMBER),
    "90007": Explanation("Twilio refused how long the message was to be valid.", _MESSAGE),
    # What comes later, by a receipt.
    "30001": Explanation("The message waited too long in Twilio's queue.", _BUSY),
    "30002": Explanation("Our Twilio account was suspended while the message was on its way.", _OURS),
    "30003": Explanation("The network could not reach the phone.", _PHONE_OFF),
    "30004": Explanation(
        "The network blocks our messages to this number, or the follower has blocked them.", _ASK_NUMBER
    ),
    "30005": Explanation("The network does not know this number. The address was switched off.", _ASK_NUMBER),
    "30006": Explanation("The number is a landline, or no route leads to it.", _ASK_NUMBER),
    "30007": Explanation("The network took the message for spam and dropped it.", f"{_OURS} Or {OTHER_CHANNEL}"),
    "30008": Explanation("The network gave up and did not say why.", _PHONE_OFF),
    "30036": Explanation("The message was no longer valid when its turn came.", "It cannot be sent any more."),
    "30500": Explanation("Twilio had an error of its own.", WAIT_AND_RETRY),
    "canceled": Explanation("The message was cancelled at Twilio before it went out.", WAIT_AND_RETRY),
    **dict.fromkeys(
        ("undelivered", "failed"),
        Explanation("Twilio's receipt says that the message did not arrive, and not why.", _PHONE_OFF),
    ),
}

_WEBHOOK_GONE = Explanation(
    "The Discord webhook was deleted, or its address is wrong. It was switched off.",
    "Ask its owner for a new webhook address and register that.",
)
_DISCORD_USER = f"Ask the follower to look at their Discord settings, or {OTHER_CHANNEL}"
_DISCORD_BOT = Explanation("Discord does not accept our bot.", _OURS)
_DISCORD_ACCESS = f"Whoever runs the Discord server must let our bot in. Meanwhile, {OTHER_CHANNEL}"
_DISCORD_FORM = Explanation("Discord refused the form of the message.", _MESSAGE)
_DISCORD_BUSY = Explanation("Too many messages at once for this channel or server.", _BUSY)

DISCORD: Mapping[str, Explanation] = {
    "10015": _WEBHOOK_GONE,
    "50027": _WEBHOOK_GONE,
    "invalid_address": Explanation(
        "The address is neither a Discord webhook nor a Discord user. It was switched off.",
        "Have the right address registered.",
    ),
    "10003": Explanation("The Discord channel does not exist any more. The address was switched off.", _DISCORD_USER),
    "10013": Explanation("The Discord user does not exist any more. The address was switched off.", _DISCORD_USER),
    "50033": Explanation("Discord cannot send to this user. The address was switched off.", _DISCORD_USER),
    "50007": Explanation(
        "The follower takes no direct messages from us on Discord. The address was switched off.", _DISCORD_USER
    ),
    "50278": Explanation(
        "The follower shares no Discord server with our bot any more. The address was switched off.", _DISCORD_USER
    ),
    "50001": Explanation("Our bot has no access to the Discord channel.", _DISCORD_ACCESS),
    "50013": Explanation("Our bot may not write in the Discord channel.", _DISCORD_ACCESS),
    "0": _DISCORD_BOT,
    "40001": _DISCORD_BOT,
    "50014": _DISCORD_BOT,
    "40333": Explanation("Discord's firewall blocks our requests.", _OURS),
    "50035": _DISCORD_FORM,
    "50006": Explanation("Discord found the message empty.", _MESSAGE),
    "50109": _DISCORD_FORM,
    "200000": Explanation("The Discord server's own rules blocked the message.", _DISCORD_ACCESS),
    "240000": Explanation("The message holds a link that Discord blocks.", _MESSAGE),
    "20016": Explanation("The Discord channel is in slow mode.", WAIT_AND_RETRY),
    "20028": _DISCORD_BUSY,
    "20029": _DISCORD_BUSY,
    "40003": Explanation("Our bot opened too many conversations at once.", _BUSY),
    "40062": _DISCORD_BUSY,
    "40004": Explanation("Discord has switched sending off for a while.", WAIT_AND_RETRY),
    "130000": Explanation("Discord is overloaded.", WAIT_AND_RETRY),
}

_UNSUBSCRIBED = Explanation(
    "The follower's push subscription is gone: the app was removed, or its notifications were turned off. The address "
    "was switched off.",
    _REOPEN_APP,
)

ONESIGNAL: Mapping[str, Explanation] = {
    **dict.fromkeys(
        ("not_subscribed", "invalid_player_ids", "invalid_subscription_ids", "invalid_aliases",
         "invalid_external_user_ids", "unsubscribed"),
        _UNSUBSCRIBED,
    ),
    "push_failed": Explanation(
        "OneSignal took the message over but could not hand it to Apple or Google.",
        f"{WAIT_AND_RETRY} Or {OTHER_CHANNEL}",
    ),
    "http_400": Explanation("OneSignal refused the message.", _MESSAGE),
    "http_404": Explanation("OneSignal does not know the app or the subscription that the message names.", _OURS),
    "http_401": Explanation("OneSignal does not accept our key.", _OURS),
    "http_403": Explanation("OneSignal does not let our key send for this app.", _OURS),
    "http_429": Explanation("More alerts at once than OneSignal takes for this app.", _BUSY),
    "http_503": Explanation("OneSignal is overloaded.", WAIT_AND_RETRY),
}  # fmt: skip

VENDOR_CODES: Mapping[str, Mapping[str, Explanation]] = {
    Channel.APNS: APNS, Channel.FCM: FCM, Channel.SMS: SMS, Channel.DISCORD: DISCORD, Channel.ONESIGNAL: ONESIGNAL,
}  # fmt: skip
