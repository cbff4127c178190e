"""How NotifyHub speaks to Kafka: configuration from the settings, and one log line per outage."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import structlog
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import KafkaError
from kafka.net.compat import KafkaNetClient

from followers.outage import KAFKA

logger = structlog.get_logger(__name__)

SECURITY_PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
SASL_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

BOOTSTRAP_TIMEOUT_MS: Final = 3_000
"""How long one try to reach Kafka takes at most: a process that is told to stop must not wait longer."""


def connection_options() -> dict[str, Any]:
    """The options that consumers and producers share.

    Raises ImproperlyConfigured, with a sentence that names the setting.
    """
    protocol = settings.KAFKA_SECURITY_PROTOCOL
    if protocol not in SECURITY_PROTOCOLS:
        raise ImproperlyConfigured(
            f"KAFKA_SECURITY_PROTOCOL must be one of {', '.join(SECURITY_PROTOCOLS)}, not {protocol!r}."
        )
    options: dict[str, Any] = {
        "bootstrap_servers": settings.KAFKA_BOOTSTRAP_SERVERS,
        "client_id": "notifyhub",
        "security_protocol": protocol,
        "bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS,
        "reconnect_backoff_max_ms": 2_000,
    }
    if protocol.endswith("SSL"):
        options |= _tls_options()
    if protocol.startswith("SASL"):
        options |= _sasl_options()
    return options


def _tls_options() -> dict[str, Any]:
    certificate, key = settings.KAFKA_SSL_CERTFILE, settings.KAFKA_SSL_KEYFILE
    if bool(certificate) != bool(key):
        raise ImproperlyConfigured("KAFKA_SSL_CERTFILE and KAFKA_SSL_KEYFILE belong together: set both or neither.")
    return {
        "ssl_cafile": settings.KAFKA_SSL_CAFILE or None,  # None = the system's certificates.
        "ssl_certfile": certificate or None,
        "ssl_keyfile": key or None,
    }


def _sasl_options() -> dict[str, Any]:
    mechanism = settings.KAFKA_SASL_MECHANISM
    if mechanism not in SASL_MECHANISMS:
        raise ImproperlyConfigured(
            f"KAFKA_SASL_MECHANISM must be one of {', '.join(SASL_MECHANISMS)} "
            f"with KAFKA_SECURITY_PROTOCOL={settings.KAFKA_SECURITY_PROTOCOL}, not {mechanism!r}."
        )
    for name in ("KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD"):
        if not getattr(settings, name):
            raise ImproperlyConfigured(f"{name} is required with KAFKA_SASL_MECHANISM={mechanism}.")
    return {
        "sasl_mechanism": mechanism,
        "sasl_plain_username": settings.KAFKA_SASL_USERNAME,
        "sasl_plain_password": settings.KAFKA_SASL_PASSWORD,
    }


def consumer_options() -> dict[str, Any]:
    """A consumer that commits by itself never, and begins with the oldest message where nothing was committed."""
    return {
        **connection_options(),
        "group_id": settings.KAFKA_GROUP_ID,
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "max_poll_records": settings.KAFKA_MAX_POLL_RECORDS,
        # Whoever stays in the group keeps its partitions and goes on with them while others come and go.
        "partition_assignment_strategy": (CooperativeStickyAssignor,),
        "session_timeout_ms": settings.KAFKA_SESSION_TIMEOUT_SECONDS * 1_000,
        "allow_auto_create_topics": False,
    }


def connect_consumer() -> KafkaConsumer:
    """Return a consumer that has reached Kafka; it is subscribed to nothing yet.

    Raises KafkaError if Kafka does not answer within BOOTSTRAP_TIMEOUT_MS, ImproperlyConfigured for wrong settings.
    """
    clients: list[KafkaNetClient] = []

    def make_client(**options: Any) -> KafkaNetClient:
        clients.append(KafkaNetClient(**options))
        return clients[-1]

    try:
        return KafkaConsumer(**consumer_options(), kafka_client=make_client)
    except BaseException:
        for client in clients:  # A constructor that fails leaves its network thread running.
            client.close()
        raise


def connect_producer() -> KafkaProducer:
    """Return a producer whose sends are acknowledged by all in-sync replicas, each once. Raises as above."""
    return KafkaProducer(**connection_options(), acks="all", enable_idempotence=True)


class KafkaTrouble(logging.Handler):
    """Says once per outage what kafka-python says several times a second.

    A handler of its logger: a warning of the library is only a suspicion (it warns at every ordinary start, too), which
    a question to Kafka settles. What was raised is an outage (followers/outage.py).
    """

    ASK_AFTER_SECONDS = 1.0
    ASK_EVERY_SECONDS = 2.0
    ANSWER_TIMEOUT_MS = 1_000

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._suspicion = ""
        self._ask_at = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        if not self._suspicion:
            self._suspicion = record.getMessage()
            self._ask_at = time.monotonic() + self.ASK_AFTER_SECONDS

    def note(self, error: object) -> None:
        """Kafka did not do as it was asked."""
        self._ask_at = time.monotonic() + self.ASK_EVERY_SECONDS
        KAFKA.away(error, detail=self._suspicion[:300])

    def look(self, consumer: KafkaConsumer, heard: bool) -> None:
        """Settle a suspicion, and find out whether an outage is over. `heard` = records came just now."""
        if not KAFKA.is_on and not self._suspicion:
            return
        if not heard:
            if time.monotonic() < self._ask_at:
                return
            try:
                partition = TopicPartition(settings.KAFKA_TRADE_TOPIC, 0)
                consumer.end_offsets([partition], timeout_ms=self.ANSWER_TIMEOUT_MS)
            except KafkaError as error:
                self.note(error)
                return
        if KAFKA.is_on:
            KAFKA.back()
        elif not heard:
            logger.debug("kafka-python warned of what passed.", detail=self._suspicion[:300])
        self._suspicion = ""


@contextmanager
def kafka_trouble() -> Iterator[KafkaTrouble]:
    """Route kafka-python's warnings through one KafkaTrouble."""
    trouble = KafkaTrouble()
    library = logging.getLogger("kafka")
    library.addHandler(trouble)
    library.propagate = False
    try:
        yield trouble
    finally:
        library.removeHandler(trouble)
        library.propagate = not any(isinstance(handler, KafkaTrouble) for handler in library.handlers)


class _Quiet:
    """How many are being quiet about Kafka at this moment, and the library's own level for when nobody is."""

    lock = threading.Lock()
    count = 0
    level = logging.NOTSET


@contextmanager
def quiet_kafka() -> Iterator[None]:
    """Silence kafka-python where its exceptions tell enough; several threads may do so at once."""
    library = logging.getLogger("kafka")
    with _Quiet.lock:
        if _Quiet.count == 0:
            _Quiet.level = library.level
            library.setLevel(logging.CRITICAL + 1)
        _Quiet.count += 1
    try:
        yield
    finally:
        with _Quiet.lock:
            _Quiet.count -= 1
            if _Quiet.count == 0:
                library.setLevel(_Quiet.level)
