"""A Chromium for the tests of the inbox component."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import BrowserContext, Page, Route, async_playwright

from followers.models import Follower

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Visitor:
    """One person's browser: pages that share a session, and what troubled them."""

    def __init__(self, context: BrowserContext, follower: Follower) -> None:
        self.context = context
        self.follower = follower
        self.troubles: list[str] = []

    async def open(self, address: str) -> Page:
        """The demo's page of the follower's inbox."""
        page = await self.context.new_page()
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("console", self._note)
        await page.goto(f"http://{address}/demo/inbox/{self.follower.external_id}/")
        return page

    def _note(self, message: Any) -> None:
        # The browser itself tells of every connection that fails; that is what some tests are about.
        if message.type in {"error", "warning"} and "WebSocket connection" not in message.text:
            self.troubles.append(message.text)


@asynccontextmanager
async def visitor(follower: Follower, **options: Any) -> AsyncIterator[Visitor]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = await browser.new_context(**options)
        await context.route(re.compile("/api/v1/inbox/[0-9a-f]{24}$"), explain)
        yield Visitor(context, follower)
        await browser.close()


async def explain(route: Route) -> None:
    """The detail of an alert that stands in the database without its trade."""
    summary = "The trader bought 50. Your portfolio is a tenth of the trader's, so your share is 5."
    steps = [
        {"label": "The trader's quantity", "value": "50"},
        {"label": "Your portfolio to the trader's", "value": "× 0.1"},
        {"label": "Your quantity", "value": "5"},
    ]
    await route.fulfill(json={"explanation": {"summary": summary, "steps": steps}})
