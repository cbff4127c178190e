"""A Chromium for the tests of the inbox component."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import BrowserContext, Page, async_playwright

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
        yield Visitor(context, follower)
        await browser.close()
