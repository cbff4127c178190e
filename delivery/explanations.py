"""Every code that can stand in a failed or unknown delivery, in words of a support person: what happened, what to do.

The vendors' own codes are in delivery/explanations_vendors.py; here is what all channels share, and the look-up. A
vendor may invent a code at any time: it is explained by what is known of it, and its own words stand beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from delivery.choices import KEYED_CHANNELS
from delivery.explanations_vendors import ASK_OPERATORS, OTHER_CHANNEL, VENDOR_CODES, WAIT_AND_RETRY, Explanation
from followers.choices import Channel
from notifications.choices import DeliveryState, Reason

_UNREACHABLE = "We could not reach the provider. Nothing was sent."
_NETWORK = "If many alerts fail so, tell the operators: the network or the provider is down. " + WAIT_AND_RETRY
_NO_ANSWER = "The message went out to the provider, and no answer came back. It may have been accepted."
_SEE_STATE = "Whether it arrived is not known from here. Ask the follower, or look it up in the provider's own console."
AS_WISHED = "Nothing: it is as the follower wishes. They can change it in their preferences."
_FIGURES = "Correct the portfolio value or the currency; the next trade is then sized. This alert is not sent later."

TRANSPORT: Mapping[str, Explanation] = {
    "timeout_before_send": Explanation(
        "The time for this attempt was over before it began. Nothing was sent.", _NETWORK
    ),
    "no_free_connection": Explanation("All our connections to the provider were busy. Nothing was sent.", _NETWORK),
    "connect_timeout": Explanation("The provider did not take our call in time. Nothing was sent.", _NETWORK),
    "connect_error": Explanation(_UNREACHABLE, _NETWORK),
    "refused_stream": Explanation("The provider turned our request away unread. Nothing was sent.", _NETWORK),
    "timeout": Explanation(f"The provider took too long. {_NO_ANSWER}", _SEE_STATE),
    "connection_lost": Explanation(f"The line to the provider broke. {_NO_ANSWER}", _SEE_STATE),
    "client_closed": Explanation(f"Our worker was stopped while it waited. {_NO_ANSWER}", _SEE_STATE),
    "invalid_request": Explanation(
        "The message could not be put into a request, because of a character that does not belong in an address.",
        "Look at the address: a line break or a space was probably pasted into it. Have it registered again, and "
        + OTHER_CHANNEL,
    ),
}
"""What delivery.channels.transport can say. Each of them may also follow `dm_` or `token_`."""

OURS: Mapping[str, Explanation] = {
    "unreadable_answer": Explanation(
        "The provider said yes, but not in its usual form: a proxy may have answered in its place.", _SEE_STATE
    ),
    "address_unreadable": Explanation(
        "We hold this address encrypted under a key that is missing here. Nothing was sent.", ASK_OPERATORS
    ),
    "rendering_failed": Explanation(
        "The alert could not be put into words, because something in it is not as it should be. Nothing was sent.",
        ASK_OPERATORS,
    ),
    "internal_error": Explanation(
        "A fault of our own struck while it was being sent.", f"{_SEE_STATE} {ASK_OPERATORS}"
    ),
}
"""What delivery.deliver and delivery.channels.answers can say."""

REASONS: Mapping[str, Explanation] = {
    Reason.NO_PORTFOLIO: Explanation(
        "No quantity could be worked out: the follower's or the trader's portfolio value is missing.", _FIGURES
    ),
    Reason.BELOW_MIN_QTY: Explanation(
        "The follower's share is smaller than the smallest quantity that can be traded.", "Nothing: it is as intended."
    ),
    Reason.BELOW_MIN_NOTIONAL: Explanation(
        "The follower's order would be worth less than the smallest that can be placed.", "Nothing: it is as intended."
    ),
    Reason.CURRENCY_MISMATCH: Explanation(
        "The follower's portfolio is kept in another currency than the trade.", _FIGURES
    ),
    Reason.UNREADABLE_FIGURES: Explanation("The follower's stored figures cannot be read.", ASK_OPERATORS),
    Reason.SUPERSEDED_BY_EXIT: Explanation(
        "The trader left the position before this alert was sent, so it was withdrawn.",
        "Nothing: nobody should enter now.",
    ),
    Reason.VALIDITY_OVER: Explanation(
        "The alert was no longer worth acting on before it could be sent.",
        "It cannot be sent any more. Tell the follower if they ask, and resolve it with a note.",
    ),
    Reason.CHANNEL_OFF: Explanation(
        "This channel is not set up here: its credentials are missing.",
        f"{ASK_OPERATORS} Meanwhile, {OTHER_CHANNEL}",
    ),
    Reason.CHANNEL_OFF_BY_FOLLOWER: Explanation(
        "The follower has switched this channel off in their preferences.", AS_WISHED
    ),
    Reason.CRITICAL_ONLY: Explanation(
        "The follower wants only critical alerts on this channel, and this is none.", AS_WISHED
    ),
    Reason.MUTED: Explanation("The follower has muted this trader.", AS_WISHED),
    Reason.BELOW_MIN_VALUE: Explanation(
        "The follower's order would be worth less than the least value that they want to hear of.", AS_WISHED
    ),
    Reason.QUIET_HOURS: Explanation(
        "It is the follower's quiet hours. An alert waits for their end, or is skipped if it is not valid until then.",
        AS_WISHED,
    ),
    Reason.SMS_LEGAL_HOURS: Explanation(
        "No SMS may be sent at this hour where the follower lives. It waits for the morning, or is skipped if it is "
        "not valid until then.",
        f"Nothing: the law is kept. If it is urgent, {OTHER_CHANNEL}",
    ),
    Reason.SMS_DAILY_CAP: Explanation(
        "The follower has had as many SMS in their day as one person is sent (SMS_DAILY_CAP). Exits are never "
        "held back by it.",
        f"Nothing for this one: it is in their inbox. If it is urgent, {OTHER_CHANNEL} If it happens often, ask the "
        "operators whether the cap is right.",
    ),
    Reason.TEST_MODE: Explanation(
        "This system is in test mode: it sends only to the followers that its settings name.",
        "Nothing on a test system. On a real one, tell the operators at once: nobody is being sent anything.",
    ),
    Reason.FOLLOWER_ERASED: Explanation(
        "The follower was erased before this alert was sent.", "Nothing: nobody is left to tell."
    ),
    Reason.ENDPOINT_INACTIVE: Explanation(
        "The address was switched off, or went to another person, before the alert was sent.",
        f"Ask the follower to open the app, which registers the device again, or {OTHER_CHANNEL}",
    ),
    Reason.LEASE_LOST: Explanation(
        "Our worker died while it was sending. The alert is sent again, under the same key so that it shows once.",
        "Nothing as long as it is being sent.",
    ),
    Reason.CRASHED_IN_SEND: Explanation(
        "Our worker died while it was sending. The provider may have accepted the message just before.", _SEE_STATE
    ),
    Reason.NO_ANSWER: Explanation(
        "An attempt had no answer and may have arrived; a repeat could bring a second message, so none was sent.",
        _SEE_STATE,
    ),
    Reason.ATTEMPTS_EXHAUSTED: Explanation(
        "Every allowed attempt failed; the last one's own code says how.",
        "See the code of the last attempt below. " + WAIT_AND_RETRY,
    ),
}

OAUTH: Mapping[str, Explanation] = {
    "invalid_grant": Explanation(
        "Google refused the sign-in of our service account: its key was withdrawn, or our clock is wrong.",
        ASK_OPERATORS,
    ),
    "invalid_client": Explanation("Google does not know our service account.", ASK_OPERATORS),
}
"""The errors of Google's token endpoint that a person may meet, as they follow `token_`."""

_STATUSES: Mapping[str, Explanation] = {
    "401": Explanation("The provider refused our credentials.", ASK_OPERATORS),
    "403": Explanation("The provider does not allow us to do this.", ASK_OPERATORS),
    "404": Explanation("The provider does not know what the message names.", ASK_OPERATORS),
    "413": Explanation("The provider found the message too large.", ASK_OPERATORS),
    "429": Explanation("The provider asked us to slow down.", WAIT_AND_RETRY),
}
_CLASSES: Mapping[str, Explanation] = {
    "3": Explanation("Something else than the provider answers at its address.", ASK_OPERATORS),
    "4": Explanation("The provider refused the message.", f"{ASK_OPERATORS} Meanwhile, {OTHER_CHANNEL}"),
    "5": Explanation("The provider is in trouble.", WAIT_AND_RETRY),
}
_PREPARATIONS = {
    "token": "Google gave us no access token, so that nothing was sent.",
    "dm": "The private conversation on Discord could not be opened, so that nothing was sent.",
}
_HTTP = re.compile(r"http_(\d)(\d\d)")

STATES: Mapping[str, str] = {
    DeliveryState.FAILED: "It was not delivered.",
    DeliveryState.UNKNOWN: "Nobody knows whether it arrived.",
    DeliveryState.EXPIRED: "It was not sent in time.",
    DeliveryState.SKIPPED: "It was not sent.",
    DeliveryState.CANCELLED: "It was withdrawn before it was sent.",
    DeliveryState.QUEUED: "It is waiting to be sent.",
    DeliveryState.SENT: "The provider took it over.",
    DeliveryState.DELIVERED: "It arrived.",
}


def explain(channel: str, code: str) -> Explanation:
    """What a delivery's code means. A code that nobody has heard of yet is explained by what is certain about it."""
    return known(channel, code) or Explanation(
        f"The provider gave a code that is not in our tables ({code})." if code else "No reason was recorded.",
        "Its own words are shown beside it; look the code up in the provider's documentation. " + ASK_OPERATORS,
    )


def known(channel: str, code: str) -> Explanation | None:
    """The words for a code that stands in a table, or in a family of codes; None for any other."""
    shared = VENDOR_CODES.get(channel, {}).get(code) or TRANSPORT.get(code) or OURS.get(code) or REASONS.get(code)
    if shared is not None:
        return shared
    if match := _HTTP.fullmatch(code):
        return _STATUSES.get(match[1] + match[2]) or _CLASSES.get(match[1])
    return _prepared(code)


def _prepared(code: str) -> Explanation | None:
    """What failed before anything was sent: a token that was to be fetched, a conversation that was to be opened."""
    prefix, _, cause = code.partition("_")
    if prefix not in _PREPARATIONS or cause in OAUTH:
        return OAUTH.get(cause) if prefix == "token" else None
    is_passing = (
        cause.startswith("http_5") or cause == "http_429" or (cause in TRANSPORT and cause != "invalid_request")
    )
    return Explanation(_PREPARATIONS[prefix], _NETWORK if is_passing else ASK_OPERATORS)


def doubt(channel: str) -> str:
    """What to know before something is sent again of which nobody knows whether it arrived."""
    if channel in KEYED_CHANNELS:
        return "A retry is safe: it is sent under the same key, and the device shows it once."
    name = Channel(channel).label if channel in Channel.values else channel
    return f"A retry may bring a second message: {name} does not recognise a repeat. Ask the follower first if you can."
