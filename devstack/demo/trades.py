"""Executed trades that make sense: every trader keeps a book, opens, adds, reduces and closes."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from typing import Any

from devstack.demo.cast import TRADERS, Trader
from devstack.demo.market import Instrument, Market, expiry_after, is_closing

LEAST_HOLD = timedelta(seconds=20)
"""Nobody leaves a position, or changes it, sooner than that."""

FRACTIONS = (Decimal("0.25"), Decimal("0.4"), Decimal("0.5"), Decimal("0.75"))
"""How much of a position is added or given up."""


TRIES = 50
EXITS = ("REDUCE", "CLOSE", "CLOSE")


@dataclass(slots=True)
class Position:
    quantity: Decimal  # Never negative: the demo's traders do not sell short.
    product: str
    changed_at: datetime


@dataclass(slots=True)
class Book:
    """One trader's open positions."""

    trader: Trader
    positions: dict[Instrument, Position] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trade:
    """An executed trade and the book before and after it."""

    trader: Trader
    instrument: Instrument
    product: str
    action: str
    quantity: Decimal
    price: Decimal
    before: Decimal
    after: Decimal


class TradeGenerator:
    """Makes trades, one at a time; the same seed makes the same ones (but for ids and times)."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)
        self._market = Market(self._random)
        self._books = [Book(trader) for trader in TRADERS]
        self._paces = [trader.style.pace for trader in TRADERS]

    def next_trade(self, now: datetime) -> Trade | None:
        """The next trade of whoever is next, or None if nobody has one to make just now."""
        for _ in range(TRIES):
            [book] = self._random.choices(self._books, self._paces)
            trade = self._trade(book, now)
            if trade is not None:
                return trade
        return None

    def _trade(self, book: Book, now: datetime) -> Trade | None:
        style = book.trader.style
        held = list(book.positions)
        free = [i for i in book.trader.instruments if i not in book.positions]
        wants_new = not held or (len(held) < style.positions and self._random.random() < 0.45)
        if wants_new and free:
            return self._open(book, self._random.choice(free), now)
        held = [i for i in held if book.positions[i].changed_at <= now - LEAST_HOLD]
        if not held:
            return None
        instrument = self._random.choice(held)
        is_patient = self._random.random() < style.patience * 0.6
        return self._change(book, instrument, "ADD" if is_patient else self._random.choice(EXITS), now)

    def _open(self, book: Book, instrument: Instrument, now: datetime) -> Trade:
        price = self._market.next_price(instrument)
        stake = Decimal(book.trader.portfolio) * Decimal(self._random.uniform(*book.trader.style.stake))
        step = Decimal(instrument.step)
        quantity = max(step, in_steps(stake / price, step))
        product = self._random.choice(instrument.products)
        if product == "INTRADAY" and is_closing(instrument.exchange, now):
            product = "DELIVERY"
        book.positions[instrument] = Position(quantity, product, now)
        return Trade(book.trader, instrument, product, "OPEN", quantity, price, Decimal(0), quantity)

    def _change(self, book: Book, instrument: Instrument, action: str, now: datetime) -> Trade:
        position = book.positions[instrument]
        position.changed_at = now
        before, step = position.quantity, Decimal(instrument.step)
        quantity = max(step, in_steps(before * self._random.choice(FRACTIONS), step))
        if action == "CLOSE" or (action == "REDUCE" and quantity >= before):
            action, quantity = "CLOSE", before
            del book.positions[instrument]
            after = Decimal(0)
        else:
            after = position.quantity = before + quantity if action == "ADD" else before - quantity
        price = self._market.next_price(instrument)
        return Trade(book.trader, instrument, position.product, action, quantity, price, before, after)


def in_steps(quantity: Decimal, step: Decimal) -> Decimal:
    """The quantity rounded down to a multiple of the step."""
    return (quantity / step).quantize(Decimal(1), ROUND_DOWN) * step


def event_of(trade: Trade, executed_at: datetime) -> dict[str, Any]:
    """The trade as the engine publishes it on `trade.executed`."""
    instrument, trader = trade.instrument, trade.trader
    details = {
        "orderId": f"O-{uuid.uuid4().hex[:12].upper()}",
        "symbol": instrument.symbol,
        "exchange": instrument.exchange,
        "side": "BUY" if trade.action in {"OPEN", "ADD"} else "SELL",
        "action": trade.action,
        "productType": trade.product,
        "quantity": f"{trade.quantity:f}",
        "price": f"{trade.price:f}",
        "currency": instrument.currency,
        "traderPortfolio": trader.portfolio,
        "quantityStep": instrument.step,
        "minQuantity": instrument.step,
        "minNotional": instrument.min_notional,
        "contractMultiplier": "1",  # Index derivatives of NSE are quoted and traded in units, lot by lot.
        "positionBefore": f"{trade.before:f}",
        "positionAfter": f"{trade.after:f}",
        "orderStatus": "FILLED",
        "cumQuantity": f"{trade.quantity:f}",
        "leavesQuantity": "0",
    }
    if trade.product in {"FUTURES", "OPTIONS"}:
        details["expiryDate"] = expiry_after(executed_at.date()).isoformat()
    if trade.product == "OPTIONS":
        details |= {"strike": instrument.strike, "right": instrument.right}
    return {
        "eventId": uuid.uuid4().hex,
        "version": 1,
        "traderId": trader.external_id,
        "executedAt": executed_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "tradeDetails": details,
    }
