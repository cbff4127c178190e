"""`manage.py publish_trade`, and the settings by which Kafka is reached."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from kafka import KafkaConsumer, TopicPartition

from delivery.kafka import connection_options, consumer_options
from devstack.stack import Stack
from notifications.events import parse_event
from tests.delivery.kafka_topics import PARTITIONS, Topic, until


@pytest.fixture
def topic(stack: Stack, settings: Any) -> Topic:
    settings.KAFKA_BOOTSTRAP_SERVERS = [stack.env["KAFKA_BOOTSTRAP_SERVERS"]]
    made = Topic(stack.env["KAFKA_BOOTSTRAP_SERVERS"])
    settings.KAFKA_TRADE_TOPIC = made.name
    return made


def publish(*arguments: str) -> list[str]:
    output = io.StringIO()
    call_command("publish_trade", *arguments, stdout=output)
    return output.getvalue().splitlines()


def records(topic: Topic, count: int) -> list[Any]:
    consumer = KafkaConsumer(bootstrap_servers=topic.servers, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(topic.name, n) for n in range(PARTITIONS)])
    found: list[Any] = []

    def complete() -> bool:
        found.extend(record for polled in consumer.poll(timeout_ms=500).values() for record in polled)
        return len(found) >= count

    until(complete)
    consumer.close()
    return found


def test_a_trade_needs_no_more_than_a_trader(topic: Topic) -> None:
    (line,) = publish("--trader", "T-17")

    (record,) = records(topic, 1)
    event = parse_event(record.value, record.headers, record.key)
    assert (event.trader_id, event.keyed_by_trader, event.symbol) == ("T-17", True, "RELIANCE")
    assert line == f"{event.event_id}  partition {record.partition}  offset {record.offset}"


def test_every_option_reaches_the_event(topic: Topic) -> None:
    arguments = "--trader T-1 --symbol NIFTY --side SELL --action REDUCE --quantity 25 --price 101.5 --product OPTIONS"
    arguments += " --expiry 2027-01-28 --strike 24500 --right PUT --position-before 50 --position-after 25"
    arguments += " --currency INR --portfolio 1000 --order-id O-9 --priority normal --exchange XNSE --multiplier 2"
    arguments += " --quantity-step 5 --min-quantity 5 --min-notional 10 --event-id E --correlation-id c-1 --count 2"
    lines = publish(*arguments.split())

    events = [parse_event(r.value, r.headers, r.key) for r in records(topic, 2)]
    assert [line.split()[0] for line in lines] == ["E-1", "E-2"] == [event.event_id for event in events]
    event: Any = events[0]
    assert event.instrument == "XNSE:NIFTY:OPTIONS:2027-01-28:24500:PUT"
    assert (event.side, event.action, str(event.exit_fraction), event.order_id) == ("SELL", "REDUCE", "0.5", "O-9")
    assert (event.quantity, str(event.price), event.currency, event.trader_portfolio) == (25, "101.5", "INR", 1000)
    assert (event.contract_multiplier, event.quantity_step, event.min_quantity, event.min_notional) == (2, 5, 5, 10)
    assert event.correlation_id == "c-1"


def test_raw_lines_are_published_as_they_are(topic: Topic, tmp_path: Path) -> None:
    good, bad = json.dumps({"eventId": "E-1", "traderId": "T-1"}), "not json"
    file = tmp_path / "events.ndjson"
    file.write_text(f"{good}\n\n{bad}\n", encoding="utf-8")

    lines = publish("--json", str(file))

    assert [line.split("  ")[0] for line in lines] == ["E-1", "(no event id)"]
    assert {(r.key, r.value) for r in records(topic, 2)} == {(b"T-1", good.encode()), (None, bad.encode())}


def test_a_kafka_that_is_away_is_one_line_that_names_the_setting(settings: Any) -> None:
    settings.KAFKA_BOOTSTRAP_SERVERS = ["127.0.0.1:1"]

    with pytest.raises(CommandError, match=r"KAFKA_BOOTSTRAP_SERVERS=127\.0\.0\.1:1"):
        publish("--trader", "T-17")


def test_a_file_that_is_not_there_is_one_line(topic: Topic) -> None:
    with pytest.raises(CommandError, match="nowhere cannot be read: No such file"):
        publish("--json", "nowhere")


def test_a_secured_kafka_is_reached_by_its_settings(settings: Any) -> None:
    settings.KAFKA_SECURITY_PROTOCOL, settings.KAFKA_SASL_MECHANISM = "SASL_SSL", "SCRAM-SHA-512"
    settings.KAFKA_SASL_USERNAME, settings.KAFKA_SASL_PASSWORD = "user", "secret"
    settings.KAFKA_SSL_CAFILE = "/ca.pem"

    options = connection_options()

    assert (options["security_protocol"], options["ssl_cafile"]) == ("SASL_SSL", "/ca.pem")
    assert (options["sasl_mechanism"], options["sasl_plain_username"]) == ("SCRAM-SHA-512", "user")
    assert options["sasl_plain_password"] == "secret"


def test_a_client_certificate_may_take_the_place_of_a_password(settings: Any) -> None:
    settings.KAFKA_SECURITY_PROTOCOL = "SSL"
    settings.KAFKA_SSL_CERTFILE, settings.KAFKA_SSL_KEYFILE = "/client.pem", "/client.key"

    options = connection_options()

    assert (options["ssl_certfile"], options["ssl_keyfile"]) == ("/client.pem", "/client.key")
    assert not [name for name in options if name.startswith("sasl")]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CERTFILE": "/client.pem"}, "KAFKA_SSL_KEYFILE belong together"),
        ({"KAFKA_SECURITY_PROTOCOL": "TLS"}, "KAFKA_SECURITY_PROTOCOL must be one of"),
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, "KAFKA_SASL_MECHANISM must be one of"),
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_MECHANISM": "PLAIN"}, "KAFKA_SASL_USERNAME is required"),
    ],
)
def test_a_wrong_setting_is_named(settings: Any, changed: dict[str, str], named: str) -> None:
    for name, value in changed.items():
        setattr(settings, name, value)

    with pytest.raises(ImproperlyConfigured, match=named):
        connection_options()


def test_the_consumer_commits_by_itself_never_and_begins_at_the_beginning() -> None:
    options = consumer_options()

    assert (options["enable_auto_commit"], options["auto_offset_reset"]) == (False, "earliest")
