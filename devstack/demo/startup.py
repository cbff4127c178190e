"""From nothing to everything running. Whatever can start at the same time does:

mongodb ──┬─ database: migrations, login ─┬─ followers
Django ───┘                               │
vendors ──────────────────────────────────┼─ processes
valkey ───────────────────────────────────┘
kafka ────────────────────────────────────── publisher
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import django

from devstack import commands
from devstack.children import Child, Children
from devstack.demo.behaviour import set_behaviour
from devstack.demo.steps import ServerSteps, shown
from devstack.ports import Ports
from devstack.progress import Progress
from devstack.stack import Stack
from devstack.vendors.process import VendorProcess

if TYPE_CHECKING:
    from devstack.demo.publisher import Publisher

SERVERS = ("mongodb", "valkey", "kafka")
GENERAL_WORKERS = max(1, (os.cpu_count() or 2) - 1)
EARLY = ("consume_trades", "workers")
STEPS = (
    *SERVERS, "vendors", "database", "followers",
    "consume_trades", "workers", "workers-critical", "dispatch_due", "web",
)  # fmt: skip
SETTINGS = {
    "DJANGO_SETTINGS_MODULE": "notifyhub.settings",
    "DEMO_INBOX": "true",
    "DJANGO_SECURE_COOKIES": "false",  # The demo is served over plain HTTP, and its admin wants a login.
    "LOG_LEVEL": "INFO",
    # Over whatever a .env says of a real cluster.
    "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
    "KAFKA_GROUP_ID": "notifyhub-demo",
    "QUEUE_NAMESPACE": "notifyhub-demo",
}

T = TypeVar("T")


class Demo:
    """Everything that runs, as a context manager; :meth:`start` comes first inside it.

    Parameters:
      directory: the state folder; another one than `make stack` uses.
      followers: how many. Another number than last time begins with an empty database.
    """

    publisher: Publisher

    def __init__(self, directory: Path, followers: int, steps: Progress) -> None:
        self.directory = directory
        self.followers = followers
        self.password = ""
        self.web_url = ""
        self.vendors = VendorProcess(directory / "vendors")
        self._steps = steps
        self._cancelled = threading.Event()
        self.children = Children(directory / "logs", self._cancelled)
        # Each server's readiness, for what does not have to wait for all of them.
        self._ready: dict[str, Future[None]] = {name: Future() for name in SERVERS}
        self.stack = Stack(directory, SERVERS, ServerSteps(steps, self._server_is_ready))
        # Threads that live as long as the demo: the kernel ends the vendors with the thread that started them.
        self._pool = ThreadPoolExecutor(max_workers=16, thread_name_prefix="demo")
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End everything: first what reads and sends, then the vendors, then the servers."""
        self._cancelled.set()
        self._cleanup.close()

    def start(self) -> None:
        """Start everything and return once trades can be published.

        Raises:
          DevstackError: something did not come up, or the state folder is in use.
        """
        self.stack.reserve()
        self._cleanup.callback(self.stack.stop)
        ports = Ports(["web"], self.directory / "demo-ports.json")
        self._cleanup.callback(ports.release)
        self.web_url = f"http://127.0.0.1:{ports['web']}"
        os.environ.update(self.stack.env | SETTINGS)
        self._cleanup.callback(self._pool.shutdown, wait=False, cancel_futures=True)
        self._cleanup.callback(self.vendors.stop)
        self._cleanup.callback(self.children.stop)
        with self._steps:
            self._steps.begin(STEPS)
            tasks = self._begin_tasks(ports["web"])
            try:
                self.stack.start()
                for task in tasks:
                    task.result()
            except BaseException:
                self._cancelled.set()
                for ready in self._ready.values():
                    ready.cancel()
                raise

    def check(self) -> None:
        """Raise whatever ended something that should run: ServerFailedError for a process or server."""
        self.stack.check()
        self.children.check()
        self.publisher.check()

    # The tasks.

    def _begin_tasks(self, web_port: int) -> list[Future[None]]:
        submit = self._pool.submit
        set_up = submit(self._set_up_django)
        vendors = submit(self._start_vendors)
        database = submit(self._prepare_database, set_up)
        publisher = submit(self._connect_publisher, set_up)
        followers = submit(self._load_followers, database)
        processes: dict[str, tuple[list[str], Callable[[Child], bool], str]] = {
            "consume_trades": (commands.consume_trades(), commands.consumes, "takes trades in"),
            "workers": (
                commands.workers(GENERAL_WORKERS), self._workers_are_up, f"{GENERAL_WORKERS} process(es), all queues"
            ),
            "workers-critical": (
                commands.workers(1, "critical"), self._workers_are_up, "1 process, critical queues"
            ),
            "dispatch_due": (commands.dispatch_due(), commands.dispatches, "wakes what is due"),
            "web": (commands.web(web_port), commands.answers(web_port), self.web_url),
        }  # fmt: skip
        # Kafka and what stands between it and the first alert start first: two cores start everything at once slowly.
        early = [submit(self._start_process, name, *processes[name], vendors, database) for name in EARLY]
        late = [
            submit(self._start_process, name, *what, vendors, database, self._ready["kafka"])
            for name, what in processes.items()
            if name not in EARLY
        ]
        return [set_up, vendors, database, publisher, followers, *early, *late]

    def _server_is_ready(self, name: str) -> None:
        if self._ready[name].set_running_or_notify_cancel():
            self._ready[name].set_result(None)

    def _set_up_django(self) -> None:
        """Make this process one of the project's, its log lines in a file: the terminal is for the view."""
        django.setup()
        root = logging.getLogger()
        log = logging.FileHandler(self.directory / "demo.log", mode="w", encoding="utf-8")
        if root.handlers:
            log.setFormatter(root.handlers[0].formatter)
        root.handlers[:] = [log]

    def _start_vendors(self) -> None:
        def start() -> tuple[None, str]:
            self.vendors.start()
            os.environ.update(self.vendors.env)
            set_behaviour(self.vendors.sandbox)
            return None, "APNs, FCM, Twilio, Discord, OneSignal (sandbox)"

        shown(self._steps, "vendors", start)

    def _prepare_database(self, set_up: Future[None]) -> None:
        set_up.result()
        self._ready["mongodb"].result()
        from devstack.demo import database  # noqa: PLC0415 - Models can be imported once Django is set up.

        def prepare() -> tuple[None, str]:
            if database.has_other_followers(self.directory, self.followers):
                database.empty_database()
            migrations = database.pending_migrations()
            if migrations:
                self.children.run("migrate", [*commands.MANAGE, "migrate", "--no-input"])
            self.password = database.ensure_login(self.directory)
            return None, f"{migrations} migrations applied" if migrations else "nothing to migrate"

        shown(self._steps, "database", prepare)

    def _load_followers(self, database: Future[None]) -> None:
        database.result()
        from devstack.demo.loading import load_followers  # noqa: PLC0415 - As above.

        shown(self._steps, "followers", lambda: (None, load_followers(self.directory, self.followers, self.children)))

    def _connect_publisher(self, set_up: Future[None]) -> None:
        set_up.result()
        self._ready["kafka"].result()
        from devstack.demo.publisher import Publisher  # noqa: PLC0415 - As above.

        self.publisher = Publisher.connect()
        self._cleanup.callback(self.publisher.stop)

    def _start_process(
        self, name: str, command: list[str], is_ready: Callable[[Child], bool], text: str, *after: Future[None]
    ) -> None:
        for task in after:
            task.result()
        self._ready["valkey"].result()

        def start() -> tuple[None, str]:
            child = self.children.start(name, command)
            self.children.wait_until(child, is_ready, commands.READY_SECONDS)
            return None, text

        shown(self._steps, name, start)

    @staticmethod
    def _workers_are_up(child: Child) -> bool:
        from devstack.demo.loading import worker_processes_since  # noqa: PLC0415 - As above.

        return worker_processes_since(child.started_at) >= GENERAL_WORKERS + 1
