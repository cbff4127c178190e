"""The faults. Each strikes at a random moment, mends what has to be mended, and says how much work it hit.

Needs Django set up.
"""

from __future__ import annotations

import os
import signal
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import ClassVar

from devstack.chaos import flight
from devstack.chaos.system import VENDORS, System
from devstack.errors import DevstackError
from devstack.proxy import Faults
from devstack.servers.base import Server

BURST = 12
"""Trades that are published at once just before something is struck that works them off too quickly otherwise."""
BURST_EVERY_SECONDS = 2.0  # No more than is worked off meanwhile.
MOMENT_SECONDS = 0.12
LOOK_SECONDS = 0.05
WAIT_SECONDS = 10
ENOUGH_SENDS = 5
NOTICED_SECONDS = 0.2
"""By then an app has noticed that its socket is gone."""


class Fault(ABC):
    """One kind of fault.

    Attributes:
      name: on the command line and in the table.
      needs: what has to be behind a proxy.
      service: the one that must run for the fault to make sense.
      is_outage: a server is away for long: each process may log a few lines about it.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    service: ClassVar[str] = ""
    is_outage: ClassVar[bool] = False

    @abstractmethod
    def strike(self, system: System) -> int:
        """Do it. Returns what was in flight; 0 = it hit nothing, and the strike is repeated."""

    @staticmethod
    def at_random_moment(system: System) -> None:
        """Wait for less than it takes to work off a burst."""
        time.sleep(system.random.uniform(0, MOMENT_SECONDS))

    def while_sending(self, system: System) -> int:
        """Wait for a random moment with sends in flight; returns how many."""
        system.load.burst(BURST)
        in_flight, deadline = 0, time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            self.at_random_moment(system)
            in_flight = flight.sends(system.sandbox)
            if in_flight >= ENOUGH_SENDS:
                return in_flight
        return in_flight


# --- Processes are killed ---------------------------------------------------------------------------------------------
class KillWorker(Fault):
    """One worker process of several, with batches in its hands. What it held is counted after its death."""

    name = "worker"
    service = "workers"

    def strike(self, system: System) -> int:
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            self.at_random_moment(system)
            pid = flight.busiest_worker(flight.forked_by(system.supervisor.child("workers").pid))
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                return flight.held_by(pid)
        return 0


class KillFrozen(Fault):
    """Frozen at random moments until one of these finds it with work in hand; then killed.

    What it was about to do is looked at while it can do nothing.
    """

    frozen_seconds: ClassVar[float] = 0.0
    """How long it stays frozen until it has work in hand; 0 where none can come meanwhile."""

    def strike(self, system: System) -> int:
        pid = system.supervisor.child(self.service).pid
        began = time.monotonic()
        burst_at = began
        while time.monotonic() < began + WAIT_SECONDS:
            if time.monotonic() >= burst_at:
                system.load.burst(BURST)
                burst_at += BURST_EVERY_SECONDS
            self.at_random_moment(system)
            os.kill(pid, signal.SIGSTOP)
            frozen_at = time.monotonic()
            while not (in_flight := self.in_flight(system)) and time.monotonic() < frozen_at + self.frozen_seconds:
                time.sleep(LOOK_SECONDS)
            if in_flight:
                system.supervisor.kill(self.service)
                return in_flight
            os.kill(pid, signal.SIGCONT)
        return 0

    @abstractmethod
    def in_flight(self, system: System) -> int: ...


class KillIntake(KillFrozen):
    """Between storing trades and committing them."""

    name = service = "consume_trades"

    def in_flight(self, system: System) -> int:
        return flight.stored_and_uncommitted(list(system.load.accepted))


class KillDispatcher(KillFrozen):
    """While something is due that it alone would wake."""

    name = service = "dispatch_due"
    frozen_seconds = 1.0

    def in_flight(self, system: System) -> int:
        return flight.due()


class KillWeb(Fault):
    """With sockets open: alerts that came while they were cut off."""

    name = "web"
    service = "web"

    def strike(self, system: System) -> int:
        if not system.sockets.connected:
            return 0
        system.load.burst(BURST)
        self.at_random_moment(system)
        system.supervisor.kill("web")
        time.sleep(NOTICED_SECONDS)
        missed, deadline = 0, time.monotonic() + WAIT_SECONDS
        while not system.sockets.connected and time.monotonic() < deadline:
            missed = max(missed, system.sockets.missing())
        return missed


# --- Servers go and come back -----------------------------------------------------------------------------------------
class RestartServer(Fault):
    """SIGKILL and start again, with or without its data, after `away_seconds`."""

    away_seconds: ClassVar[float] = 0.0
    wipe: ClassVar[bool] = False

    @abstractmethod
    def server(self, system: System) -> Server: ...

    def in_flight(self, system: System) -> int:
        """What is under way just before the kill, at a random moment."""
        return self.while_sending(system)

    def strike(self, system: System) -> int:
        in_flight = self.in_flight(system)
        server = self.server(system)
        server.kill()
        time.sleep(self.away_seconds)
        server.start(wipe=self.wipe)
        return in_flight


class RestartValkey(RestartServer):
    """Its data are there again, as of the last second."""

    name = "valkey"

    def server(self, system: System) -> Server:
        return system.stack.valkey

    def in_flight(self, system: System) -> int:
        system.load.burst(BURST)
        self.at_random_moment(system)
        return flight.hints()


class EmptyValkey(RestartValkey):
    """Every hint, every message in work, presence: gone."""

    name = "valkey-emptied"
    wipe = True


class ValkeyAway(RestartValkey):
    name = "valkey-20s"
    away_seconds = 20.0
    is_outage = True


class RestartMongoDB(RestartServer):
    name = "mongodb"

    def server(self, system: System) -> Server:
        return system.stack.mongodb


class MongoDBAway(RestartMongoDB):
    name = "mongodb-20s"
    away_seconds = 20.0
    is_outage = True


class RestartKafka(RestartServer):
    """With sends that it has not acknowledged."""

    name = "kafka"

    def server(self, system: System) -> Server:
        return system.stack.kafka

    def strike(self, system: System) -> int:
        system.load.burst(BURST)
        deadline = time.monotonic() + WAIT_SECONDS
        while not system.load.unacknowledged and time.monotonic() < deadline:
            time.sleep(0.001)
        system.stack.kafka.kill()
        in_flight = system.load.unacknowledged
        time.sleep(self.away_seconds)
        system.stack.kafka.start()
        return in_flight


class KafkaAway(RestartKafka):
    name = "kafka-20s"
    away_seconds = 20.0
    is_outage = True


class RestartVendors(Fault):
    """All vendors at once, with requests unanswered; what they had accepted they still know."""

    name = "vendors"

    def strike(self, system: System) -> int:
        in_flight = self.while_sending(system)
        proxies = [system.proxies[name] for name in VENDORS if name in system.proxies]
        system.vendors.kill()
        # A machine without its process refuses connections; a proxy that took them would leave each request in doubt.
        for proxy in proxies:
            proxy.set(Faults(refuses=True))
        time.sleep(1.0)
        system.vendors.start()
        for proxy in proxies:
            proxy.set(Faults())
        system.behave()
        return in_flight


# --- The network misbehaves -------------------------------------------------------------------------------------------
class Network(Fault):
    """Faults of the proxies before `needs`, for `seconds`."""

    seconds: ClassVar[float] = 5.0
    faults: ClassVar[Faults]
    cuts: ClassVar[bool] = False  # Begins with a reset of whatever is open.

    def strike(self, system: System) -> int:
        in_flight = self.while_sending(system)
        proxies = [system.proxies[name] for name in self.needs]
        try:
            for proxy in proxies:
                proxy.set(self.faults)
                if self.cuts:
                    proxy.reset_all()
            time.sleep(self.seconds)
        finally:
            for proxy in proxies:
                with suppress(RuntimeError):  # Stopped meanwhile.
                    proxy.set(Faults())
        return in_flight


class SlowVendors(Network):
    """Some requests take longer than they may."""

    name = "vendors-slow"
    needs = tuple(VENDORS)
    faults = Faults(latency_seconds=0.8, jitter_seconds=1.0)


class VendorResets(Network):
    """Requests and answers are cut off: what has arrived is not known."""

    name = "vendors-resets"
    needs = tuple(VENDORS)
    faults = Faults(reset_chance=0.1)
    cuts = True


class SilentVendors(Network):
    """Half-open connections: everything is taken, nothing is answered."""

    name = "vendors-silent"
    needs = tuple(VENDORS)
    faults = Faults(silent=True)


class ValkeyResets(Network):
    name = "valkey-resets"
    needs = ("valkey",)
    faults = Faults(latency_seconds=0.02, jitter_seconds=0.05, reset_chance=0.02)
    cuts = True


class SilentValkey(Network):
    name = "valkey-silent"
    needs = ("valkey",)
    faults = Faults(silent=True)


class MongoDBResets(Network):
    name = "mongodb-resets"
    needs = ("mongodb",)
    faults = Faults(latency_seconds=0.005, jitter_seconds=0.02, reset_chance=0.02)
    cuts = True


class SilentMongoDB(Network):
    name = "mongodb-silent"
    needs = ("mongodb",)
    faults = Faults(silent=True)


ALL: dict[str, type[Fault]] = {
    fault.name: fault
    for fault in (
        KillWorker, KillIntake, KillDispatcher, KillWeb,
        RestartValkey, EmptyValkey, RestartMongoDB, RestartKafka, RestartVendors,
        SlowVendors, VendorResets, SilentVendors, ValkeyResets, SilentValkey, MongoDBResets, SilentMongoDB,
        MongoDBAway, ValkeyAway, KafkaAway,
    )
}  # fmt: skip
"""By name, in the order in which they strike."""

SHORT = ("worker", "consume_trades", "dispatch_due", "web", "valkey-emptied", "mongodb", "vendors")
"""Those of the short form: what needs no proxy and no long wait."""


def chosen(names: str | None, short: bool, without: str) -> list[Fault]:
    """The faults to strike with, but those whose service is left out. Raises DevstackError for an unknown name."""
    wanted = names.split(",") if names else list(SHORT if short else ALL)
    unknown = [name for name in wanted if name not in ALL]
    if unknown:
        raise DevstackError(f"Unknown faults {', '.join(unknown)}; there are: {', '.join(ALL)}.")
    return [ALL[name]() for name in wanted if not without or ALL[name].service != without]
