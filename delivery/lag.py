"""How far consume_trades is behind, as Kafka knows it: right also while no consumer is running."""

from __future__ import annotations

from contextlib import closing

from django.conf import settings
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec

from delivery.kafka import connection_options, quiet_kafka


def consumer_lag(timeout_seconds: float) -> dict[int, int]:
    """Messages that the group has not committed yet, by partition; empty while the topic does not exist.

    Where nothing was committed it is all that the partition holds: the consumer begins with the oldest message.
    Raises KafkaError, within a few times `timeout_seconds`.
    """
    milliseconds = int(timeout_seconds * 1_000)
    options = {**connection_options(), "bootstrap_timeout_ms": milliseconds, "request_timeout_ms": milliseconds}
    with quiet_kafka(), closing(KafkaAdminClient(**options)) as admin:
        (topic,) = admin.describe_topics([settings.KAFKA_TRADE_TOPIC])
        partitions = [TopicPartition(topic["name"], found["partition_index"]) for found in topic["partitions"]]
        if not partitions:
            return {}
        ends = admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST))
        group = settings.KAFKA_GROUP_ID
        committed = {
            partition: found.offset
            for partition, found in admin.list_group_offsets({group: partitions})[group].items()
            if found.offset >= 0  # -1 = nothing was committed.
        }
        begun = [partition for partition in partitions if partition not in committed]
        if begun:
            first = admin.list_partition_offsets(dict.fromkeys(begun, OffsetSpec.EARLIEST))
            committed |= {partition: found.offset for partition, found in first.items()}
        return {p.partition: max(0, ends[p].offset - committed[p]) for p in partitions}
