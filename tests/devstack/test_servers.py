"""The embedded servers: each really works, keeps its data through a crash, and none outlives the stack."""

import base64
import json
import signal
import socket
import socketserver
import stat
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
import redis
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from pymongo import MongoClient

from devstack import ServerFailedError, Stack
from devstack.processes import PidFile
from devstack.progress import Progress

NEEDED_SETTINGS = {
    "DJANGO_SECRET_KEY", "ENDPOINT_ENCRYPTION_KEYS", "ENDPOINT_HASH_KEY", "DJANGO_ALLOWED_HOSTS",
    "MONGODB_URL", "REDIS_URL", "DRAMATIQ_BROKER_URL",
    "SQS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION",
    "KAFKA_BOOTSTRAP_SERVERS", "KAFKA_TRADE_TOPIC",
}  # fmt: skip


class EnvWatch(Progress):
    """Notes, each time a server becomes ready, whether the env file is there already."""

    def __init__(self, env_path: Path) -> None:
        self._env_path = env_path
        self.seen: dict[str, bool] = {}

    def ready(self, server: str, seconds: float, address: str) -> None:
        self.seen[server] = self._env_path.exists()


@pytest.fixture(scope="module")
def env_watch(tmp_path_factory: pytest.TempPathFactory) -> EnvWatch:
    env_path = tmp_path_factory.mktemp("devstack") / "env"
    env_path.write_text("MONGODB_URL=left by a crash\n")
    return EnvWatch(env_path)


@pytest.fixture(scope="module")
def stack(env_watch: EnvWatch) -> Iterator[Stack]:
    """A stack of this module's own, for it is treated badly."""
    with Stack(env_watch._env_path.parent, progress=env_watch) as started:
        yield started


def test_env_file_is_written_only_once_every_server_is_ready(stack: Stack, env_watch: EnvWatch) -> None:
    assert env_watch.seen == dict.fromkeys(("mongodb", "valkey", "kafka", "elasticmq"), False)
    assert stack.env_path.exists()


def test_env_file_holds_every_setting_for_its_owner_only(stack: Stack) -> None:
    lines = dict(line.split("=", 1) for line in stack.env_path.read_text().splitlines())

    assert lines == stack.env
    assert set(lines) == NEEDED_SETTINGS
    assert stat.S_IMODE(stack.env_path.stat().st_mode) == 0o600
    for key in [*lines["ENDPOINT_ENCRYPTION_KEYS"].split(","), lines["ENDPOINT_HASH_KEY"]]:
        assert len(base64.urlsafe_b64decode(key)) == 32


def _mongo(stack: Stack, **options: Any) -> MongoClient[dict[str, Any]]:
    return MongoClient(stack.env["MONGODB_URL"], **options)


def test_mongodb_commits_a_transaction(stack: Stack) -> None:
    with _mongo(stack) as client, client.start_session() as session:
        trades = client.get_default_database()["trades"]
        with session.start_transaction():
            trades.insert_one({"_id": 1}, session=session)
            assert trades.count_documents({}) == 0

        assert trades.count_documents({}) == 1


def test_broker_and_cache_use_separate_redis_databases(stack: Stack) -> None:
    with (
        redis.Redis.from_url(stack.env["REDIS_URL"]) as cache,
        redis.Redis.from_url(stack.env["DRAMATIQ_BROKER_URL"]) as broker,
    ):
        cache.set("presence", "here")
        broker.flushdb()

        assert cache.get("presence") == b"here"
        assert broker.get("presence") is None


def test_kafka_carries_a_trade_on_the_topic_with_eight_partitions(stack: Stack) -> None:
    servers, topic = stack.env["KAFKA_BOOTSTRAP_SERVERS"], stack.env["KAFKA_TRADE_TOPIC"]
    admin = KafkaAdminClient(bootstrap_servers=servers)
    producer = KafkaProducer(bootstrap_servers=servers)
    consumer = KafkaConsumer(topic, bootstrap_servers=servers, group_id="test", auto_offset_reset="earliest")
    try:
        producer.send(topic, key=b"T-17", value=b'{"eventId": "1"}').get(timeout=10)
        record = next(consumer)
        consumer.commit()

        assert (record.key, record.value) == (b"T-17", b'{"eventId": "1"}')
        assert len(admin.describe_topics([topic])[0]["partitions"]) == 8
    finally:
        consumer.close()
        producer.close()
        admin.close()


def test_elasticmq_delivers_and_keeps_messages_through_a_kill(stack: Stack) -> None:
    sqs = boto3.client(
        "sqs",
        endpoint_url=stack.env["SQS_ENDPOINT_URL"],
        region_name=stack.env["AWS_DEFAULT_REGION"],
        aws_access_key_id=stack.env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=stack.env["AWS_SECRET_ACCESS_KEY"],
    )
    url = sqs.create_queue(QueueName="deliver")["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="batch-1")

    stack.elasticmq.kill()
    stack.elasticmq.start()

    (message,) = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5)["Messages"]
    assert message["Body"] == "batch-1"
    sqs.close()


def test_mongodb_keeps_majority_writes_through_a_kill(stack: Stack) -> None:
    pid = stack.mongodb.pid
    with _mongo(stack, w="majority", journal=True) as client:
        client.get_default_database()["kept"].insert_one({"_id": "before"})

        stack.mongodb.kill()
        stack.mongodb.start()

        assert stack.mongodb.pid != pid
        assert client.get_default_database()["kept"].find_one() == {"_id": "before"}


def test_valkey_keeps_data_through_a_kill_and_loses_it_when_wiped(stack: Stack) -> None:
    with redis.Redis.from_url(stack.env["REDIS_URL"]) as client:
        client.set("key", "value")
        stack.valkey.kill()
        stack.valkey.start()
        assert client.get("key") == b"value"

        stack.valkey.stop()
        stack.valkey.start(wipe=True)
        assert client.get("key") is None


def test_kafka_keeps_records_through_a_kill(stack: Stack) -> None:
    servers = stack.env["KAFKA_BOOTSTRAP_SERVERS"]
    producer = KafkaProducer(bootstrap_servers=servers)
    producer.send("kept", b"before").get(timeout=10)
    producer.close()

    stack.kafka.kill()
    stack.kafka.start()

    consumer = KafkaConsumer("kept", bootstrap_servers=servers, auto_offset_reset="earliest", group_id=None)
    assert next(consumer).value == b"before"
    consumer.close()


@contextmanager
def _occupied(port: int) -> Iterator[None]:
    """Some other program's server, which hangs up on what it does not understand."""
    with socketserver.TCPServer(("127.0.0.1", port), socketserver.BaseRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield
        server.shutdown()
        thread.join()


def test_restart_keeps_secrets_and_data_and_moves_off_a_port_that_was_taken(tmp_path: Path) -> None:
    with Stack(tmp_path, ["mongodb"]) as first:
        with _mongo(first) as client:
            client.get_default_database()["kept"].insert_one({"_id": 1})
        before, port = first.env, first.mongodb.port
    assert not first.env_path.exists()

    with _occupied(port), Stack(tmp_path, ["mongodb"]) as second:
        assert second.mongodb.port != port
        assert second.env["ENDPOINT_ENCRYPTION_KEYS"] == before["ENDPOINT_ENCRYPTION_KEYS"]
        with _mongo(second) as client:
            assert client.get_default_database()["kept"].count_documents({}) == 1


def test_server_that_does_not_come_up_shows_the_end_of_its_log(tmp_path: Path) -> None:
    stack = Stack(tmp_path, ["valkey", "mongodb"])
    stack.reserve()
    with socket.create_server(("127.0.0.1", stack.valkey.port)), pytest.raises(ServerFailedError) as failure:
        stack.start()

    assert failure.value.server == "valkey"
    assert any("Address already in use" in line for line in failure.value.log_tail)
    assert "Address already in use" in str(failure.value)
    assert not stack.mongodb.is_running, "a failed start must leave nothing running"
    assert not stack.env_path.exists()


def test_servers_outlive_the_thread_that_started_them(tmp_path: Path) -> None:
    """The kernel's death signal is tied to the thread that forked, not to its process."""
    stack = Stack(tmp_path, ["valkey"])
    starter = threading.Thread(target=stack.start)
    starter.start()
    starter.join()
    try:
        with redis.Redis.from_url(stack.env["REDIS_URL"]) as client:
            assert client.ping()
        stack.check()
    finally:
        stack.stop()


def test_leftover_process_is_killed_only_if_it_is_the_one_remembered(tmp_path: Path) -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        pid_file = PidFile(tmp_path / "pid")
        pid_file.write(sleeper.pid)
        pid, started, boot = (tmp_path / "pid").read_text().split()

        (tmp_path / "pid").write_text(f"{pid} {int(started) - 1} {boot}")  # Its id once belonged to another process.
        assert pid_file.kill_leftover() is False
        assert sleeper.poll() is None

        pid_file.write(sleeper.pid)
        assert pid_file.kill_leftover() is True
        assert sleeper.wait() == -signal.SIGKILL
    finally:
        sleeper.kill()
        sleeper.wait()


def test_ports_lie_below_the_ephemeral_range_and_are_kept(tmp_path: Path) -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    first, second = Stack(tmp_path, ["valkey"]), Stack(tmp_path / uuid.uuid4().hex, ["valkey"])
    first.reserve()
    (second.directory).mkdir()
    (second.directory / "ports.json").write_text(json.dumps({"valkey": first.valkey.port}))
    try:
        second.reserve()
        ports = {first.valkey.port, second.valkey.port}
        assert len(ports) == 2, "a port claimed by one stack must not be given to another"
        assert max(ports) < lowest
        assert urlsplit(first.env["REDIS_URL"]).port == first.valkey.port
    finally:
        first.stop()
        second.stop()


def test_unknown_server_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rabbitmq"):
        Stack(tmp_path, ["rabbitmq"])
