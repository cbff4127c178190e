"""All sandbox vendors in one process: their listeners, their journals, the control API."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import orjson

from devstack.ports import VENDOR_PORTS
from devstack.vendors.apns import Apns
from devstack.vendors.control import Control
from devstack.vendors.credentials import environment, load_or_create, server_tls, write_private
from devstack.vendors.discord import Discord
from devstack.vendors.fcm import Fcm
from devstack.vendors.http1 import Http1Connection
from devstack.vendors.http2 import Http2Connection
from devstack.vendors.messages import Service
from devstack.vendors.onesignal import OneSignal
from devstack.vendors.recorder import Journal, Recorder
from devstack.vendors.twilio import Twilio
from devstack.vendors.vendor import Vendor

HOST = "127.0.0.1"
BACKLOG = 1024
LISTENERS = ("control", "apns", "fcm", "twilio", "discord", "onesignal")


class Sandbox:
    """The vendors of one directory. `resume` keeps what an earlier process accepted, and its ports."""

    def __init__(self, directory: Path, port_file: Path, resume: bool) -> None:
        self._directory = directory
        self._http1: set[Http1Connection] = set()
        self._http2: set[Http2Connection] = set()
        self._servers: list[asyncio.Server] = []
        self._journals: list[Journal] = []
        credentials = load_or_create(directory)
        ports: dict[str, int] = orjson.loads(port_file.read_bytes()) if resume and port_file.exists() else {}
        self._sockets = {name: bind(ports.get(name)) for name in LISTENERS}
        self.ports = {name: bound.getsockname()[1] for name, bound in self._sockets.items()}
        write_private(port_file, orjson.dumps(self.ports))
        self.environment = environment(directory, credentials, self.ports)
        vendors: list[Vendor] = [
            Apns(self._recorder("apns", resume), credentials),
            Fcm(self._recorder("fcm", resume), credentials, self.environment["FCM_TOKEN_URL"]),
            Twilio(self._recorder("twilio", resume), credentials),
            Discord(self._recorder("discord", resume), credentials),
            OneSignal(self._recorder("onesignal", resume), credentials),
        ]
        self.vendors: Mapping[str, Vendor] = {vendor.name: vendor for vendor in vendors}

    def _recorder(self, name: str, resume: bool) -> Recorder:
        folder = self._directory / "accepted"
        folder.mkdir(exist_ok=True)
        journal = Journal(folder / f"{name}.ndjson", resume)
        self._journals.append(journal)
        return Recorder(journal)

    async def listen(self) -> None:
        """Open every listener."""
        loop = asyncio.get_running_loop()
        control = Control(self.vendors)
        for name, bound in self._sockets.items():
            if name == "apns":
                http2 = partial(Http2Connection, self.vendors[name], self._http2)
                server = await loop.create_server(http2, sock=bound, backlog=BACKLOG, ssl=server_tls(self._directory))
            else:
                service: Service = control if name == "control" else self.vendors[name]
                http1 = partial(Http1Connection, service, self._http1)
                server = await loop.create_server(http1, sock=bound, backlog=BACKLOG)
            self._servers.append(server)

    def close(self) -> None:
        """Stop listening and drop every connection."""
        for server in self._servers:
            server.close()
        for http1 in list(self._http1):
            http1.close()
        for http2 in list(self._http2):
            http2.close()
        for journal in self._journals:
            journal.close()


def bind(port: int | None) -> socket.socket:
    """A bound socket on the given port, or on a free one below the ephemeral range.

    A port of the ephemeral range could be taken by any outgoing connection while the vendors are down, even by a
    client that tries to reach it (a TCP self-connect); then they could not come back on the same ports.
    """
    if port is not None:
        return _bind(port)
    for candidate in random.sample(VENDOR_PORTS, k=200):
        try:
            return _bind(candidate)
        except OSError:
            continue  # Taken by somebody else: the next one.
    return _bind(0)


def _bind(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((HOST, port))
        # Listening at once claims the port: two sockets that only are bound may share it.
        bound.listen(BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound
