"""The demo's pages: off unless asked for, honest about what they show, and live in a real browser."""

from __future__ import annotations

import json
import re
import shutil
from decimal import Decimal
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.test import Client
from playwright.async_api import Page, async_playwright, expect

from followers.models import Follow, Follower, Trader
from notifications import tokens
from notifications.live import push_alerts
from tests.web import builders
from tests.web.server import Server

pytestmark = pytest.mark.django_db(transaction=True)

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PAGES = ["/demo/", "/demo/inbox/F-ann/", "/demo/inbox/F-ann/token"]


@pytest.fixture
def demo(settings: Any) -> None:
    settings.DEMO_INBOX = True


def config_of(html: str) -> dict[str, Any]:
    found = re.search(r'<script id="inbox-config" type="application/json">(.*?)</script>', html)
    assert found is not None
    return json.loads(found[1])


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_404_while_the_demo_is_off(client: Client, ann: Follower, settings: Any, path: str):
    settings.DEMO_INBOX = False

    assert client.get(path).status_code == 404


@pytest.mark.parametrize("path", ["/demo/inbox/nobody/", "/demo/inbox/nobody/token"])
def test_an_unknown_follower_is_404(client: Client, demo: None, path: str):
    assert client.get(path).status_code == 404


def test_the_list_links_to_each_inbox_and_counts_its_unread(client: Client, demo: None, ann: Follower, bob: Follower):
    builders.stored_entry(ann)

    html = client.get("/demo/").content.decode()

    assert 'href="/demo/inbox/F-ann/"' in html
    assert 'href="/demo/inbox/F-bob/"' in html
    assert re.findall(r'class="badge" aria-label="unread">(\d+)<', html) == ["1"]


def test_the_inbox_carries_a_token_and_the_open_entries(client: Client, demo: None, ann: Follower, bob: Follower):
    entry = builders.stored_entry(ann)
    builders.stored_entry(ann, expires_at=entry["created_at"])  # Over already.
    builders.stored_entry(bob)

    response = client.get("/demo/inbox/F-ann/")
    config = config_of(response.content.decode())

    assert tokens.verify(config["token"]).follower_id == ann.pk
    assert [e["id"] for e in config["entries"]] == [str(entry["_id"])]
    assert config["unread"] == 1
    assert "no-store" in response["cache-control"]  # It carries a token.


def test_the_token_is_renewed(client: Client, demo: None, ann: Follower):
    answer = client.get("/demo/inbox/F-ann/token")

    assert tokens.verify(answer.json()["token"]).follower_id == ann.pk
    assert "no-store" in answer["cache-control"]


def test_a_hostile_name_stays_text(client: Client, demo: None):
    evil = "</script><script>alert(1)</script>"
    follower = Follower.objects.create(external_id="F-evil", name=evil)
    builders.stored_entry(follower, payload={"title": evil, "symbol": evil})

    html = client.get("/demo/inbox/F-evil/").content.decode()

    assert evil not in html
    assert config_of(html)["entries"][0]["payload"]["symbol"] == evil


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium on the PATH")
async def test_a_browser_shows_an_alert_live_and_reads_it(server: Server, demo: None, ann: Follower):
    trader = await Trader.objects.acreate(external_id="T-17", name="Meera", portfolio_value=Decimal(100_000))
    await sync_to_async(Follow.objects.create)(trader=trader, follower=ann)
    troubles: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page()
        page.on("console", lambda message: troubles.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        await page.goto(f"http://{server.address}/demo/inbox/F-ann/")
        await _shows_and_reads(page, ann)
        await browser.close()
    assert troubles == []


async def _shows_and_reads(page: Page, ann: Follower) -> None:
    await expect(page.locator("#connection")).to_have_attribute("data-state", "live")
    await expect(page.locator("#empty")).to_be_visible()

    alert = await sync_to_async(builders.stored_alert)(ann)
    await sync_to_async(push_alerts)([alert], [])

    await expect(page.locator(".entry .symbol")).to_have_text("RELIANCE")
    await expect(page.locator(".entry .quantity-value")).to_have_text("5")
    await expect(page.locator(".entry .left")).to_have_text(re.compile(r"^[45]:\d\d left$"))
    await expect(page.locator("#unread")).to_have_text("1")

    await page.locator(".entry").click()

    await expect(page.locator("#unread")).to_be_hidden()
    stored = await sync_to_async(builders.notification)(alert["_id"])
    assert stored["deliveries"][0]["state"] == "delivered"  # The page acknowledged it when it came.
    assert (await sync_to_async(builders.inbox_entry)(alert["_id"]))["read_at"] is not None
