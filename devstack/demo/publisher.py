"""Puts trades on Kafka at a human pace, as a trading engine would. Needs Django set up."""

from __future__ import annotations

import json
import random
import threading
from concurrent.futures import Future
from datetime import UTC, datetime

from django.conf import settings
from kafka import KafkaProducer

from delivery.kafka import connect_producer
from devstack.demo.trades import TradeGenerator, event_of

PAUSE_SECONDS = (1.0, 2.2)
BURST_CHANCE = 0.05
BURST_TRADES = (3, 6)
BURST_PAUSE_SECONDS = 0.08
SEND_TIMEOUT_SECONDS = 10


class Publisher:
    """Publishes from a thread of its own between :meth:`start` and :meth:`stop`."""

    def __init__(self, producer: KafkaProducer, seed: int | None = None) -> None:
        self.published = 0
        """Trades that Kafka has acknowledged."""
        self._producer = producer
        self._trades = TradeGenerator(seed)
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._ended: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="demo-publisher", daemon=True)

    @classmethod
    def connect(cls) -> Publisher:
        """A publisher that has reached Kafka. Raises KafkaError."""
        return cls(connect_producer())

    def start(self) -> None:
        self._thread.start()

    def check(self) -> None:
        """Raise what ended the publishing, if something did."""
        if self._ended.done():
            self._ended.result()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(SEND_TIMEOUT_SECONDS)
        self._producer.close(timeout=1)

    def _run(self) -> None:
        try:
            burst = 0
            while True:
                self._publish()
                if burst == 0 and self._random.random() < BURST_CHANCE:
                    burst = self._random.randint(*BURST_TRADES)
                pause = BURST_PAUSE_SECONDS if burst else self._random.uniform(*PAUSE_SECONDS)
                burst = max(0, burst - 1)
                if self._stop.wait(pause):
                    break
        except Exception as error:  # Whatever it is, the main thread reports it (`check`).
            self._ended.set_exception(error)
        else:
            self._ended.set_result(None)

    def _publish(self) -> None:
        now = datetime.now(UTC)
        trade = self._trades.next_trade(now)
        if trade is None:
            return
        event = event_of(trade, now)
        sent = self._producer.send(
            settings.KAFKA_TRADE_TOPIC, value=json.dumps(event).encode(), key=event["traderId"].encode()
        )
        sent.get(timeout=SEND_TIMEOUT_SECONDS)
        self.published += 1
