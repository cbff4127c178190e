"""The four servers as one thing: started side by side, stopped together, described by one set of settings."""

import queue
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from devstack import state
from devstack.errors import DevstackError
from devstack.ports import Ports
from devstack.processes import PidFile
from devstack.progress import Progress
from devstack.servers import SERVERS, ElasticMQ, Kafka, MongoDB, Server, Valkey

ALL_SERVERS: tuple[str, ...] = tuple(SERVERS)
_WATCH_SECONDS = 0.5

AnyServer = TypeVar("AnyServer", bound=Server)
Outcome = tuple[Server, Exception | None]


class Stack:
    """Runs servers on a state folder, as a context manager or by :meth:`start` and :meth:`stop`.

    Parameters:
      directory: the state folder. Data, ports and secrets in it are kept from one start to the next.
      servers: which ones; the env file holds their settings only.
      progress: shows the start; nothing by default.
    """

    def __init__(self, directory: Path, servers: Sequence[str] = ALL_SERVERS, progress: Progress | None = None) -> None:
        unknown = set(servers) - set(SERVERS)
        if unknown:
            raise ValueError(f"Unknown servers {sorted(unknown)}: choose from {', '.join(SERVERS)}.")
        self.directory = directory.absolute()
        self.env_path = self.directory / "env"
        self._names = tuple(name for name in SERVERS if name in servers)
        self._progress = progress or Progress()
        self._servers: dict[str, Server] = {}
        self._secrets: dict[str, str] = {}
        self._lock: state.FolderLock | None = None
        self._ports: Ports | None = None
        self._cancelled = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def mongodb(self) -> MongoDB:
        return self._get(MongoDB)

    @property
    def valkey(self) -> Valkey:
        return self._get(Valkey)

    @property
    def kafka(self) -> Kafka:
        return self._get(Kafka)

    @property
    def elasticmq(self) -> ElasticMQ:
        return self._get(ElasticMQ)

    @property
    def servers(self) -> tuple[Server, ...]:
        """Those that were asked for; none before :meth:`reserve`."""
        return tuple(self._servers.values())

    @property
    def env(self) -> dict[str, str]:
        """The settings NotifyHub's processes need. Known from :meth:`reserve` on, before anything runs."""
        env = {**self._secrets, "DJANGO_ALLOWED_HOSTS": "localhost,127.0.0.1"}
        for server in self.servers:
            env |= server.env()
        return env

    def reserve(self) -> None:
        """Take the folder and the ports without starting anything, so that :attr:`env` is known. Repeatable.

        Raises:
          AlreadyRunningError: another process uses the folder.
        """
        if self._lock is not None:
            return
        state.prepare_folder(self.directory)
        self._lock = state.FolderLock(self.directory)
        try:
            self.env_path.unlink(missing_ok=True)
            self._secrets = state.load_secrets(self.directory / "secrets.json")
            port_names = [port for name in self._names for port in SERVERS[name].port_names]
            self._clean_leftovers()
            self._ports = Ports(port_names, self.directory / "ports.json")
            self._cancelled = threading.Event()
            self._servers = {name: SERVERS[name](self.directory, self._ports, self._cancelled) for name in self._names}
        except BaseException:
            self.stop()
            raise

    def start(self) -> None:
        """Start all servers side by side and write the env file once all can be used.

        Raises:
          AlreadyRunningError, ServerFailedError, DownloadError: with whatever had been started stopped again.
        """
        self.reserve()
        try:
            with self._progress:
                self._start_servers()
            state.write_env(self.env_path, self.env)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all servers and give the folder free. Data stays. Does nothing on a stopped stack."""
        if self._lock is None:
            return
        self._cancelled.set()
        self.env_path.unlink(missing_ok=True)
        stopping = [threading.Thread(target=server.stop, daemon=True) for server in self.servers]
        try:
            for thread in stopping:
                thread.start()
            for thread in stopping:
                thread.join()
        finally:
            if self._ports is not None:
                self._ports.release()
            self._lock.release()
            self._lock = None

    def wait(self) -> None:
        """Watch the servers until interrupted.

        Raises:
          ServerFailedError: one ended by itself.
        """
        while True:
            self.check()
            time.sleep(_WATCH_SECONDS)

    def check(self) -> None:
        """Raise ServerFailedError if a server ended by itself."""
        for server in self.servers:
            server.check()

    def _start_servers(self) -> None:
        self._progress.begin(self._names)
        outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        for server in self.servers:
            # Daemons: a download that hangs must not keep an interrupted process from leaving.
            threading.Thread(target=self._start_server, args=(server, outcomes), daemon=True).start()
        for _ in self.servers:
            _, error = outcomes.get()
            if error is not None:
                raise error

    def _start_server(self, server: Server, outcomes: "queue.SimpleQueue[Outcome]") -> None:
        began = time.monotonic()
        server.report = lambda text: self._progress.step(server.name, text)
        try:
            server.start()
        except Exception as error:  # Whatever it is, the thread that waits raises it.
            self._progress.failed(server.name)
            outcomes.put((server, error))
        else:
            self._progress.ready(server.name, time.monotonic() - began, server.address)
            outcomes.put((server, None))

    def _clean_leftovers(self) -> None:
        """End servers of an earlier run, also of those not asked for this time: they hold ports and data."""
        for name in SERVERS:
            PidFile(self.directory / f"{name}.pid").kill_leftover()

    def _get(self, kind: type[AnyServer]) -> AnyServer:
        server = self._servers.get(kind.name)
        if not isinstance(server, kind):
            raise DevstackError(f"This stack has no {kind.name}, or was not started yet.")
        return server
