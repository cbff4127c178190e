"""Magic addresses and followers: every row that docs/api.md has of them, through the pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from devstack import magic
from devstack.vendors.client import Sandbox
from devstack.vendors.magic import ADDRESSES, MagicAddress
from followers import clock
from followers.models import Endpoint, Follower
from followers.mongo import collection
from notifications.models import Notification
from tests.end_to_end.processes import wait_until
from tests.pipeline import world
from tests.web.server import Server

pytestmark = pytest.mark.django_db(transaction=True)
API_PAGE = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text()
HOOK_TOKEN = "hook-token-0123456789"
TIMEOUT_SECONDS = 2.0
End = tuple[str, str]


@pytest.fixture
def receipts(server: Server, vendors: Sandbox, settings: Any) -> Iterator[None]:
    """Vendors that tell our web server what became of their messages, and channels that soon give up on them."""
    settings.PUBLIC_BASE_URL = f"http://{server.address}"
    settings.ONESIGNAL_HOOK_TOKEN = HOOK_TOKEN
    settings.CHANNEL_POLICIES = {
        name: replace(policy, timeout_seconds=TIMEOUT_SECONDS) for name, policy in settings.CHANNEL_POLICIES.items()
    }
    url = f"{settings.PUBLIC_BASE_URL}/hooks/onesignal/"
    vendors.stream_events(url, {"authorization": f"Bearer {HOOK_TOKEN}"})
    yield
    vendors.stream_events("")


def the_trade(at: datetime | None = None) -> dict[str, Any]:
    return world.trade(magic.TRADER, executed_at=at, minNotional="5000", productType="INTRADAY", exchange="")


def ends() -> dict[str, End]:
    """Follower → state and code of their one delivery to a vendor."""
    names = dict(Follower.objects.values_list("pk", "external_id"))
    return {
        names[row["follower_id"]]: (d["state"], d["error_code"])
        for row in world.alerts()
        for d in row["deliveries"]
        if d["channel"] != "in_app"
    }


def settled(expected: dict[str, End]) -> None:
    """Receipts come when they come; the rest is there already."""
    with suppress(AssertionError):  # The comparison says it better.
        wait_until(collection(Notification), lambda: expected.items() <= ends().items(), "every end", seconds=10)
    found = ends()
    assert {name: found[name] for name in expected} == expected


def given_up(row: MagicAddress) -> bool:
    return "given up" in row.what


def test_every_address_leads_to_its_end(receipts: None, vendors: Sandbox) -> None:
    magic.load()
    Follower.objects.filter(external_id__in=[one.name for one in magic.FOLLOWERS]).delete()
    world.fan_out(the_trade())

    world.deliver_all()

    first = {magic.name_of(row): (row.state, row.code) for row in ADDRESSES}
    settled(first)
    active = {e.follower.external_id: e.active for e in Endpoint.objects.exclude(follower=None) if e.follower}
    assert {name: active[name] for name in first} == {magic.name_of(row): not given_up(row) for row in ADDRESSES}

    world.sweep(after_seconds=60)
    world.deliver_all()
    at_last = {magic.name_of(row): row.at_last or (row.state, row.code) for row in ADDRESSES}
    settled({name: end for name, end in at_last.items() if end == ("delivered", "")})
    world.sweep(after_seconds=2 * 86_400)

    settled(at_last)


def test_every_follower_has_its_reason(vendors: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    noon = clock.now().replace(hour=12, minute=0)
    monkeypatch.setattr(clock, "now", lambda: noon)
    magic.load()

    world.fan_out(the_trade(noon))

    alerts = {Follower.objects.get(pk=row["follower_id"]).external_id: row for row in world.alerts()}
    found = {one.name: alerts[one.name] for one in magic.FOLLOWERS}
    assert {name: row["sizing"]["reason"] for name, row in found.items()} == {
        one.name: one.reason if one.is_sized_out else "" for one in magic.FOLLOWERS
    }
    assert {name: row["state"] for name, row in found.items()} == dict.fromkeys(found, "skipped")
    told = {one.name: world.delivery(found[one.name], "fcm") for one in magic.FOLLOWERS if not one.is_sized_out}
    assert {name: (d["state"], d["error_code"]) for name, d in told.items()} == {
        one.name: ("skipped", one.reason) for one in magic.FOLLOWERS if one.name in told
    }


def test_loading_again_brings_back_what_was_given_up(vendors: Sandbox) -> None:
    magic.load()
    count = Endpoint.objects.count()
    Endpoint.objects.update(active=False)

    assert magic.load() == count

    assert Endpoint.objects.filter(active=True).count() == Endpoint.objects.count() == count


def test_the_page_for_app_developers_has_both_tables() -> None:
    assert magic.markdown() in API_PAGE
