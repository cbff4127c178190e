"""What is traded in the demo: instruments, and prices that walk."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from zoneinfo import ZoneInfo

TUESDAY = 1
LEAST_DAYS_TO_EXPIRY = 7


@dataclass(frozen=True, slots=True)
class Instrument:
    """Something that can be traded. Prices are in `currency`; quantities are multiples of `step`."""

    symbol: str
    exchange: str  # Market identifier code; crypto exchanges have none and go by their name.
    currency: str
    price: str  # Where the walk begins.
    tick: str
    products: tuple[str, ...]
    step: str = "1"
    min_notional: str = "0"
    volatility: float = 0.0008  # Standard deviation of one step of the walk.
    strike: str = ""
    right: str = ""

    @property
    def name(self) -> str:
        """The symbol, with strike and right for an option."""
        return f"{self.symbol} {self.strike} {self.right}".strip() if self.strike else self.symbol


def _shares(exchange: str, currency: str, tick: str, products: tuple[str, ...], prices: str) -> tuple[Instrument, ...]:
    pairs = (item.split(":") for item in prices.split())
    return tuple(Instrument(symbol, exchange, currency, price, tick, products) for symbol, price in pairs)


NSE = _shares(
    "XNSE", "INR", "0.05", ("INTRADAY", "INTRADAY", "DELIVERY"),
    "RELIANCE:2945.50 TCS:4120.00 INFY:1862.40 HDFCBANK:1788.25 ICICIBANK:1294.60 SBIN:842.15 BHARTIARTL:1611.30 "
    "ITC:468.75 LT:3655.00 TATAMOTORS:788.40 MARUTI:11240.00 BAJFINANCE:6890.50",
)  # fmt: skip
NASDAQ = _shares(
    "XNAS", "USD", "0.01", ("DELIVERY", "INTRADAY"),
    "AAPL:262.40 NVDA:188.15 MSFT:512.60 AMZN:228.35 GOOGL:281.90 META:640.75 TSLA:428.20 AMD:240.55 NFLX:1120.10",
)  # fmt: skip
CRYPTO = tuple(
    Instrument(symbol, "BINANCE", "USDT", price, tick, ("CRYPTO",), "0.0001", "5", volatility)
    for symbol, price, tick, volatility in (
        ("BTC-USDT", "98450.00", "0.01", 0.0012),
        ("ETH-USDT", "3352.00", "0.01", 0.0015),
        ("SOL-USDT", "168.40", "0.01", 0.0020),
        ("BNB-USDT", "918.70", "0.01", 0.0014),
        ("XRP-USDT", "2.3140", "0.0001", 0.0022),
    )
)
FUTURES = (
    Instrument("NIFTY", "XNSE", "INR", "25940.00", "0.05", ("FUTURES",), step="75", volatility=0.0005),
    Instrument("BANKNIFTY", "XNSE", "INR", "58620.00", "0.05", ("FUTURES",), step="35", volatility=0.0006),
)
OPTIONS = (
    Instrument("NIFTY", "XNSE", "INR", "182.40", "0.05", ("OPTIONS",), "75", "0", 0.006, "26000", "CALL"),
    Instrument("NIFTY", "XNSE", "INR", "141.15", "0.05", ("OPTIONS",), "75", "0", 0.006, "25800", "PUT"),
)


class Market:
    """Prices of all instruments, each on a random walk of its own."""

    def __init__(self, generator: random.Random) -> None:
        self._random = generator
        self._prices: dict[Instrument, float] = {}

    def next_price(self, instrument: Instrument) -> Decimal:
        """The price after another step, in whole ticks."""
        price = self._prices.get(instrument, float(instrument.price))
        price *= math.exp(self._random.gauss(0, instrument.volatility))
        self._prices[instrument] = price
        tick = Decimal(instrument.tick)
        return max(tick, (Decimal(price) / tick).quantize(Decimal(1), ROUND_HALF_EVEN) * tick)


_SQUARE_OFF = {"XNSE": (ZoneInfo("Asia/Kolkata"), time(15, 10)), "XNAS": (ZoneInfo("America/New_York"), time(15, 40))}
_CLOSE = {"XNSE": time(15, 30), "XNAS": time(16, 0)}


def is_closing(exchange: str, now: datetime) -> bool:
    """Whether it is too late in the session to open an intraday position, as every broker would say."""
    if exchange not in _SQUARE_OFF:
        return False
    zone, last_entry = _SQUARE_OFF[exchange]
    local = now.astimezone(zone).time()
    return last_entry <= local < _CLOSE[exchange]


def expiry_after(today: date) -> date:
    """The monthly expiry of index derivatives on NSE, a month's last Tuesday, at least a week ahead."""
    month = today.replace(day=1)
    while True:
        following = (month + timedelta(days=32)).replace(day=1)
        last = following - timedelta(days=1)
        expiry = last - timedelta(days=(last.weekday() - TUESDAY) % 7)
        if expiry >= today + timedelta(days=LEAST_DAYS_TO_EXPIRY):
            return expiry
        month = following
