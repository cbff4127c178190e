"""Who follows whom and on which addresses: made here, so that the judge does not have to ask what it judges."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devstack.demo.followers import endpoint_for, follower_id, follower_lines
from devstack.vendors.discord import WEBHOOK_URL

DIRECT_MESSAGE = "discord-dm"
FIRST_SNOWFLAKE = 3_000_000_000_000_000_000
CHANNELS: tuple[tuple[str, ...], ...] = (
    ("fcm",), ("apns",), ("sms",), ("discord",), (DIRECT_MESSAGE,), ("onesignal",), (), ("fcm", "sms"),
    ("apns", "apns"), ("fcm", "discord", "onesignal"),
)  # fmt: skip
"""Every tenth follower's channels: all of them get their share of the load, and some have several devices."""

Owner = tuple[int, str]
"""A follower's number and a channel; a trader's community has number 0."""
COMMUNITY = 0


@dataclass
class Audience:
    """The followers 1 to `size`.

    `followers_of`: trader → numbers. `channels_of`: number → how many endpoints on each channel.
    `owners`: channel and address, in the vendor's own form, → whose it is.
    """

    size: int
    followers_of: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    channels_of: dict[int, dict[str, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    owners: dict[tuple[str, str], Owner] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number in range(1, self.size + 1):
            for line in lines(number):
                self.followers_of[line["traderId"]].append(number)
            for endpoint in line["endpoints"]:
                channel = endpoint["channel"]
                self.channels_of[number][channel] += 1
                self.owners[channel, vendor_form(endpoint["address"])] = (number, channel)

    def write(self, path: Path) -> None:
        """The lines for `manage.py import_followers`."""
        with path.open("w", encoding="utf-8") as file:
            for number in range(1, self.size + 1):
                file.writelines(json.dumps(line) + "\n" for line in lines(number))


def lines(number: int) -> Iterator[dict[str, Any]]:
    """The demo's follower, with other channels."""
    generator = random.Random(f"chaos {number}")
    channels = CHANNELS[number % len(CHANNELS)]
    endpoints = [_endpoint(channel, number, device, generator) for device, channel in enumerate(channels)]
    for line in follower_lines(number):
        yield {**line, "endpoints": endpoints}


def _endpoint(channel: str, number: int, device: int, generator: random.Random) -> dict[str, str]:
    if channel == DIRECT_MESSAGE:
        return {"channel": "discord", "address": str(FIRST_SNOWFLAKE + number)}
    return endpoint_for(channel, number, device, generator)


def vendor_form(address: str) -> str:
    """An address as the sandbox records it."""
    webhook = WEBHOOK_URL.fullmatch(address)
    return webhook[1] if webhook else address


def external_ids(size: int) -> dict[str, int]:
    """External id → number."""
    return {follower_id(number): number for number in range(1, size + 1)}
