"""The trades that keep coming, and which of them Kafka has acknowledged. Needs Django set up."""

from __future__ import annotations

import json
import random
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

from django.conf import settings
from kafka import KafkaProducer

from devstack.demo.trades import TradeGenerator, event_of

HASTE = 20
"""The traders' clock runs so much faster than ours: who holds a position for 20 s leaves it after one."""
TICK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Accepted:
    """A trade that Kafka has acknowledged: from now on it must not be lost."""

    event_id: str
    trader_id: str
    action: str
    partition: int
    offset: int
    at: float  # Monotonic seconds.


class Load:
    """Publishes at a steady pace between :meth:`resume` and :meth:`pause`, from a thread of its own.

    Parameters:
      rate: trades a second.
      seed: the same seed makes the same trades (but for ids and times).
    """

    def __init__(self, producer: KafkaProducer, rate: float, seed: int) -> None:
        self.accepted: list[Accepted] = []
        """In the order in which they were acknowledged."""
        self.unacknowledged = 0
        """Sends that Kafka has not answered yet."""
        self.refused = 0
        """Sends that Kafka has given no acknowledgement for: nothing is promised for those."""
        self._producer = producer
        self._rate = rate
        self._random = random.Random(seed)
        self._trades = TradeGenerator(seed)
        self._number = 0
        self._began = time.monotonic()
        self._burst = 0
        self._lock = threading.Lock()
        self._running = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chaos-load", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def resume(self) -> None:
        self._running.set()

    def pause(self) -> None:
        """Publish nothing more, and wait until Kafka has answered for everything."""
        self._running.clear()
        self._producer.flush(timeout=60)

    def burst(self, trades: int) -> None:
        """So many more trades, at once."""
        with self._lock:
            self._burst += trades

    def stop(self) -> None:
        self._stopped.set()
        self._running.set()
        if self._thread.is_alive():
            self._thread.join(10)
        self._producer.close(timeout=1)

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopped.wait(TICK_SECONDS):
            if not self._running.is_set():
                self._running.wait()
                due = time.monotonic()
                continue
            with self._lock:
                burst, self._burst = self._burst, 0
            for _ in range(burst):
                self._publish()
            while due < time.monotonic():
                self._publish()
                due += self._random.expovariate(self._rate)

    def _publish(self) -> None:
        now = datetime.now(UTC)
        trade = self._trades.next_trade(now + timedelta(seconds=(time.monotonic() - self._began) * (HASTE - 1)))
        if trade is None:
            return
        event = event_of(trade, now)
        self._number += 1
        details: dict[str, Any] = event["tradeDetails"]
        # No two trades are worded alike: where a person gets the same words twice, it is a duplicate.
        details["price"] = f"{Decimal(details['price']) + Decimal(self._number).scaleb(-6):f}"
        if details["productType"] == "INTRADAY":
            details["productType"] = "DELIVERY"  # Whatever the hour, no alert runs out during an outage.
        with self._lock:
            self.unacknowledged += 1
        try:
            sent = self._producer.send(
                settings.KAFKA_TRADE_TOPIC, value=json.dumps(event).encode(), key=event["traderId"].encode()
            )
        except Exception as error:  # Whatever it is, nothing was promised.
            self._note_refused(error)
            return
        sent.add_callback(partial(self._note_accepted, event))
        sent.add_errback(self._note_refused)

    def _note_accepted(self, event: dict[str, Any], place: Any) -> None:
        accepted = Accepted(
            event["eventId"],
            event["traderId"],
            event["tradeDetails"]["action"],
            place.partition,
            place.offset,
            time.monotonic(),
        )
        with self._lock:
            self.unacknowledged -= 1
            self.accepted.append(accepted)

    def _note_refused(self, error: BaseException) -> None:
        with self._lock:
            self.unacknowledged -= 1
            self.refused += 1
