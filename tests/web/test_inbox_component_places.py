"""<notifyhub-inbox> where it is used: on another site's page, on the smallest phone, in the dark, by screen reader."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from playwright.async_api import Page, expect

from followers.models import Follower
from notifications import tokens
from notifications.live import push_alerts
from notifyhub import asgi
from tests.web import builders
from tests.web.browser import CHROMIUM, visitor
from tests.web.server import Server, running_server

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium on the PATH"),
]

stored_alert = sync_to_async(builders.stored_alert)
LONG = {"title": "Sell", "symbol": "NIFTY" * 9, "side": "SELL", "action": "CLOSE", "currency": "INR",
        "price": "123456789012.123456", "suggested_qty": "987654321.12345678", "priority": "critical"}  # fmt: skip


@pytest.fixture(autouse=True)
def demo(settings: Any) -> None:
    settings.DEMO_INBOX = True


PAGE = """<!doctype html><body style="text-align: right">
<script type="module" src="{inbox}/static/notifications/notifyhub-inbox.js"></script>
<notifyhub-inbox base="{inbox}" token="{token}" open></notifyhub-inbox>"""


class Inbox:
    """Where NotifyHub is; known once the pages' origins are."""

    address = ""


@contextmanager
def somebodys_site(host: str, inbox: Inbox, token: str) -> Iterator[str]:
    """A page of another site with the tag, as docs/api.md shows it. Yields the page's origin."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(PAGE.format(inbox=inbox.address, token=token).encode())

        def log_message(self, *arguments: Any) -> None:
            """The tests' output is not its log."""

    with ThreadingHTTPServer((host, 0), Handler) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield f"http://{host}:{site.server_port}"
        site.shutdown()


async def test_a_page_of_another_origin_has_it_live_if_the_settings_name_it(
    ann: Follower, settings: Any, monkeypatch: pytest.MonkeyPatch
):
    await stored_alert(ann)
    inbox, token = Inbox(), tokens.mint(ann)
    # Neither host is in ALLOWED_HOSTS, which lets in pages of our own.
    with somebodys_site("127.0.0.2", inbox, token) as ours, somebodys_site("127.0.0.3", inbox, token) as strangers:
        settings.INBOX_ORIGINS = settings.CORS_ALLOWED_ORIGINS = [ours]
        monkeypatch.setattr(asgi, "application", asgi._application())
        with running_server() as server:
            inbox.address = f"http://{server.address}"
            await _look(ann, ours, strangers)


async def _look(ann: Follower, ours: str, strangers: str) -> None:
    async with visitor(ann) as person:
        page, other = await person.context.new_page(), await person.context.new_page()
        await page.goto(ours)
        await other.goto(strangers)

        await expect(page.locator(".state")).to_have_text("Live")
        await expect(page.locator(".entry")).to_have_count(1)
        alert = await stored_alert(ann)
        await sync_to_async(push_alerts)([alert], [])
        await expect(page.locator(".entry")).to_have_count(2)
        await page.get_by_role("button", name="Why this quantity?").first.click()
        await expect(page.locator(".explanation").first).to_contain_text("your share is 5")

        await expect(other.locator(".state")).to_have_text("The inbox cannot be opened here")
        await expect(other.locator(".entry")).to_have_count(0)


async def opened(page: Page, entries: int) -> None:
    await expect(page.locator(".state")).to_have_text("Live")
    await expect(page.locator(".entry")).to_have_count(entries)


async def test_at_320_px_nothing_scrolls_sideways(server: Server, ann: Follower):
    await stored_alert(ann)
    await stored_alert(ann, payload=LONG)
    async with visitor(ann, viewport={"width": 320, "height": 640}) as person:
        page = await person.open(server.address)
        await opened(page, 2)
        await page.get_by_role("button", name="Why this quantity?").first.click()

        wider = await page.evaluate("""() => {
            const { shadowRoot } = document.querySelector("notifyhub-inbox");
            const parts = [document.documentElement, ...shadowRoot.querySelectorAll(".panel, .scroll, header, .entry")];
            const { innerWidth } = window;
            return parts.filter((part) => part.scrollWidth > Math.min(part.clientWidth, innerWidth))
                .map((part) => `${part.className} ${part.scrollWidth} > ${part.clientWidth}`);
        }""")
        assert wider == []


async def test_it_is_dark_where_the_reader_or_the_page_wants_it(server: Server, ann: Follower):
    async with visitor(ann, color_scheme="dark") as person:
        page = await person.open(server.address)
        await opened(page, 0)
        panel = page.locator("notifyhub-inbox .panel")

        await expect(panel).to_have_css("background-color", "rgb(21, 27, 40)")
        await expect(panel).to_have_css("color", "rgb(238, 241, 248)")
        await page.locator("notifyhub-inbox").evaluate("inbox => inbox.setAttribute('theme', 'light')")
        await expect(panel).to_have_css("background-color", "rgb(255, 255, 255)")
        await expect(panel).to_have_css("color", "rgb(20, 26, 41)")


async def test_a_screen_reader_is_told_what_everything_is(server: Server, ann: Follower):
    await stored_alert(ann)
    async with visitor(ann) as person:
        page = await person.open(server.address)
        await opened(page, 1)

        await expect(page.get_by_role("button", name="Alerts, 1 unread", exact=True)).to_have_attribute(
            "aria-expanded", "true"
        )
        panel = page.get_by_role("dialog", name="Trade alerts")
        await expect(panel.get_by_role("status")).to_have_text("Live")
        for name in ("Mark all read", "Close"):
            await expect(panel.get_by_role("button", name=name, exact=True)).to_have_count(1)
        feed = panel.get_by_role("feed", name="Alerts, newest first")
        await expect(feed).to_have_attribute("aria-busy", "false")
        article = feed.get_by_role("article", name="BUY RELIANCE")
        await expect(article).to_have_attribute("aria-posinset", "1")
        await expect(article).to_have_attribute("aria-setsize", "1")
        for name in ("Mark as read", "Archive"):
            await expect(article.get_by_role("button", name=name, exact=True)).to_have_count(1)
        why = article.get_by_role("button", name="Why this quantity?")
        await expect(why).to_have_attribute("aria-expanded", "false")

        await why.click()

        await expect(why).to_have_attribute("aria-expanded", "true")
        await expect(article.get_by_role("button", name="Mark as unread", exact=True)).to_have_count(1)
