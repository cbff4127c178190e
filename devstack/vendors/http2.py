"""An HTTP/2 server over TLS on the `h2` package, with the stream limit that APNs keeps.

RFC 9113; APNs: until a first request with a valid provider token only one stream is allowed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import unquote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RequestReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from devstack.vendors.messages import Ending, Reply, Request, Service, Session

MAX_BODY_BYTES = 64 * 1024  # Far beyond APNs' 5 KiB: enough to be answered 413, too little to fill the memory.
PURGE_EVERY = 256

# What h2 would check of header names and their order, the clients in question cannot get wrong; the checks cost a
# quarter of each request. What is in the headers, the vendor checks.
CONFIGURATION = H2Configuration(
    client_side=False, header_encoding=None, validate_inbound_headers=False, validate_outbound_headers=False
)


class StreamCountingConnection(H2Connection):
    """Counts its open streams itself.

    h2 walks over every stream for each request it receives, which is quadratic with a thousand in parallel. And it
    would fail the whole connection of a client that opened several streams before it could know of the limit;
    so the limit counts only once the client has acknowledged it (RFC 9113, 6.5.3).
    """

    def __init__(self, first_limit: int) -> None:
        super().__init__(CONFIGURATION)
        self.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: first_limit,
                SettingCodes.MAX_HEADER_LIST_SIZE: 16 * 1024,
            },
        )
        self.open_streams = 0
        self.limit_acknowledged = False
        self._asked = 0

    @property
    def open_inbound_streams(self) -> int:
        self._asked += 1
        if self._asked % PURGE_EVERY == 0:
            super().open_inbound_streams  # noqa: B018 - reading it is how h2 forgets closed streams.
        return self.open_streams if self.limit_acknowledged else 0


@dataclass(slots=True)
class Stream:
    """One request on its way in, or its answer on its way out."""

    headers: list[tuple[bytes, bytes]]
    body: bytearray = field(default_factory=bytearray)
    handled: bool = False
    timer: asyncio.TimerHandle | None = None
    unsent: bytes | None = None  # What the client's flow control window had no room for.


class Http2Connection(asyncio.Protocol):
    """One client connection with many streams. What is written within one turn of the loop leaves together."""

    def __init__(self, service: Service, connections: set[Http2Connection]) -> None:
        self._service = service
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._session = Session()
        self._announced = self._session.max_streams
        self._http2 = StreamCountingConnection(self._announced)
        self._streams: dict[int, Stream] = {}
        self._flush_planned = False
        self._winding_up = False
        self._transport: asyncio.Transport | None = None

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        self._service.connection_opened()
        tls = transport.get_extra_info("ssl_object")
        if tls is None or tls.selected_alpn_protocol() != "h2":
            self._transport.close()
            return
        self._http2.initiate_connection()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._connections.discard(self)
        for stream_id in list(self._streams):
            self._forget(stream_id)
        self._service.connection_closed()

    def data_received(self, data: bytes) -> None:
        try:
            for event in self._http2.receive_data(data):
                self._take(event)
        except ProtocolError:
            self._flush()  # h2 has put the GOAWAY that explains it into its output.
            self.close_gracefully()
            return
        self._plan_flush()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def close_gracefully(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # What the client does.

    def _take(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            self._streams[event.stream_id] = Stream(event.headers)
            self._http2.open_streams += 1
        elif isinstance(event, DataReceived):
            self._take_data(event)
        elif isinstance(event, StreamEnded):
            self._begin(event.stream_id)
        elif isinstance(event, WindowUpdated):
            self._send_unsent()
        elif isinstance(event, StreamReset):
            self._forget(event.stream_id)
        elif isinstance(event, SettingsAcknowledged):
            self._http2.limit_acknowledged = True
        elif isinstance(event, ConnectionTerminated):
            self.close_gracefully()

    def _take_data(self, event: DataReceived) -> None:
        # The padding counts for flow control too, hence the frame's own length.
        self._http2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
        stream = self._streams.get(event.stream_id)
        if stream is not None and len(stream.body) <= MAX_BODY_BYTES:
            stream.body += event.data or b""

    # What the service answers.

    def _begin(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if self._winding_up:
            self._reset(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        stream.handled = True
        reply = self._service.handle(self._request(stream))
        if self._session.max_streams != self._announced:
            self._announced = self._session.max_streams
            self._http2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: self._announced})
        if reply.ending is Ending.HANG:
            return
        if reply.delay_seconds > 0:
            stream.timer = self._loop.call_later(reply.delay_seconds, self._answer, stream_id, reply)
        else:
            self._answer(stream_id, reply)

    def _request(self, stream: Stream) -> Request:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in stream.headers}
        path, _, query = headers.pop(":path", "").partition("?")
        return Request(
            method=headers.pop(":method", ""),
            path=unquote(path) if "%" in path else path,
            query=query,
            headers=headers,
            body=bytes(stream.body),
            session=self._session,
        )

    def _answer(self, stream_id: int, reply: Reply) -> None:
        stream = self._streams.get(stream_id)
        if stream is None or self._transport is None or self._transport.is_closing():
            return
        if reply.ending is Ending.RESET:
            self._transport.abort()
        elif reply.ending is Ending.RESET_STREAM:
            self._reset(stream_id, ErrorCodes.INTERNAL_ERROR)
        elif reply.ending is Ending.GO_AWAY:
            self._go_away(stream_id, reply.body)
        else:
            headers = [(":status", str(reply.status)), *reply.headers]
            if reply.body:
                headers.append(("content-length", str(len(reply.body))))
            self._http2.send_headers(stream_id, headers, end_stream=not reply.body)
            stream.unsent = reply.body or None
            if stream.unsent is None or self._send_body(stream_id, stream):
                self._forget(stream_id)
        self._plan_flush()

    def _send_body(self, stream_id: int, stream: Stream) -> bool:
        """Send what the client's window has room for; true once the whole body is on its way."""
        body = stream.unsent or b""
        while body:
            room = min(self._http2.local_flow_control_window(stream_id), self._http2.max_outbound_frame_size)
            if room <= 0:
                stream.unsent = body
                return False
            self._http2.send_data(stream_id, body[:room], end_stream=len(body) <= room)
            body = body[room:]
        stream.unsent = None
        return True

    def _send_unsent(self) -> None:
        waiting = [(i, stream) for i, stream in self._streams.items() if stream.unsent is not None]
        for stream_id, stream in waiting:
            if self._send_body(stream_id, stream):
                self._forget(stream_id)

    def _reset(self, stream_id: int, error: ErrorCodes) -> None:
        self._http2.reset_stream(stream_id, error)
        self._forget(stream_id)
        self._plan_flush()

    def _go_away(self, stream_id: int, reason: bytes) -> None:
        """Refuse this stream and every later one, let the earlier ones finish, then close (RFC 9113, 6.8)."""
        later = [i for i in self._streams if i >= stream_id]
        self._winding_up = True
        # h2 lets nothing more be sent after its own close_connection, so the frame is written beside it.
        self._flush()
        if self._transport is not None:
            self._transport.write(goaway_frame(stream_id - 2, reason))
        for refused in later:
            self._forget(refused)
        if not self._streams:
            self.close_gracefully()

    def _forget(self, stream_id: int) -> None:
        stream = self._streams.pop(stream_id, None)
        if stream is None:
            return
        self._http2.open_streams -= 1
        if stream.timer is not None:
            stream.timer.cancel()
        if stream.handled:
            self._service.finished()
        if self._winding_up and not self._streams:
            self._loop.call_soon(self.close_gracefully)

    # Writing.

    def _plan_flush(self) -> None:
        if not self._flush_planned:
            self._flush_planned = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_planned = False
        data = self._http2.data_to_send()
        if data and self._transport is not None:
            self._transport.write(data)


def goaway_frame(last_stream_id: int, reason: bytes) -> bytes:
    """A GOAWAY frame without an error whose debug data is APNs' JSON `{"reason": …}`."""
    payload = max(0, last_stream_id).to_bytes(4, "big") + int(ErrorCodes.NO_ERROR).to_bytes(4, "big") + reason
    return len(payload).to_bytes(3, "big") + b"\x07\x00" + b"\x00" * 4 + payload
