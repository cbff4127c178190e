"""HTTP to the vendors: one client a channel, pooled persistent connections, and one honest question answered:
when no answer came, can the request have arrived?

The client's exception types do not answer it: it raises ConnectError for a connection that was reset after the body
went out, and ConnectTimeoutError when the answer is late. Its list of causes does: hyper names the connecting phase
`client error (Connect)`, and only that, the wait for a free connection, and HTTP/2's own "never processed" (RFC 9113,
8.7: REFUSED_STREAM) prove that nothing was sent. Everything else is in doubt.

The library repeats a request by itself in two cases only, both safe: a pooled connection turned out to be closed
before a byte was written, and HTTP/2 said that the stream was never processed (REFUSED_STREAM, or a graceful GOAWAY
below it). Redirects are off: a vendor's API has none, and following one would carry a secret to another host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from ipaddress import ip_address
from urllib.parse import urlsplit

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import (
    ClientClosedError,
    DetailedPyreqwestError,
    PoolTimeoutError,
    PyreqwestError,
    RequestTimeoutError,
)

from delivery.channels.policy import ChannelPolicy

USER_AGENT = "NotifyHub/1.0"
IDLE_SECONDS = 30.0
"""An idle HTTP/1.1 connection is closed before the vendor's side closes it (60 s is common), because a request that
meets the closing is in doubt."""
PING_SECONDS, PING_ANSWER_SECONDS = 10.0, 5.0
"""HTTP/2 pings, to notice a connection that died without a word. Until then every request is written onto it and ends
without an answer, and one connection carries all of APNs: a minute of that is most of what an alert has."""


class HttpVersion(Enum):
    """What is spoken to a vendor."""

    HTTP1 = "1.1"  # A lost connection leaves one request in doubt: for vendors without an idempotency key.
    NEGOTIATED = "1.1 or 2"  # Over TLS whatever ALPN gives: fewer connections.
    HTTP2 = "2"  # One connection for everything, as APNs demands.


@dataclass(frozen=True, slots=True)
class Request:
    """A POST, ready to go. Header names are lower case."""

    url: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """A complete answer. `headers` looks names up without regard to case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class TransportError(Exception):
    """No answer. Its text is a code of ours and never carries an address: URLs may be secrets."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class NeverSentError(TransportError):
    """The request certainly did not reach the vendor: it may be repeated."""


class NoAnswerError(TransportError):
    """The request, or part of it, went out, and no complete answer came back: the vendor may have accepted it."""


class InvalidRequestError(TransportError):
    """The request cannot be put into HTTP, by a line break in a header for instance; nothing was sent."""


class HttpClient:
    """The pooled connections of one channel. Create it in the running loop; `close` ends requests under way."""

    def __init__(
        self,
        base_url: str,
        *,
        policy: ChannelPolicy,
        version: HttpVersion = HttpVersion.HTTP1,
        extra_root_pem: bytes | None = None,
    ) -> None:
        builder = (
            ClientBuilder()
            .user_agent(USER_AGENT)
            .follow_redirects(False)
            .referer(False)
            # Answers are some hundred bytes; asking for compression costs more than it saves.
            .gzip(False).brotli(False).zstd(False).deflate(False)
            # Ends before the total: a timeout while connecting is known to have sent nothing, the total timeout is not.
            .connect_timeout(timedelta(seconds=min(policy.connect_timeout_seconds, policy.timeout_seconds / 2)))
            .read_timeout(timedelta(seconds=policy.read_timeout_seconds))
            .max_connections(policy.concurrency)
        )  # fmt: skip
        if is_loopback(base_url):
            builder = builder.no_proxy()
        if extra_root_pem is not None:
            builder = builder.add_root_certificate_pem(extra_root_pem)
        self._client: Client = _with_version(builder, version).build()

    async def post(self, request: Request, timeout_seconds: float) -> Response:
        """Post, and wait at most `timeout_seconds` for the whole answer, a free connection included.

        Raises NeverSentError, NoAnswerError or InvalidRequestError.
        """
        if timeout_seconds <= 0:
            raise NeverSentError("timeout_before_send")
        try:
            response = await (
                self._client.post(request.url)
                .headers(request.headers)
                .body_bytes(request.body)
                .timeout(timedelta(seconds=timeout_seconds))
                .build()
                .send()
            )
            return Response(response.status, response.headers, bytes(await response.bytes()))
        # `from None`: the library's text names the URL, which may be a secret (a webhook, a device token).
        except ValueError:
            raise InvalidRequestError("invalid_request") from None
        except PyreqwestError as error:
            raise _translated(error) from None

    async def close(self) -> None:
        """Close every connection; requests under way end without an answer."""
        await self._client.close()


def is_loopback(url: str) -> bool:
    """Whether the URL names this machine; the system's proxy settings never apply to it."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _with_version(builder: ClientBuilder, version: HttpVersion) -> ClientBuilder:
    """Settings that differ between one connection for everything and one for each request under way."""
    if version is HttpVersion.HTTP1:
        return builder.http1_only().pool_idle_timeout(timedelta(seconds=IDLE_SECONDS))
    builder = builder.http2_keep_alive_interval(timedelta(seconds=PING_SECONDS))
    builder = builder.http2_keep_alive_timeout(timedelta(seconds=PING_ANSWER_SECONDS))
    if version is HttpVersion.NEGOTIATED:
        return builder.http2(True).pool_idle_timeout(timedelta(seconds=IDLE_SECONDS))
    # With prior knowledge, requests that start together share one connection; after a plain negotiation each of them
    # would open its own. The connection stays open while idle, as Apple asks.
    return builder.http2_prior_knowledge().pool_idle_timeout(None).http2_keep_alive_while_idle(True)


def _translated(error: PyreqwestError) -> TransportError:
    """Which of the two it was. In doubt, the request is taken for sent."""
    causes = _causes(error)
    timed_out = isinstance(error, RequestTimeoutError)
    if isinstance(error, PoolTimeoutError):
        return NeverSentError("no_free_connection")
    if "client error (Connect)" in causes:
        return NeverSentError("connect_timeout" if timed_out else "connect_error")
    if any("refused stream before processing" in cause for cause in causes):
        return NeverSentError("refused_stream")
    if timed_out:
        return NoAnswerError("timeout")
    return NoAnswerError("client_closed" if isinstance(error, ClientClosedError) else "connection_lost")


def _causes(error: PyreqwestError) -> list[str]:
    if not isinstance(error, DetailedPyreqwestError):
        return []
    return [cause["message"] for cause in error.details.get("causes") or ()]
