"""What every channel shares: the message it is given, the result it gives back, and the way from one to the other."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

import followers.choices
from delivery.channels.policy import ChannelPolicy
from delivery.channels.transport import HttpClient, InvalidRequestError, NeverSentError, NoAnswerError, Request
from notifications.choices import Reason


class Outcome(StrEnum):
    """What became of one attempt to send. The vendors' tables translate into these words."""

    SENT = "sent"  # The vendor took it over.
    DELIVERED = "delivered"  # It arrived; only a receipt says so.
    RETRY = "retry"  # A passing trouble; certainly not accepted, or safe to repeat under the same key.
    THROTTLED = "throttled"  # The vendor asks us to wait; no attempt is spent.
    REFUSED = "refused"  # This message will never be accepted; the address is fine.
    DEAD = "dead"  # This address will never accept anything again.
    MISCONFIGURED = "misconfigured"  # Our credentials or set-up; a person must look. Waits like RETRY.
    UNKNOWN = "unknown"  # The body went out and no answer came back: perhaps accepted.
    EXPIRED = "expired"  # Its validity was over before the attempt; nothing was sent.


@dataclass(frozen=True, slots=True)
class Message:
    """One alert for one endpoint, ready to be rendered into a vendor's request."""

    key: str  # Stable for (notification, endpoint): 24 lower-case hex characters. The vendor's idempotency,
    # collapse or nonce field is made from it, so that a repeat is seen once.
    address: str  # Decrypted: push token, E.164 number, webhook URL, Discord user id, subscription id.
    title: str  # Plain text, one line.
    body: str  # Plain text.
    data: Mapping[str, str]  # For the app: notification_id, event_id, symbol, side, suggested_qty, …
    critical: bool  # Priority is critical: sent with the vendor's highest urgency.
    expires_at: datetime  # Aware UTC; the vendor is given the time that remains.
    platform: str = ""  # ios, android, web or empty.
    environment: str = "production"  # production or sandbox (APNs).
    app: str = ""  # Bundle id or app name where an endpoint names one; empty = the configured default.
    endpoint_updated_at: datetime | None = None  # When the address was last registered (APNs 410 compares).
    reference: str = ""  # delivery.channels.receipts.Reference: comes back in the vendor's receipts.


@dataclass(frozen=True, slots=True)
class Result:
    """The answer to one attempt, in our words and the vendor's."""

    outcome: Outcome
    code: str = ""  # The vendor's own code where it has one, else `http_503`, `timeout`, `connect_error`, …
    message: str = ""  # The vendor's words, at most 500 characters, without tokens or numbers.
    provider_message_id: str = ""
    retry_after_seconds: float | None = None  # As the vendor asked; outranks the backoff.
    latency_seconds: float = 0.0  # Attempt start to answer.
    extra: Mapping[str, str] = field(default_factory=dict)  # `throttled`: `endpoint` or `channel`, where the vendor
    # says what must wait; `hold_seconds`: how long this address must be left alone after an alert that was accepted.

    def after(self, latency_seconds: float) -> Result:
        """The same answer with its latency. Without dataclasses.replace, which looks every field up anew."""
        return Result(
            self.outcome,
            self.code,
            self.message,
            self.provider_message_id,
            self.retry_after_seconds,
            latency_seconds,
            self.extra,
        )


class Channel(ABC):
    """A vendor. The sequence of a send is here; a vendor's file holds its request and its table of answers."""

    name: ClassVar[followers.choices.Channel]
    key_window_seconds: ClassVar[float | None] = None
    """How long the vendor remembers a key; None = for as long as an alert can live."""
    min_validity_seconds: ClassVar[float] = 0.0
    """A message that is valid for less than this cannot be sent without outliving its validity."""

    suspect_codes: ClassVar[frozenset[str]] = frozenset()
    """Codes of DEAD that a mistake of ours gives for every address: a wave of them is no dead address."""

    partial_codes: ClassVar[frozenset[str]] = frozenset()
    """Codes of MISCONFIGURED that are about some of our addresses only, and not about our account."""

    reconnect_codes: ClassVar[frozenset[str]] = frozenset()
    """Answers about the connection they came over: the next request takes a new one."""

    def __init__(self, policy: ChannelPolicy) -> None:
        self.policy = policy
        self._http: HttpClient | None = None

    async def open(self) -> None:
        """Set the connection pool up, in the running loop. Nothing is sent yet."""
        if self._http is None:
            self._http = self.new_client()

    async def close(self) -> None:
        """Close the pool. Sends under way end as UNKNOWN: wait for them first."""
        client, self._http = self._http, None
        if client is not None:
            await client.close()

    async def send(self, message: Message, now: datetime) -> Result:
        """One attempt, over within the policy's timeout. Raises nothing for what the network or the vendor does.

        The caller bounds the number of concurrent sends by `policy.concurrency`; what goes beyond that waits for a
        connection within the same timeout, and ends as RETRY if it gets none.
        """
        started = time.perf_counter()
        result = await self._attempt(message, now)
        return result.after(time.perf_counter() - started)

    @property
    @abstractmethod
    def account(self) -> str:
        """Who we are to the vendor, without any secret. Workers share a breaker and a rate for each account."""

    @abstractmethod
    def keyed(self, message: Message) -> bool:
        """Whether a repeat under the same key reaches the person only once (inside `key_window_seconds`)."""

    @abstractmethod
    def new_client(self) -> HttpClient:
        """The channel's connection pool."""

    @abstractmethod
    def request(self, message: Message, now: datetime) -> Request:
        """The vendor's request. Never raises for what is stored: `prepare` turns away what cannot be expressed."""

    @abstractmethod
    def classify(self, status: int, headers: Mapping[str, str], body: bytes, message: Message) -> Result:
        """The vendor's answer in our words. Never raises, whatever the vendor sent."""

    async def prepare(self, message: Message, now: datetime, deadline: float) -> Result | None:
        """Fetch what the request needs, an access token for instance, until `deadline` (of time.monotonic).

        Returns a result if that failed and nothing can be sent.
        """
        return None

    def recover(self, request: Request, result: Result, message: Message, now: datetime) -> bool:
        """Called after every refusal: whether something of ours was stale, is renewed, and one repeat makes sense."""
        return False

    @property
    def http(self) -> HttpClient:
        """The open pool. Raises RuntimeError before `open` and after `close`."""
        if self._http is None:
            raise RuntimeError(f"The {self.name} channel is not open.")
        return self._http

    async def _attempt(self, message: Message, now: datetime) -> Result:
        """Validity, preparation, exchange; once more if the answer was about something stale of ours."""
        if (message.expires_at - now).total_seconds() <= self.min_validity_seconds:
            return Result(Outcome.EXPIRED, code=Reason.VALIDITY_OVER.value, message=str(Reason.VALIDITY_OVER.label))
        deadline = time.monotonic() + self.policy.timeout_seconds
        prevented = await self.prepare(message, now, deadline)
        if prevented is not None:
            return prevented
        request = self.request(message, now)
        result = await self._exchange(request, message, deadline)
        if result.outcome is Outcome.SENT or not self.recover(request, result, message, now):
            return result
        prevented = await self.prepare(message, now, deadline)
        if prevented is not None:
            return prevented
        return await self._exchange(self.request(message, now), message, deadline)

    async def _exchange(self, request: Request, message: Message, deadline: float) -> Result:
        http = self.http
        try:
            response = await http.post(request, deadline - time.monotonic())
        except NeverSentError as error:
            return Result(Outcome.RETRY, code=error.code, message="The vendor was not reached.")
        except NoAnswerError as error:
            return Result(Outcome.UNKNOWN, code=error.code, message=str(Reason.NO_ANSWER.label))
        except InvalidRequestError as error:
            return Result(Outcome.REFUSED, code=error.code, message="The message cannot be put into a request.")
        result = self.classify(response.status, response.headers, response.body, message)
        if result.code in self.reconnect_codes and self._http is http:
            # Hundreds of streams may get this answer at once: only the first of them replaces the pool. What is under
            # way ends on the old one, which is closed when its last request lets go of it.
            self._http = self.new_client()
        return result
