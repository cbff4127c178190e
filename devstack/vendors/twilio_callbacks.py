"""Twilio's status callbacks, as in its guide "Outbound message status in status callbacks".

The signature: docs/usage/webhooks/webhooks-security. A callback's parameters: the guide's and the Message resource's.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import urldefrag, urlencode

from devstack.vendors.messages import words
from devstack.vendors.receipts import Receipt

USUAL = ("sent", "delivered")
STATUSES = words("accepted queued sending sent delivered undelivered failed read canceled")


def status_callback(word: str, form: Mapping[str, str], sid: str, account_sid: str, auth_token: str) -> Receipt:
    """The request for one status.

    Parameters:
      word: A status, with an error code where it has one: `delivered`, `undelivered:30003`.
      form: The message as the client sent it, with its StatusCallback.
    """
    status, _, code = word.partition(":")
    sender = {name: form[name] for name in ("From", "MessagingServiceSid") if name in form}
    fields = {
        "AccountSid": account_sid,
        "ApiVersion": "2010-04-01",
        "MessageSid": sid,
        "MessageStatus": status,
        "SmsSid": sid,
        "SmsStatus": status,
        "To": form["To"],
        **sender,
        **({"ErrorCode": code} if code else {}),
    }
    url = urldefrag(form["StatusCallback"]).url
    signed = url + "".join(f"{name}{fields[name]}" for name in sorted(fields))
    signature = base64.b64encode(hmac.digest(auth_token.encode(), signed.encode(), hashlib.sha1)).decode()
    headers = (
        ("content-type", "application/x-www-form-urlencoded; charset=UTF-8"),
        ("user-agent", "TwilioProxy/1.1"),
        ("x-twilio-signature", signature),
    )
    return Receipt(word, url, headers, urlencode(fields).encode())
