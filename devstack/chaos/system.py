"""Everything that is put under fire: servers, vendors, the network between them, NotifyHub's processes, the load."""

from __future__ import annotations

import logging
import os
import random
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import django

from devstack import commands
from devstack.chaos.audience import Audience
from devstack.chaos.supervisor import Service, Supervisor
from devstack.children import Child, Children
from devstack.ports import Ports
from devstack.proxy import Proxy
from devstack.servers.mongodb import DATABASE
from devstack.stack import Stack
from devstack.vendors.client import Sandbox
from devstack.vendors.process import VendorProcess

if TYPE_CHECKING:
    from devstack.chaos.load import Load
    from devstack.chaos.sockets import Sockets

SERVERS = ("mongodb", "valkey", "kafka")
VENDORS = {
    "fcm": "FCM_BASE_URL", "apns": "APNS_BASE_URL", "twilio": "TWILIO_BASE_URL", "discord": "DISCORD_BASE_URL",
    "onesignal": "ONESIGNAL_BASE_URL",
}  # fmt: skip
"""The sandbox's vendors, and the setting by which each is found."""

GENERAL_WORKERS = 2
READY_SECONDS = 150
"""A machine that is busy with other things starts six processes slowly; that is no fault of theirs."""

LATENCY_MS, JITTER_MS = 150, 150
REFUSED_FOR_NOW = 0.01
"""The share of requests that a vendor wants again later: retries are always under way."""
UNKEYED_VENDORS = ("twilio", "discord")
"""After their 5xx nobody knows whether they accepted: they throttle instead, so that `unknown` tells of the fault."""

SETTINGS = {
    "DJANGO_SETTINGS_MODULE": "notifyhub.settings",
    "LOG_LEVEL": "INFO",
    "FOLLOWER_TOKEN_SECONDS": "86400",
    "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",  # Over whatever a .env says of a real cluster.
    "KAFKA_GROUP_ID": "notifyhub-chaos",
    "QUEUE_NAMESPACE": "notifyhub-chaos",
    **commands.QUICK_SETTINGS,
    # No retry, and no open breaker, waits longer than a fault lasts.
    "BREAKER_PAUSE_SECONDS": "0.5",
    **{f"{channel}_RETRY_CAP_SECONDS": "3" for channel in ("FCM", "APNS", "SMS", "DISCORD", "ONESIGNAL")},
}


@dataclass(frozen=True, slots=True)
class Scale:
    """How much there is to do."""

    followers: int
    trades_per_second: float


class System:
    """A context manager; :meth:`set_up` and :meth:`start` come first inside it.

    Parameters:
      seed: for the trades, the network's faults and the vendors.
      without: a service to leave out.
      keep_logs: leave the state folder, with all logs, where it is.
    """

    load: Load
    sockets: Sockets
    supervisor: Supervisor

    def __init__(self, scale: Scale, seed: int, without: str, keep_logs: bool) -> None:
        self.random = random.Random(seed)
        self.directory = Path(tempfile.mkdtemp(prefix="notifyhub-chaos-"))
        self.logs = self.directory / "logs"
        self.audience = Audience(scale.followers)
        self.stack = Stack(self.directory, SERVERS)
        self.vendors = VendorProcess(self.directory / "vendors")
        self.proxies: dict[str, Proxy] = {}
        self._scale = scale
        self._seed = seed
        self._without = without
        self._keep_logs = keep_logs
        self._cancelled = threading.Event()
        self.children = Children(self.logs, self._cancelled)
        self._cleanup = ExitStack()

    @property
    def sandbox(self) -> Sandbox:
        return self.vendors.sandbox

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End everything: first what reads and sends, then the vendors, then the servers."""
        self._cancelled.set()
        self._cleanup.close()
        if not self._keep_logs:
            shutil.rmtree(self.directory, ignore_errors=True)

    def set_up(self) -> None:
        """Make this process one of the project's, past every proxy, its log lines in a file. Starts nothing yet."""
        self._cleanup.callback(self.stack.stop)
        self.stack.reserve()
        os.environ.update(self.stack.env | SETTINGS)
        django.setup()
        log = logging.FileHandler(self.directory / "chaos.log", encoding="utf-8")
        root = logging.getLogger()
        if root.handlers:
            log.setFormatter(root.handlers[0].formatter)
        root.handlers[:] = [log]

    def start(self, proxied: Iterable[str], tell: Callable[[str], None]) -> None:
        """Start everything and return once trades can be published.

        Parameters:
          proxied: servers and vendors (`mongodb`, `valkey`, the keys of VENDORS) to put a proxy before.

        Raises DevstackError, and RuntimeError if the vendors do not start.
        """
        tell("Starting servers and vendors …")
        self.stack.start()
        self._cleanup.callback(self.vendors.stop)
        self.vendors.start()
        os.environ.update(self.vendors.env)
        names = sorted(set(proxied))
        ports = Ports(["web", *(f"{name}-proxy" for name in names)], self.directory / "chaos-ports.json")
        self._cleanup.callback(ports.release)
        for name in names:
            self.proxies[name] = Proxy(self._port_of(name), ports[f"{name}-proxy"], self._seed).start()
            self._cleanup.callback(self.proxies[name].stop)
        os.environ.update(self._proxied_settings())
        self.behave()
        self._cleanup.callback(self.children.stop)
        tell(f"Migrating, loading {self._scale.followers} followers …")
        self._load_followers()
        tell("Starting NotifyHub's processes …")
        self._start_services(ports["web"])
        self._start_load(ports["web"])

    def behave(self) -> None:
        """Tell every vendor how to behave: as on a good day."""
        some = {"fraction": REFUSED_FOR_NOW, "fraction_of": "requests"}
        for vendor in VENDORS:
            rules = [{"match": some, "code": "throttled" if vendor in UNKEYED_VENDORS else "unavailable"}]
            self.sandbox.behave(
                vendor, latency_ms=LATENCY_MS, jitter_ms=JITTER_MS, seed=self._seed, keep_bodies=False, rules=rules
            )

    # The steps.

    def _port_of(self, name: str) -> int:
        """Where the server or vendor itself listens."""
        if name in VENDORS:
            port = urlsplit(self.vendors.env[VENDORS[name]]).port
            if port is None:
                raise ValueError(f"{VENDORS[name]} names no port.")
            return port
        return {"mongodb": self.stack.mongodb, "valkey": self.stack.valkey}[name].port

    def _proxied_settings(self) -> dict[str, str]:
        """What makes NotifyHub's processes go through the proxies."""
        changed: dict[str, str] = {}
        for name, proxy in self.proxies.items():
            if name == "mongodb":
                # Without directConnection the driver asks for the replica set's members and goes past the proxy.
                changed["MONGODB_URL"] = f"mongodb://{proxy.address}/{DATABASE}?directConnection=true"
            elif name == "valkey":
                env = self.stack.valkey.env()
                changed |= {key: url.replace(self.stack.valkey.address, proxy.address) for key, url in env.items()}
            else:
                url = self.vendors.env[VENDORS[name]]
                changed[VENDORS[name]] = url.replace(urlsplit(url).netloc, proxy.address)
        return changed

    def _load_followers(self) -> None:
        from devstack.demo.people import open_communities  # noqa: PLC0415 - Models can be imported from here on.

        path = self.directory / "followers.ndjson"
        self.audience.write(path)
        self.children.run("migrate", [*commands.MANAGE, "migrate", "--no-input"])
        self.children.run("import", [*commands.MANAGE, "import_followers", str(path)])
        open_communities()

    def _start_services(self, web_port: int) -> None:
        services = (
            Service("consume_trades", commands.consume_trades(), commands.consumes),
            Service("workers", commands.workers(GENERAL_WORKERS), fetches(GENERAL_WORKERS)),
            Service("workers-critical", commands.workers(1, "critical"), fetches(1)),
            Service("dispatch_due", commands.dispatch_due(), commands.dispatches),
            Service("web", commands.web(web_port), commands.answers(web_port)),
        )
        wanted = {service.name: service for service in services if service.name != self._without}
        self.supervisor = Supervisor(self.children, wanted)
        self._cleanup.callback(self.supervisor.stop)
        self.supervisor.start()
        self.supervisor.wait_until_ready(READY_SECONDS)

    def _start_load(self, web_port: int) -> None:
        from delivery.kafka import connect_producer  # noqa: PLC0415 - As above.
        from devstack.chaos.load import Load  # noqa: PLC0415 - As above.
        from devstack.chaos.sockets import Sockets  # noqa: PLC0415 - As above.

        self.sockets = Sockets(web_port, self.audience)
        self._cleanup.callback(self.sockets.stop)
        self.sockets.start()
        self.load = Load(connect_producer(), self._scale.trades_per_second, self._seed)
        self._cleanup.callback(self.load.stop)
        self.load.start()


def fetches(processes: int) -> Callable[[Child], bool]:
    """Whether so many worker processes have fetched from the queues since their start."""

    def do_fetch(child: Child) -> bool:
        from delivery.broker import BROKER_ERRORS  # noqa: PLC0415 - Models can be imported once Django is set up.
        from devstack.demo.loading import worker_processes_since  # noqa: PLC0415 - As above.

        try:
            return worker_processes_since(child.started_at) >= processes
        except BROKER_ERRORS:
            return False

    return do_fetch
