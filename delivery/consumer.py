"""The loop of `consume_trades`: poll, take in, enqueue hints, and commit the offsets last.

Whatever dies in between, the messages come again, and taking them in again changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from threading import Event
from typing import Any, Final

import structlog
from django.conf import settings
from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import (
    CommitFailedError,
    CorruptRecordError,
    IllegalGenerationError,
    KafkaError,
    RebalanceInProgressError,
    RetriableError,
    UnknownMemberIdError,
)
from pymongo.errors import PyMongoError

from delivery.backlog import BacklogWatch
from delivery.broker import send_hints
from delivery.intake import Intake, Outcome, take_in
from delivery.intake_documents import IncomingMessage
from delivery.intake_thread import IntakeThread
from delivery.kafka import KafkaTrouble, connect_consumer, kafka_trouble
from delivery.poison import PoisonLimitError, PoisonWatch
from followers import clock

logger = structlog.get_logger(__name__)

Polled = Mapping[TopicPartition, Sequence[Any]]

POLL_MS: Final = 500
HOLD_AFTER_SECONDS: Final = 1.0
"""A poll batch that takes longer than this is waited for while the group is kept informed."""

# A stop takes at most the sum of these and one poll, which is less than the ten seconds it may take.
STOP_PATIENCE_SECONDS: Final = 3.0  # For the batch in hand, while MongoDB is away.
COMMIT_TIMEOUT_MS: Final = 2_500
CLOSE_TIMEOUT_MS: Final = 2_500

RECONNECT_SECONDS: Final = (0.5, 10.0)
"""The first and the longest pause between two tries to reach Kafka; doubling in between."""

JOIN_PATIENCE_SECONDS: Final = (10.0, 600.0)
"""A consumer that has no partition for so long joins its group anew; the first and the longest wait, doubling.

Now and then kafka-python 3.0.12 joins and is never given its partitions (seen once in some fifteen starts on a topic
that had just been made), and nothing but its own metadata refresh after five minutes would help. One that is simply
not needed, because the group has more members than the topic has partitions, does this ever more seldom.
"""

NOT_OURS_ANY_MORE = (CommitFailedError, RebalanceInProgressError, IllegalGenerationError, UnknownMemberIdError)
"""A commit that the group refuses: somebody else has the partitions, or is about to."""


class UnreadableRecordError(Exception):
    """A record is broken below its value: its checksum, its structure or a header's name. It cannot even be kept."""


class Assignment(ConsumerRebalanceListener):
    """Which partitions were taken from this consumer since somebody last looked.

    kafka-python calls it on its network thread, from within poll() and close().
    """

    def __init__(self) -> None:
        self.given_up: set[TopicPartition] = set()

    def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        if assigned:
            logger.info("Partitions assigned.", partitions=sorted(p.partition for p in assigned))

    def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        if revoked:
            self.given_up |= set(revoked)
            logger.info("Partitions revoked.", partitions=sorted(p.partition for p in revoked))


class TradeConsumer:
    """Takes trades in until it is told to stop.

    Parameters
    ----------
    stop
        Set by the signal handlers, which do nothing else.
    work
        Takes one poll batch in and enqueues its hints; called on a thread of its own.
    connect
        Returns a consumer that has reached Kafka, or raises KafkaError.
    backlog
        Says when nothing may be taken in; default: one that looks at the database.
    """

    def __init__(
        self,
        stop: Event,
        work: Callable[[Sequence[IncomingMessage]], Intake],
        connect: Callable[[], KafkaConsumer] = connect_consumer,
        backlog: BacklogWatch | None = None,
    ) -> None:
        self._stop = stop
        self._connect = connect
        self._intake = IntakeThread(work, stop)
        self._backlog = backlog or BacklogWatch()
        self._poison = PoisonWatch(settings.POISON_STOP_COUNT, settings.POISON_STOP_SECONDS)
        self._assignment = Assignment()
        self._uncommitted: dict[TopicPartition, OffsetAndMetadata] = {}
        self._join_patience = JOIN_PATIENCE_SECONDS[0]

    def run(self) -> None:
        """Consume until `stop` is set.

        Raises PoisonLimitError, UnreadableRecordError, and whatever is a fault of ours.
        """
        self._backlog.wait_for_first_look()
        logger.info("Consuming trades.", topic=settings.KAFKA_TRADE_TOPIC, group=settings.KAFKA_GROUP_ID)
        try:
            with kafka_trouble() as trouble:
                while consumer := self._connected(trouble):
                    self._consume_with(consumer, trouble)
        finally:
            self._intake.close()
            self._backlog.close()
            logger.info("Stopped consuming trades.")

    def _connected(self, trouble: KafkaTrouble) -> KafkaConsumer | None:
        """A consumer that has joined the group's topic, as soon as Kafka is there; None = told to stop."""
        pause, longest = RECONNECT_SECONDS
        while not self._stop.is_set():
            try:
                consumer = self._connect()
            except KafkaError as error:
                trouble.note(error)
                self._stop.wait(pause)
                pause = min(longest, pause * 2)
                continue
            self._assignment = Assignment()
            self._uncommitted.clear()
            consumer.subscribe([settings.KAFKA_TRADE_TOPIC], listener=self._assignment)
            return consumer
        return None

    def _consume_with(self, consumer: KafkaConsumer, trouble: KafkaTrouble) -> None:
        """Consume until told to stop, or until this consumer is of no use any more."""
        joined_at = time.monotonic()
        try:
            while not self._stop.is_set():
                if consumer.assignment():
                    joined_at, self._join_patience = time.monotonic(), JOIN_PATIENCE_SECONDS[0]
                elif time.monotonic() - joined_at > self._join_patience:
                    logger.info("No partitions were assigned; joining the group anew.", seconds=self._join_patience)
                    self._join_patience = min(JOIN_PATIENCE_SECONDS[1], self._join_patience * 2)
                    return
                try:
                    polled = self._poll(consumer)
                    trouble.look(consumer, heard=bool(polled))
                except RetriableError as error:
                    trouble.note(error)
                    continue
                if polled and not self._take_in(consumer, polled):
                    logger.warning("Stopping with a poll batch in hand; its messages will come again.")
                    return
                self._commit(consumer, trouble)
        except CorruptRecordError as error:
            raise _unreadable(consumer, error) from error
        except KafkaError as error:
            trouble.note(error)
            self._stop.wait(RECONNECT_SECONDS[0])
        finally:
            self._close(consumer)

    def _poll(self, consumer: KafkaConsumer) -> Polled:
        """What there is to take in; nothing while the pipeline is hopelessly behind, and the group is kept informed."""
        if self._backlog.holds_back:
            _poll_nothing(consumer)
            return {}
        if paused := consumer.paused():
            consumer.resume(*paused)
        return consumer.poll(timeout_ms=POLL_MS)

    def _take_in(self, consumer: KafkaConsumer, polled: Polled) -> bool:
        """Have a poll batch taken in. False = told to stop before MongoDB could take it; nothing of it is committed."""
        self._forget_given_up()
        messages = [_message(record) for records in polled.values() for record in records]
        future = self._intake.submit(messages)
        wait([future], HOLD_AFTER_SECONDS)
        if not future.done() and not self._hold(consumer, future):
            return False
        try:
            intake = future.result()
        except PyMongoError:  # It is repeated until somebody stops us.
            return False
        self._uncommitted |= {tp: _offset_after(records[-1]) for tp, records in polled.items()}
        self._log(consumer, intake, polled)
        self._note_poison(consumer, intake)
        return True

    def _hold(self, consumer: KafkaConsumer, future: Future[Intake]) -> bool:
        """Stay in the group while a batch takes long: poll, but let nothing in. False = told to stop meanwhile.

        The batch is kept rather than polled again: a consumer that does not poll for five minutes loses its
        partitions, and one that has to leave them in a rebalance must answer at once.
        """
        told_at: float | None = None
        while not future.done():
            if self._stop.is_set():
                told_at = told_at or time.monotonic()
                if time.monotonic() - told_at > STOP_PATIENCE_SECONDS:
                    return False
            _poll_nothing(consumer)
        consumer.resume(*consumer.paused())
        return True

    def _note_poison(self, consumer: KafkaConsumer, intake: Intake) -> None:
        try:
            self._poison.note(intake)
        except PoisonLimitError:
            self._commit_once(consumer)  # It is stored, so that the next start goes on behind it.
            raise

    def _commit(self, consumer: KafkaConsumer, trouble: KafkaTrouble) -> None:
        """Commit what was taken in; what Kafka cannot take now is tried again after the next poll."""
        try:
            self._commit_once(consumer)
        except RetriableError as error:
            trouble.note(error)

    def _commit_once(self, consumer: KafkaConsumer) -> None:
        self._forget_given_up()
        if not self._uncommitted:
            return
        try:
            consumer.commit(self._uncommitted, timeout_ms=COMMIT_TIMEOUT_MS)
        except NOT_OURS_ANY_MORE as error:
            # Partitions that stay ours are committed after the next poll; the others' new owner repeats the messages.
            logger.info("The group is rebalancing; offsets are not committed yet.", error=type(error).__name__)
            return
        self._uncommitted = {}

    def _forget_given_up(self) -> None:
        """A partition that went to somebody else is theirs to commit, even if it has come back since."""
        given_up, self._assignment.given_up = self._assignment.given_up, set()
        self._uncommitted = {tp: offset for tp, offset in self._uncommitted.items() if tp not in given_up}

    def _close(self, consumer: KafkaConsumer) -> None:
        try:
            consumer.close(autocommit=False, timeout_ms=CLOSE_TIMEOUT_MS)
        except KafkaError as error:
            logger.info("Kafka did not take the leave; the session ends by itself.", error=str(error)[:200])

    def _log(self, consumer: KafkaConsumer, intake: Intake, polled: Polled) -> None:
        logger.debug(
            "Took a poll batch in.",
            **{outcome.value: intake.outcomes[outcome] for outcome in Outcome},
            batches=len(intake.batches),
            lag=lag(consumer, polled),
        )


def _poll_nothing(consumer: KafkaConsumer) -> None:
    """Stay in the group without taking anything out of it; rebalances go on meanwhile."""
    consumer.pause(*consumer.assignment())
    for partition, records in consumer.poll(timeout_ms=200).items():
        # Assigned only just now, so that it was not paused yet.
        consumer.seek(partition, records[0].offset)


def lag(consumer: KafkaConsumer, polled: Polled) -> dict[int, int]:
    """Messages that wait in each partition behind those polled, as of the last fetch."""
    return {
        tp.partition: max(0, highwater - records[-1].offset - 1)
        for tp, records in polled.items()
        if (highwater := _highwater(consumer, tp)) is not None
    }


def _highwater(consumer: KafkaConsumer, partition: TopicPartition) -> int | None:
    return consumer.highwater(partition) if partition in consumer.assignment() else None


def take_in_and_hint(messages: Sequence[IncomingMessage]) -> Intake:
    """Store a poll batch, then enqueue its hints. A hint that cannot be enqueued holds nothing back."""
    intake = take_in(messages, clock.now())
    try:
        send_hints(intake.batches)
    except Exception:
        # The trades are stored and wake by themselves; even an error of ours must not have them polled again for ever.
        logger.exception("Fan-out hints could not be enqueued; the batches wake by themselves.")
    return intake


def _unreadable(consumer: KafkaConsumer, error: KafkaError) -> UnreadableRecordError:
    """kafka-python does not say where it stumbled; it is at one of the positions, or soon behind it in its batch."""
    positions = {tp.partition: consumer.position(tp, timeout_ms=1_000) for tp in consumer.assignment()}
    places = ", ".join(f"{partition}@{offset}" for partition, offset in sorted(positions.items()))
    return UnreadableRecordError(
        f"A record of {settings.KAFKA_TRADE_TOPIC} cannot be read ({error}), at or behind one of {places} "
        "(partition@offset). Nothing was skipped; move the group's offset past it to go on."
    )


def _message(record: Any) -> IncomingMessage:
    return IncomingMessage(
        record.topic, record.partition, record.offset, record.key, record.value, tuple(record.headers)
    )


def _offset_after(record: Any) -> OffsetAndMetadata:
    """The offset of the next message to read, which is what a commit names."""
    return OffsetAndMetadata(record.offset + 1, "", record.leader_epoch)
