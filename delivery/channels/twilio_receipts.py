"""Twilio's status callbacks: is one genuine, and what does it say?

Sources: twilio.com/docs: usage/webhooks/webhooks-security and webhooks-connection-overrides, api/errors,
messaging/guides/outbound-message-status-in-status-callbacks; the validator of github.com/twilio/twilio-node.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs, urlsplit, urlunsplit

from delivery.channels.answers import Verdict
from delivery.channels.base import Outcome
from delivery.channels.receipts import Receipt
from delivery.channels.twilio_sms import CODES as SEND_CODES

Parameters = Mapping[str, Sequence[str]]

ON_ITS_WAY = frozenset({"accepted", "scheduled", "queued", "sending", "sent"})
ARRIVED = frozenset({"delivered", "read"})
LOST = frozenset({"undelivered", "failed"})

CODES: Mapping[int, Verdict] = {
    30001: (Outcome.RETRY, "Twilio's queue for our sender was full"),
    30002: (Outcome.MISCONFIGURED, "Our account is suspended"),
    30003: (Outcome.RETRY, "The phone could not be reached"),
    30004: (Outcome.REFUSED, "The person or their carrier blocks our messages"),
    30005: (Outcome.DEAD, "The number is unknown or no longer in use"),
    30006: (Outcome.DEAD, "The number is a landline, or cannot get SMS"),
    30007: (Outcome.REFUSED, "The carrier filtered the message"),
    30008: (Outcome.RETRY, "The carrier did not deliver it and gave no reason"),
    30036: (Outcome.REFUSED, "The alert's validity ran out in Twilio's queue"),
    30500: (Outcome.RETRY, "Trouble inside Twilio"),
}
"""Why an accepted message did not arrive. What else can be refused at once, a messaging service refuses later, under
the codes of the answers; 20429 then was never processed either, and is tried again."""

DEFAULT_PORTS = {"https": 443, "http": 80}


def receipt(parameters: Parameters) -> Receipt | None:
    """A callback's parameters as a receipt; None for a status that says nothing about our message."""
    status = _first(parameters, "MessageStatus") or _first(parameters, "SmsStatus")
    sid = _first(parameters, "MessageSid") or _first(parameters, "SmsSid")
    if status in ON_ITS_WAY:
        return Receipt(Outcome.SENT, status, provider_message_id=sid)
    if status in ARRIVED:
        return Receipt(Outcome.DELIVERED, status, provider_message_id=sid)
    if status == "canceled":
        return Receipt(Outcome.REFUSED, status, "canceled", "It was cancelled at Twilio", sid)
    if status not in LOST:
        return None
    code = _first(parameters, "ErrorCode")
    outcome, reason = _verdict(code)
    return Receipt(outcome, status, code[:64] if code.isascii() and code.isdigit() else status, reason, sid)


def _verdict(code: str) -> Verdict:
    number = int(code) if code.isascii() and code.isdigit() else 0
    outcome, reason = CODES.get(number) or SEND_CODES.get(number) or (Outcome.REFUSED, "Twilio could not deliver it")
    return (Outcome.RETRY if outcome is Outcome.THROTTLED else outcome), reason


def _first(parameters: Parameters, name: str) -> str:
    values = parameters.get(name)
    return values[0] if values else ""


def is_genuine(signature: str, auth_token: str, url: str, parameters: Parameters, body: bytes) -> bool:
    """Whether X-Twilio-Signature was made with our token over this request.

    Parameters:
      url: The address that Twilio was given, with its query and without a fragment.
      parameters: Every parameter of a form, untrimmed, empty ones too; empty for any other body, whose SHA-256 Twilio
        puts into the query as bodySHA256.
    """
    digest = parse_qs(urlsplit(url).query).get("bodySHA256")
    if digest is not None:
        if not hmac.compare_digest(digest[0].lower().encode(), hashlib.sha256(body).hexdigest().encode()):
            return False
        parameters = {}
    given = signature.encode()
    # Twilio signs sometimes with the port and sometimes without. Every form is compared, whichever fits.
    fits = [hmac.compare_digest(given, signature_of(form, auth_token, parameters)) for form in _forms(url)]
    return any(fits)


def signature_of(url: str, auth_token: str, parameters: Parameters) -> bytes:
    """Base64 of HMAC-SHA1 over the address and the sorted parameters, name and value joined without separators.

    A parameter that comes more than once counts with each of its different values.
    """
    signed = url + "".join(name + value for name in sorted(parameters) for value in sorted(set(parameters[name])))
    return base64.b64encode(hmac.new(auth_token.encode(), signed.encode(), hashlib.sha1).digest())


def _forms(url: str) -> list[str]:
    """The address as it is, without its port, and with the port that its scheme implies."""
    parts = urlsplit(url)
    host = parts.netloc
    bare = host if parts.port is None else host[: host.rindex(":")]
    implied = f"{bare}:{DEFAULT_PORTS.get(parts.scheme, 443)}"
    return [urlunsplit(parts._replace(netloc=netloc)) for netloc in dict.fromkeys((host, bare, implied))]
