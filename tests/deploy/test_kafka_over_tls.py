"""KAFKA_SECURITY_PROTOCOL=SASL_SSL with PLAIN: a trade comes in over TLS from a broker that asks for a password."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from kafka import KafkaProducer
from kafka.errors import KafkaError

from delivery import consumer as consumer_module
from delivery.kafka import connect_consumer, connection_options
from devstack.ports import Ports
from devstack.servers.kafka import Kafka
from notifications.models import TradeEvent
from tests.delivery.kafka_topics import running, until
from tests.notifications.builders import message

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
USER, PASSWORD = "engine", "open-sesame"
LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"


class SecuredKafka(Kafka):
    """The bundled Kafka with one listener more, for which a client needs the authority and a password."""

    port_names = (*Kafka.port_names, "kafka-secured")  # type: ignore[assignment]

    def __init__(self, directory: Path, ports: Ports, cancelled: threading.Event) -> None:
        super().__init__(directory, ports, cancelled)
        self.secured = f"127.0.0.1:{ports['kafka-secured']}"
        self.authority = directory / "ca.pem"
        self._identity = directory / "server.pem"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.authority))
        issued = authority.issue_cert("127.0.0.1")
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        self._identity.write_bytes(_pkcs8(issued.private_key_pem.bytes()) + chain)

    def _properties(self) -> str:
        more = {
            "sasl.enabled.mechanisms": "PLAIN",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self._identity),
            "listener.name.secured.plain.sasl.jaas.config": f'{LOGIN} user_{USER}="{PASSWORD}";',
        }
        return _with_listener(super()._properties(), self.secured) + "".join(f"{k}={v}\n" for k, v in more.items())


def _pkcs8(key: bytes) -> bytes:
    """The only form of a private key that Kafka reads."""
    return load_pem_private_key(key, None).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _with_listener(properties: str, address: str) -> str:
    lines = dict(line.split("=", 1) for line in properties.splitlines())
    lines["listeners"] += f",SECURED://{address}"
    lines["advertised.listeners"] += f",SECURED://{address}"
    lines["listener.security.protocol.map"] += ",SECURED:SASL_SSL"
    return "".join(f"{key}={value}\n" for key, value in lines.items())


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    folder = tmp_path_factory.mktemp("kafka")
    ports = Ports(SecuredKafka.port_names, folder / "ports.json")
    server = SecuredKafka(folder, ports, threading.Event())
    server.start()
    yield server
    server.stop()
    ports.release()


@pytest.fixture(autouse=True)
def _named(kafka: SecuredKafka, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer_module, "send_hints", lambda batches: [])  # Hints are others' business.
    settings.KAFKA_BOOTSTRAP_SERVERS = [kafka.secured]
    settings.KAFKA_TRADE_TOPIC = settings.KAFKA_GROUP_ID = kafka.trade_topic
    settings.KAFKA_SECURITY_PROTOCOL, settings.KAFKA_SASL_MECHANISM = "SASL_SSL", "PLAIN"
    settings.KAFKA_SASL_USERNAME, settings.KAFKA_SASL_PASSWORD = USER, PASSWORD
    settings.KAFKA_SSL_CAFILE = str(kafka.authority)


def test_a_trade_is_published_and_taken_in_over_tls_with_a_password(kafka: SecuredKafka) -> None:
    producer = KafkaProducer(**connection_options())
    producer.send(kafka.trade_topic, message(eventId="E-secured"))
    producer.close()
    with running(connect=connect_consumer):
        until(lambda: TradeEvent.objects.filter(external_id="E-secured").exists())


@pytest.mark.parametrize("wrong", [{"KAFKA_SASL_PASSWORD": "guessed"}, {"KAFKA_SSL_CAFILE": ""}])
def test_a_wrong_password_and_an_authority_that_nobody_named_are_refused(wrong: dict[str, str], settings: Any) -> None:
    for name, value in wrong.items():
        setattr(settings, name, value)
    with pytest.raises(KafkaError):
        KafkaProducer(**{**connection_options(), "bootstrap_timeout_ms": 2_000})
