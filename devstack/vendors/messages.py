"""What travels between a server, a vendor and the recorder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import orjson

Headers = tuple[tuple[str, str], ...]


def words(text: str) -> frozenset[str]:
    """The words of a long enumeration, which read better in a line than one to a line."""
    return frozenset(text.split())


JSON_HEADERS: Headers = (("content-type", "application/json"),)


@dataclass(slots=True)
class Session:
    """What a vendor remembers of one connection."""

    max_streams: int = 1  # HTTP/2 only: how many streams the client may open; the server announces a change.
    token: str = ""  # APNs: the provider token last seen on this connection.
    token_since: float = 0.0  # Epoch seconds at which that token was first seen here.


@dataclass(slots=True)
class Request:
    """One complete HTTP request."""

    method: str
    path: str  # Percent-decoded, without the query.
    query: str
    headers: dict[str, str]  # Names in lower case, values as Latin-1: a character is a byte. Of a repeat the last.
    body: bytes
    session: Session


class Ending(StrEnum):
    """How the exchange ends on the wire."""

    ANSWER = "answer"
    HANG = "hang"  # No answer, the connection stays open.
    RESET = "reset"  # The connection is dropped, with every stream on it.
    RESET_STREAM = "reset_stream"  # HTTP/2: this stream alone is reset; HTTP/1.1 has none, so as RESET.
    GO_AWAY = "go_away"  # HTTP/2: the request was not processed and the server winds the connection up.


@dataclass(slots=True)
class Reply:
    """One HTTP answer and when to give it."""

    status: int
    body: bytes = b""
    headers: Headers = JSON_HEADERS
    delay_seconds: float = 0.0
    ending: Ending = Ending.ANSWER
    message_id: str = ""  # Of a message that was taken over just now; the vendor may tell of it later.
    begin: Callable[[Callable[[], None]], None] | None = None  # Called with the answering, in place of a delay.

    @classmethod
    def json(cls, status: int, content: Any, headers: Headers = ()) -> Reply:
        return cls(status, orjson.dumps(content), JSON_HEADERS + headers)


class RefusedError(Exception):
    """A request that the vendor does not accept, with the vendor's own code and answer."""

    def __init__(self, code: str, reply: Reply) -> None:
        super().__init__(code)
        self.code = code
        self.reply = reply


class Repeat(StrEnum):
    """What the vendor does with a second message of the same identity."""

    SHOWN = "shown"  # It has no key: the person sees both.
    REPLACED = "replaced"  # The later one takes the place of the earlier: the person sees one.
    REPLAYED = "replayed"  # The vendor gives the first answer again and sends nothing.


@dataclass(slots=True)
class Message:
    """One message for one address, understood and found valid."""

    address: str
    content: bytes  # What the person would see, in one canonical form: two equal contents look the same.
    body: dict[str, Any]  # The decoded request.
    headers: dict[str, str] = field(default_factory=dict)  # Those that matter; never credentials.
    key: str = ""  # The vendor's idempotency, collapse or nonce field; empty if none was sent.
    repeat: Repeat = Repeat.SHOWN
    identity: str = ""  # Two messages of the same identity are one to the vendor; needed unless `repeat` is SHOWN.
    given_id: str = ""  # The message's id, where the client chooses it.
    replay_seconds: float = float("inf")  # How long the vendor remembers an identity that it replays.


@dataclass(slots=True)
class Call:
    """A valid request: either messages to send, or an answer that is ready (an OAuth token, a channel)."""

    route: str  # `send`, `token`, `open_dm`: rules match on it.
    address: str
    session: Session
    messages: list[Message] = field(default_factory=list)  # More than one share one key.
    silent: bool = False  # Discord: the client wants no message object back.
    answer: Reply | None = None


class Service(Protocol):
    """What a server needs of the thing it serves."""

    def connection_opened(self) -> None: ...

    def connection_closed(self) -> None: ...

    def handle(self, request: Request) -> Reply:
        """Answer one request; `finished` follows exactly once for each."""

    def finished(self) -> None:
        """The answer went out, or the connection that waited for it is gone."""
