"""The servers by name, in the order in which they are shown."""

from devstack.servers.base import Server
from devstack.servers.elasticmq import ElasticMQ
from devstack.servers.kafka import Kafka
from devstack.servers.mongodb import MongoDB
from devstack.servers.valkey import Valkey

SERVERS: dict[str, type[Server]] = {server.name: server for server in (MongoDB, Valkey, Kafka, ElasticMQ)}

__all__ = ["SERVERS", "ElasticMQ", "Kafka", "MongoDB", "Server", "Valkey"]
