"""`python -m devstack.magic`: followers whose own data leads to each outcome and each reason, on the sandbox vendors.

One follower for each magic address (devstack/vendors/magic.py) and one for each reason why an alert is not sent: these
simply have such a portfolio or such preferences. Nothing in NotifyHub knows of them. Loading them again brings back
what an alert has given up. Needs the settings of the stack, as `manage.py` does; `--markdown` needs nothing, and prints
the tables of docs/api.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from devstack.vendors.magic import ADDRESSES, MagicAddress

TRADER = "magic"
TRADE = ("--trader", TRADER, "--currency", "INR", "--min-notional", "5000")
"""Options of `manage.py publish_trade` under which every reason comes about: 50 RELIANCE, intraday, 2,945.50 INR."""


@dataclass(frozen=True, slots=True)
class MagicFollower:
    """A follower who is not sent an alert, and why.

    Parameters:
      why: The reason, for a person.
      reason: The sizing's `reason`, or the delivery's `error_code`.
      is_sized_out: The reason is the sizing's: there are no deliveries.
      line: What the import's line says of them beside the ids.
      wishes: Their preferences.
    """

    name: str
    why: str
    reason: str
    is_sized_out: bool = False
    line: dict[str, Any] = field(default_factory=dict)
    wishes: dict[str, Any] = field(default_factory=dict)

    @property
    def address(self) -> dict[str, str]:
        return {"channel": "fcm", "address": f"magic-accepted-{self.name}", "platform": "android"}


FOLLOWERS = (
    MagicFollower("magic-no-portfolio", "a portfolio of 0", "no_portfolio", True, {"followerPortfolio": "0"}),
    MagicFollower("magic-too-small", "a portfolio of 100", "below_min_qty", True, {"followerPortfolio": "100"}),
    MagicFollower("magic-too-cheap", "a portfolio of 2,000: one share, worth less than the trade's `minNotional`",
                  "below_min_notional", True, {"followerPortfolio": "2000"}),
    MagicFollower("magic-other-currency", "a portfolio in USD", "currency_mismatch", True,
                  {"currency": "USD", "traderPortfolio": None}),
    MagicFollower("magic-muted", "has muted the trader", "muted", wishes={"muted_traders": [TRADER]}),
    MagicFollower("magic-least-value", "wants to hear of orders from 1,000,000 INR on", "below_min_value",
                  wishes={"min_value": {"amount": "1000000", "currency": "INR"}}),
    MagicFollower("magic-channel-off", "has switched FCM off", "channel_off_by_follower",
                  wishes={"channels": {"fcm": "off"}}),
    MagicFollower("magic-critical-only", "wants only critical alerts by FCM", "critical_only",
                  wishes={"channels": {"fcm": "critical_only"}}),
    MagicFollower("magic-quiet-hours", "has quiet hours from 0:00 to 23:59 UTC; before their end by less than the "
                  "alert's validity it waits for it", "quiet_hours",
                  wishes={"quiet_hours": {"start": "00:00", "end": "23:59"}}),
)  # fmt: skip


def name_of(row: MagicAddress) -> str:
    return f"magic-{row.channel}-{row.prefix.removeprefix('magic-').lstrip('+')}"


def lines() -> list[dict[str, Any]]:
    """The followers in the form of `manage.py import_followers`."""
    common = {"traderId": TRADER, "traderPortfolio": "100000", "followerPortfolio": "10000", "currency": "INR"}
    people = [{**common, "followerId": one.name, "endpoints": [one.address], **one.line} for one in FOLLOWERS]
    for row in ADDRESSES:
        endpoint = {"channel": row.channel.removesuffix("_dm"), "address": row.address}
        people.append({**common, "followerId": name_of(row), "endpoints": [endpoint]})
    return people


def load() -> int:
    """Writes the followers as an import does, and their preferences. Returns how many they are. Needs Django."""
    import orjson  # noqa: PLC0415

    from followers import profile  # noqa: PLC0415 - Needs Django, which `main` sets up.
    from followers.import_lines import parse_line  # noqa: PLC0415
    from followers.imports import ImportSummary, write_lines  # noqa: PLC0415
    from followers.models import Follower  # noqa: PLC0415

    parsed = [parse_line(orjson.dumps(line)) for line in lines()]
    write_lines(parsed, ImportSummary())
    for one in FOLLOWERS:
        profile.change_preferences(Follower.objects.get(external_id=one.name).pk, one.wishes)
    return len(parsed)


# --- The tables of docs/api.md ----------------------------------------------------------------------------------------
def markdown() -> str:
    """Both tables, as docs/api.md has them."""
    addresses = [
        (f"`{row.channel}`", f"`{_shown(row)}`", row.what, _end(row.state, row.code), _end(*(row.at_last or ("", ""))))
        for row in ADDRESSES
    ]
    people = [(f"`{one.name}`", one.why, _end("skipped", one.reason)) for one in FOLLOWERS]
    return "\n\n".join(
        (
            _table(("channel", "address", "the vendor", "delivery", "at last"), addresses),
            _table(("follower", "who", "alert"), people),
        )
    )


def _shown(row: MagicAddress) -> str:
    """As much of an address as matters; what follows is free."""
    return f"…/webhooks/ID/{row.prefix}…" if row.channel == "discord" else f"{row.prefix}…"


def _end(state: str, code: str) -> str:
    return f"{state} `{code}`" if code else state


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    written = [f"| {' | '.join(row)} |".replace("|  |", "| |") for row in (head, *rows)]
    return "\n".join((written[0], "|---" * len(head) + "|", *written[1:]))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m devstack.magic", description=__doc__)
    parser.add_argument("--markdown", action="store_true", help="only print the tables of docs/api.md")
    if parser.parse_args().markdown:
        sys.stdout.write(markdown() + "\n")
        return 0
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "notifyhub.settings")
    import django  # noqa: PLC0415

    django.setup()
    sys.stdout.write(f"{load()} followers of trader “{TRADER}”. Now: manage.py publish_trade {' '.join(TRADE)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
