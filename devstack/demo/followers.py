"""The demo's followers: as many as asked for, always the same ones, as lines for `manage.py import_followers`."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

from devstack.demo.cast import TRADERS, Trader

SET_VERSION = 1
"""Raised whenever the same number would make other followers: what was loaded before is then replaced."""

MEDIAN_PORTFOLIO = {"INR": 420_000.0, "USD": 24_000.0, "USDT": 8_000.0}
SPREAD = 1.0  # Sigma of the log-normal distribution.
HOME = {
    "INR": (("en", "Asia/Kolkata"), ("hi", "Asia/Kolkata")),
    "USD": (("en-US", "America/New_York"), ("en-US", "America/Los_Angeles"), ("en-GB", "Europe/London")),
    "USDT": (("en", "Asia/Singapore"), ("de", "Europe/Berlin"), ("pt-BR", "America/Sao_Paulo")),
}
OTHER_CURRENCY, TINY, DERIVATIVES_RICHER = 0.025, 0.04, 12
SECOND_TRADER, THIRD_TRADER = 0.25, 0.06

CHANNELS: tuple[tuple[tuple[str, ...], float], ...] = (
    ((), 25),  # In-app only.
    (("fcm",), 30),
    (("apns",), 17),
    (("onesignal",), 7),
    (("sms",), 3),
    (("discord",), 3),
    (("fcm", "fcm"), 4),  # A phone and a tablet.
    (("apns", "apns"), 3),
    (("apns", "fcm"), 2),
    (("fcm", "sms"), 3),
    (("apns", "discord"), 2),
    (("fcm", "onesignal", "discord"), 1),
)
"""Who uses what, in percent."""

FIRST_AREA, AREAS, LINES_PER_AREA = 201, 780, 100
"""North American numbers 555-0100 to 555-0199 are set aside for fiction in every area: nobody's phone rings."""


def follower_id(number: int) -> str:
    return f"F-{number:06}"


def write_followers(path: Path, count: int) -> int:
    """Write the lines of so many followers; returns the number of lines, one for each trader that one follows."""
    lines = 0
    with path.open("w", encoding="utf-8") as file:
        for number in range(1, count + 1):
            for line in follower_lines(number):
                file.write(json.dumps(line, separators=(",", ":")) + "\n")
                lines += 1
    return lines


def follower_lines(number: int) -> Iterator[dict[str, Any]]:
    """One line for each trader whom follower `number` follows; the same lines every time."""
    generator = random.Random(f"follower {number}")
    first = _first_trader(generator)
    currency, portfolio = _money(generator, first)
    locale, timezone = generator.choice(HOME[currency])
    endpoints = [
        endpoint_for(channel, number, device, generator) for device, channel in enumerate(_channels(generator, number))
    ]
    for trader in (first, *_more_traders(generator, first)):
        line: dict[str, Any] = {
            "traderId": trader.external_id,
            "followerId": follower_id(number),
            "followerPortfolio": f"{portfolio:.2f}",
            "currency": currency,
            "multiplier": generator.choices(("1", "0.5", "2"), (85, 8, 7))[0],
            "locale": locale,
            "timezone": timezone,
            "endpoints": endpoints,
        }
        if generator.random() < 0.15:
            line["allocation"] = f"{portfolio * generator.uniform(0.2, 0.6):.2f}"
        if currency == trader.currency:  # A line's currency is that of both amounts in it.
            line["traderPortfolio"] = trader.portfolio
        yield line


def featured() -> dict[str, str]:
    """Followers worth looking at, among the first 200: what is special about each → external id."""
    followed = {n: [line["traderId"] for line in follower_lines(n)] for n in range(1, 201)}
    busiest = max(followed, key=lambda n: (len(followed[n]), TRADERS[0].external_id in followed[n], -n))
    fans = [n for n, traders in followed.items() if traders == [TRADERS[0].external_id] and n != busiest]
    crypto = next(t for t in TRADERS if t.currency == "USDT")
    coins = [n for n, traders in followed.items() if crypto.external_id in traders and n != busiest]
    return {
        f"follows {len(followed[busiest])} traders": follower_id(busiest),
        f"follows {TRADERS[0].name}": follower_id(fans[0]),
        f"follows {crypto.name} (crypto)": follower_id(coins[0]),
    }


def _first_trader(generator: random.Random) -> Trader:
    return generator.choices(TRADERS, [trader.audience for trader in TRADERS])[0]


def _more_traders(generator: random.Random, first: Trader) -> list[Trader]:
    """Mostly none; else others who trade in the same currency."""
    chance = generator.random()
    wanted = 2 if chance < THIRD_TRADER else 1 if chance < SECOND_TRADER else 0
    others = [t for t in TRADERS if t is not first and t.currency == first.currency]
    return generator.sample(others, min(wanted, len(others)))


def _money(generator: random.Random, trader: Trader) -> tuple[str, float]:
    """(currency, portfolio): log-normal, some tiny, and some in another currency than their trader's."""
    currency = trader.currency
    if generator.random() < OTHER_CURRENCY:
        currency = generator.choice([c for c in MEDIAN_PORTFOLIO if c != currency])
    portfolio = MEDIAN_PORTFOLIO[currency] * generator.lognormvariate(0, SPREAD)
    if any(i.products == ("FUTURES",) for i in trader.instruments):
        portfolio *= DERIVATIVES_RICHER  # A lot is no small change.
    if generator.random() < TINY:
        portfolio /= 200
    return currency, portfolio


def _channels(generator: random.Random, number: int) -> tuple[str, ...]:
    if number > AREAS * LINES_PER_AREA:  # No fictional phone number is left.
        choices = [(channels, weight) for channels, weight in CHANNELS if "sms" not in channels]
    else:
        choices = list(CHANNELS)
    return generator.choices([c for c, _ in choices], [w for _, w in choices])[0]


def endpoint_for(channel: str, number: int, device: int, generator: random.Random) -> dict[str, str]:
    """An address in the vendor's form, one of its own for each follower and device."""
    match channel:
        case "fcm":
            address = f"{_text(generator, 22)}:APA91b{_text(generator, 134)}"
            return {"channel": channel, "address": address, "platform": "android"}
        case "apns":
            return {"channel": channel, "address": generator.randbytes(32).hex(), "platform": "ios"}
        case "sms":
            area, line = divmod(number - 1, LINES_PER_AREA)
            return {"channel": channel, "address": f"+1{FIRST_AREA + area}55501{line:02}"}
        case "discord":
            snowflake = 1_000_000_000_000_000_000 + number * 10 + device
            address = f"https://discord.com/api/webhooks/{snowflake}/{_text(generator, 68)}"
            return {"channel": channel, "address": address}
        case _:
            return {"channel": channel, "address": str(UUID(bytes=generator.randbytes(16), version=4))}


_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"


def _text(generator: random.Random, length: int) -> str:
    return "".join(generator.choices(_ALPHABET, k=length))
