"""Apache Kafka in KRaft mode: broker and controller in one process."""

import base64
import os
import threading
import uuid
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError

from devstack.jars import JarSet
from devstack.ports import Ports, accepts_connections
from devstack.servers.java import JavaServer

TRADE_TOPIC_PARTITIONS = 8

_LOGGING = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
    "-Dorg.slf4j.simpleLogger.showThreadName=false",
)


class Kafka(JavaServer):
    """Kafka 4.1 with the trades' topic created."""

    name = "kafka"
    port_names = ("kafka", "kafka-controller")
    heap_megabytes = 256
    # Kafka depends on slf4j's interface only; without an implementation a broker that fails says nothing.
    jars = JarSet("kafka", ("org.apache.kafka:kafka_2.13:4.1.1", "org.slf4j:slf4j-simple:1.7.36"))

    def __init__(self, directory: Path, ports: Ports, cancelled: threading.Event) -> None:
        super().__init__(directory, ports, cancelled)
        self._controller_port = ports["kafka-controller"]
        self._configuration = directory / "kafka.properties"

    @property
    def trade_topic(self) -> str:
        return os.environ.get("KAFKA_TRADE_TOPIC") or "trade.executed"

    def prepare(self) -> None:
        super().prepare()
        self._configuration.write_text(self._properties(), encoding="ascii")
        if not (self.data / "meta.properties").exists():
            self.report("formatting its storage")
            arguments = ("format", "--ignore-formatted", "-t", _cluster_id(), "-c", str(self._configuration))
            self.run_tool(self.java("kafka.tools.StorageTool", *arguments, options=_LOGGING))

    def command(self) -> list[str]:
        return self.java("kafka.Kafka", str(self._configuration), options=_LOGGING)

    def is_answering(self) -> bool:
        if not accepts_connections(self.port):
            return False
        try:
            self._admin().close()
        except KafkaError:
            return False
        return True

    def initialise(self) -> bool:
        """Create the trades' topic, unless an earlier run did."""
        try:
            admin = self._admin()
            try:
                admin.create_topics([NewTopic(self.trade_topic, TRADE_TOPIC_PARTITIONS, replication_factor=1)])
            finally:
                admin.close()
        except TopicAlreadyExistsError:
            return True
        except KafkaError:
            return False
        return True

    def is_ready(self) -> bool:
        """Whether each partition of the trades' topic has a leader."""
        try:
            admin = self._admin()
            try:
                (topic,) = admin.describe_topics([self.trade_topic])
            finally:
                admin.close()
        except KafkaError:
            return False
        return bool(topic["partitions"]) and all(partition["leader_id"] >= 0 for partition in topic["partitions"])

    def env(self) -> dict[str, str]:
        return {"KAFKA_BOOTSTRAP_SERVERS": self.address, "KAFKA_TRADE_TOPIC": self.trade_topic}

    def _admin(self) -> KafkaAdminClient:
        return KafkaAdminClient(bootstrap_servers=self.address, request_timeout_ms=10_000)

    def _properties(self) -> str:
        properties = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{self._controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self.data),
            # One broker: internal topics cannot have the three replicas they ask for.
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            # 50 each by default, and every one is files to open at a start.
            "offsets.topic.num.partitions": "8",
            "transaction.state.log.num.partitions": "8",
            "group.initial.rebalance.delay.ms": "0",
            # After a kill the controller refuses the broker until its former session has run out: 9 s by default.
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
        }
        return "".join(f"{key}={value}\n" for key, value in properties.items())


def _cluster_id() -> str:
    """A random id in Kafka's form: 16 bytes, url-safe base64 without padding, not beginning with a dash."""
    while True:
        made = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")
        if not made.startswith("-"):
            return made
