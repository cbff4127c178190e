"""Free ports on 127.0.0.1 that stay ours, and stay the same from one start to the next where possible."""

import errno
import json
import random
import socket
from collections.abc import Iterable
from pathlib import Path

from devstack.errors import DevstackError

# A vendor's sandbox binds its ports at once and claims none: in the servers' own range it could take a port between
# the server's claim and its start.
VENDOR_PORTS = range(20_000, 24_000)
LOWEST_PORT = VENDOR_PORTS.stop
_ATTEMPTS = 200


class Ports:
    """A port for each name, claimed until :meth:`release`.

    They lie below the kernel's ephemeral range. Inside it, a client that reconnects while the server is down can be
    given the server's own port as its source port, connect to itself and keep the server from coming back.

    A claim is an abstract Unix socket named after the port: it has the scope of the port itself (the network
    namespace), excludes other stacks that are starting at this moment, and vanishes with its process.

    Raises:
      DevstackError: no free port was found.
    """

    def __init__(self, names: Iterable[str], memory: Path) -> None:
        self._claims: list[socket.socket] = []
        try:
            remembered = json.loads(memory.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            remembered = {}
        self._ports = {name: self._choose(remembered.get(name)) for name in names}
        memory.write_text(json.dumps({**remembered, **self._ports}, indent=1), encoding="utf-8")

    def __getitem__(self, name: str) -> int:
        return self._ports[name]

    def release(self) -> None:
        for claim in self._claims:
            claim.close()
        self._claims.clear()

    def _choose(self, preferred: int | None) -> int:
        highest = max(_first_ephemeral_port(), LOWEST_PORT + 1000) - 1
        candidates = [preferred] if preferred else []
        candidates += [random.randint(LOWEST_PORT, highest) for _ in range(_ATTEMPTS)]
        for port in candidates:
            claim = _claim(port)
            if claim is None:
                continue
            if is_free(port):
                self._claims.append(claim)
                return port
            claim.close()
        self.release()
        raise DevstackError(f"No free port found on 127.0.0.1 between {LOWEST_PORT} and {highest}.")


def is_free(port: int) -> bool:
    """Whether a server could listen there now; connections in TIME_WAIT do not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def accepts_connections(port: int) -> bool:
    """Whether something listens there: a cheap first look before a client library makes its own attempt."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _claim(port: int) -> socket.socket | None:
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0notifyhub-devstack-port-{port}")
    except OSError as error:
        claim.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return claim


def _first_ephemeral_port() -> int:
    return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
