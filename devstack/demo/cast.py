"""The demo's traders: twelve people with different styles, markets and audiences."""

from __future__ import annotations

from dataclasses import dataclass

from devstack.demo.market import CRYPTO, FUTURES, NASDAQ, NSE, OPTIONS, Instrument


@dataclass(frozen=True, slots=True)
class Style:
    """How somebody trades."""

    pace: float  # How often, beside the others.
    stake: tuple[float, float]  # A new position's share of the portfolio, from … to.
    patience: float  # 0..1: how likely a position is kept rather than reduced or closed.
    positions: int  # Held at once, at most.


SCALPER = Style(pace=3.0, stake=(0.04, 0.12), patience=0.25, positions=3)
MOMENTUM = Style(pace=2.0, stake=(0.03, 0.10), patience=0.45, positions=5)
SWING = Style(pace=1.0, stake=(0.04, 0.15), patience=0.65, positions=6)
INVESTOR = Style(pace=0.5, stake=(0.02, 0.08), patience=0.80, positions=9)


@dataclass(frozen=True, slots=True)
class Trader:
    """Somebody who is followed. `audience` is the share of all followers who follow this trader first."""

    external_id: str
    name: str
    style: Style
    currency: str
    portfolio: str
    instruments: tuple[Instrument, ...]
    audience: float


_PEOPLE: tuple[tuple[str, Style, str, str, tuple[Instrument, ...]], ...] = (
    ("Aarav Mehta", MOMENTUM, "INR", "24000000", NSE[:8]),
    ("Emily Carter", SWING, "USD", "1800000", NASDAQ[:6]),
    ("Kenji Sato", SCALPER, "USDT", "640000", CRYPTO),
    ("Priya Nair", INVESTOR, "INR", "18500000", NSE[2:]),
    ("Marcus Webb", MOMENTUM, "USD", "950000", NASDAQ[1:]),
    ("Rohan Kapoor", SCALPER, "INR", "9200000", NSE),
    ("Sofia Rossi", SWING, "USDT", "410000", CRYPTO[:3]),
    ("Vikram Rao", MOMENTUM, "INR", "36000000", (*FUTURES, *OPTIONS, *NSE[:2])),
    ("Ananya Das", SWING, "INR", "7400000", NSE[:6]),
    ("Liam O'Brien", INVESTOR, "USD", "2600000", NASDAQ),
    ("Chen Wei", MOMENTUM, "USDT", "1250000", CRYPTO),
    ("Meera Joshi", INVESTOR, "INR", "5100000", NSE[4:]),
)

BIGGEST_AUDIENCE = 0.4
"""The share of the first trader; the others share the rest by Zipf's law."""


def _cast() -> tuple[Trader, ...]:
    ranks = [1 / rank for rank in range(1, len(_PEOPLE))]
    shares = [BIGGEST_AUDIENCE, *((1 - BIGGEST_AUDIENCE) * rank / sum(ranks) for rank in ranks)]
    return tuple(
        Trader(f"T-{number:02}", name, style, currency, portfolio, instruments, share)
        for number, ((name, style, currency, portfolio, instruments), share) in enumerate(
            zip(_PEOPLE, shares, strict=True), start=1
        )
    )


TRADERS = _cast()
"""The trader with the largest audience first."""
