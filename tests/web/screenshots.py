"""Makes docs/images/inbox-*.png: `python -m pytest tests/web/screenshots.py`. Not part of the suite."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from bson import ObjectId
from playwright.async_api import expect

from followers import clock
from followers.models import Follow, Follower, Trader
from tests.web import builders
from tests.web.browser import visitor
from tests.web.server import Server

pytestmark = pytest.mark.django_db(transaction=True)

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
# ruff: noqa: E501
ALERTS: list[tuple[dict[str, Any], int, int, bool]] = [
    # Payload, age and validity in seconds, read.
    ({"symbol": "RELIANCE", "side": "BUY", "action": "OPEN", "price": "2945.50", "suggested_qty": "5"}, 8, 300, False),
    (
        {
            "symbol": "NIFTY 26NOV 24500 CE", "side": "SELL", "action": "REDUCE", "price": "182.35",
            "suggested_qty": "75", "exit_fraction": "0.4", "priority": "critical",
        },
        96, 900, False,
    ),
    ({"symbol": "HDFCBANK", "side": "SELL", "action": "OPEN", "price": "1712.80", "suggested_qty": "12"}, 215, 300, False),
    (
        {
            "symbol": "BTC-USDT", "side": "BUY", "action": "ADD", "price": "91240.5", "suggested_qty": "0.0125",
            "currency": "USDT",
        },
        252, 300, True,
    ),
    (
        {"title": "Expiry week: margins go up on Thursday", "body": "Check your free margin before the open on Thursday."},
        3_900, 86_400, True,
    ),
    ({"symbol": "INFY", "side": "BUY", "action": "OPEN", "price": "1889.00", "suggested_qty": "1240"}, 9_300, 86_400, True),
    (
        {"symbol": "TCS", "side": "SELL", "action": "CLOSE", "price": "4120.15", "exit_fraction": "1", "priority": "critical"},
        10_500, 86_400, True,
    ),
    ({"symbol": "TATAMOTORS", "side": "BUY", "action": "OPEN", "price": "968.20", "suggested_qty": "30"}, 14_000, 86_400, True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "scheme", "size", "scale"),
    [("light", "light", (1120, 780), 1), ("dark", "dark", (1120, 780), 1), ("mobile", "light", (390, 780), 2)],
)
async def test_picture(server: Server, settings: Any, name: str, scheme: Any, size: tuple[int, int], scale: int):
    settings.DEMO_INBOX = True
    follower = await sync_to_async(_follower)()
    options = {
        "color_scheme": scheme,
        "viewport": {"width": size[0], "height": size[1]},
        "device_scale_factor": scale,
        "reduced_motion": "reduce",
    }
    async with visitor(follower, **options) as person:
        page = await person.open(server.address)
        await expect(page.locator("notifyhub-inbox .state")).to_have_text("Live")
        await expect(page.locator(".entry")).to_have_count(len(ALERTS))
        if name != "mobile":
            await page.get_by_role("button", name="Why this quantity?").first.click()
            await expect(page.locator(".explanation ol").first).to_be_visible()
        await page.mouse.move(2, 400)
        await page.evaluate("document.querySelector('notifyhub-inbox').shadowRoot.activeElement?.blur()")
        IMAGES.mkdir(exist_ok=True)
        await page.screenshot(path=IMAGES / f"inbox-{name}.png")


def _follower() -> Follower:
    follower = Follower.objects.create(
        external_id="F-2048", name="Asha Rao", portfolio_value=Decimal(250_000), currency="INR"
    )
    for number, name in ((17, "Meera Iyer"), (4, "Ravi Kapoor")):
        trader = Trader.objects.create(external_id=f"T-{number}", name=name, portfolio_value=Decimal(2_500_000))
        Follow.objects.create(trader=trader, follower=follower)
    now = clock.now()
    for payload, age, validity, is_read in ALERTS:
        created_at = now - timedelta(seconds=age)
        words = {"title": payload.get("symbol", ""), "currency": "INR", "priority": "high", **payload}
        builders.stored_alert(
            follower,
            created_at,
            payload=words,
            order_id=str(ObjectId()),
            expires_at=created_at + timedelta(seconds=validity),
            read_at=created_at if is_read else None,
        )
    return follower
