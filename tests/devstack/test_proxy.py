"""The proxy against a plain echo server: each fault as a client and the server behind it see it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from devstack.proxy import Faults, Proxy

TIMEOUT_SECONDS = 10
SILENCE_SECONDS = 0.3


class Echo:
    """Answers what it gets, and remembers it."""

    def __init__(self) -> None:
        self.received = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(4096):
                    self.received += data
                    connection.sendall(data)
            except ConnectionResetError:
                return

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.port, seed=1) as running:
        yield running


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), TIMEOUT_SECONDS)


def ask(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    return client.recv(4096)


def test_without_faults_bytes_and_ends_pass_both_ways(proxy: Proxy) -> None:
    with connect(proxy) as client:
        assert ask(client, b"hello") == b"hello"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""


def test_latency_delays_each_way(proxy: Proxy) -> None:
    proxy.set(Faults(latency_seconds=0.15, jitter_seconds=0.05))
    with connect(proxy) as client:
        began = time.monotonic()
        assert ask(client, b"hello") == b"hello"
        assert time.monotonic() - began >= 0.3


def test_latency_holds_up_no_chunk_behind_another(proxy: Proxy) -> None:
    proxy.set(Faults(latency_seconds=0.3))
    with connect(proxy) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        began = time.monotonic()
        for _ in range(20):
            client.sendall(b"x")
            time.sleep(0.01)  # So that each is a chunk of its own.
        answered = b""
        while len(answered) < 20:
            answered += client.recv(4096)
        assert time.monotonic() - began < 20 * 0.3  # One behind the other they would take 12 s.


def test_reset_reaches_the_client_as_rst(proxy: Proxy, echo: Echo) -> None:
    proxy.set(Faults(reset_chance=1.0))
    with connect(proxy) as client, pytest.raises(ConnectionResetError):
        ask(client, b"hello")
    assert (proxy.resets, echo.received) == (1, b"")


def test_resets_follow_from_the_seed(echo: Echo) -> None:
    def survivors(seed: int) -> list[bool]:
        passed = []
        with Proxy(echo.port, seed=seed) as proxy:
            proxy.set(Faults(reset_chance=0.3))
            for _ in range(20):
                try:
                    with connect(proxy) as client:
                        passed.append(ask(client, b"x") == b"x")
                except ConnectionResetError:
                    passed.append(False)
        return passed

    first = survivors(7)
    assert first == survivors(7)
    assert {True, False} == set(first)
    assert first != survivors(8)


def test_half_open_connection_takes_everything_and_answers_nothing(proxy: Proxy, echo: Echo) -> None:
    with connect(proxy) as before:
        assert ask(before, b"a") == b"a"
        proxy.set(Faults(silent=True))
        with connect(proxy) as client:
            client.settimeout(SILENCE_SECONDS)
            for each in (before, client):
                each.settimeout(SILENCE_SECONDS)
                with pytest.raises(TimeoutError):
                    ask(each, b"lost")
        assert (echo.received, proxy.silenced) == (b"a", 2)
        proxy.set(Faults())
        with pytest.raises(TimeoutError):  # What is missing never comes, so the connection never recovers.
            ask(before, b"b")
        with connect(proxy) as client:
            assert ask(client, b"c") == b"c"


def test_goes_silent_after_so_many_bytes(proxy: Proxy) -> None:
    proxy.set(Faults(silent_after_bytes=8))
    with connect(proxy) as client:
        assert ask(client, b"12345678"[:4]) == b"1234"
        client.settimeout(SILENCE_SECONDS)
        with pytest.raises(TimeoutError):
            ask(client, b"5678")


def test_refusing_ends_what_is_open_and_comes_back_on_its_port(proxy: Proxy) -> None:
    with connect(proxy) as client:
        assert ask(client, b"a") == b"a"
        proxy.set(Faults(refuses=True))
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.set(Faults())
    with connect(proxy) as client:
        assert ask(client, b"b") == b"b"


def test_open_connections_can_be_reset_at_once(proxy: Proxy) -> None:
    with connect(proxy) as one, connect(proxy) as two:
        for each in (one, two):
            assert ask(each, b"a") == b"a"
        assert proxy.connections == 2
        assert proxy.reset_all() == 2
        for each in (one, two):
            with pytest.raises(ConnectionResetError):
                each.recv(1)


def test_server_that_is_gone_looks_gone(echo: Echo, proxy: Proxy) -> None:
    proxy.target_port = free_port()
    with pytest.raises((ConnectionResetError, BrokenPipeError)), connect(proxy) as client:
        ask(client, b"a")


def free_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
