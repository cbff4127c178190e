"""What vendors tell us later about a message that they took over, in our words.

A receipt finds its delivery by a reference of our own that the vendor gives back: in the address of Twilio's status
callback, in the name of OneSignal's message. No index on the vendors' ids is needed, and a receipt that is quicker than
our own record finds its delivery all the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from bson import ObjectId

from delivery.channels.base import Outcome


@dataclass(frozen=True, slots=True)
class Reference:
    """One attempt at one delivery. The batch tells attempts apart: it sends a notification at most once."""

    notification: ObjectId
    endpoint: ObjectId
    batch: ObjectId

    def __str__(self) -> str:
        return f"{self.notification}/{self.endpoint}/{self.batch}"


def parse_reference(text: str) -> Reference | None:
    """A reference as it was given out; None for anything else."""
    parts = text.split("/")
    if len(parts) != 3 or not all(len(part) == 24 and ObjectId.is_valid(part) for part in parts):
        return None
    return Reference(*(ObjectId(part) for part in parts))


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a vendor says of one message.

    Parameters:
      outcome: SENT (on its way), DELIVERED, or why it did not arrive: REFUSED, RETRY, DEAD, MISCONFIGURED.
      status: The vendor's own word: `undelivered`, `message.push.failed`, …
      code: For the delivery's error_code; empty if it arrived or is on its way.
      message: Our reason, at most 500 characters, without addresses.
      provider_message_id: The vendor's id of the message; empty where the vendor left it out.
    """

    outcome: Outcome
    status: str
    code: str = ""
    message: str = ""
    provider_message_id: str = ""
