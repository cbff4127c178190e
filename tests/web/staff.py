"""A member of staff at the admin in Chromium, whose clicks are counted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from playwright.async_api import Locator, Page, async_playwright, expect

from tests.admin.scenes import member, session_of
from tests.web.browser import CHROMIUM
from tests.web.server import Server


class Staff:
    """Somebody at the admin's front page. Pictures are taken where `pictures` names a folder."""

    def __init__(self, page: Page, pictures: Path | None) -> None:
        self.page = page
        self.clicks = 0
        self.pictures = pictures
        self.troubles: list[str] = []
        page.on("pageerror", lambda error: self.troubles.append(str(error)))

    async def click(self, what: Locator) -> None:
        self.clicks += 1
        await what.click()

    async def enter(self, field: Locator, text: str) -> None:
        """Typed, and sent by Enter: it counts as a click."""
        await field.fill(text)
        self.clicks += 1
        await field.press("Enter")

    async def picture(self, name: str, full_page: bool = True) -> None:
        if self.pictures is not None:
            await self.page.evaluate("document.fonts.ready")
            await self.page.screenshot(path=self.pictures / f"{name}.png", full_page=full_page)


@asynccontextmanager
async def staff(server: Server, group: str, pictures: Path | None = None, **options: Any) -> AsyncIterator[Staff]:
    """Logged in, as a member of the group."""
    session = await sync_to_async(lambda: session_of(member(group)))()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = await browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
        url = f"http://{server.address}"
        await context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": url}])
        page = await context.new_page()
        await page.goto(f"{url}/admin/")
        yield Staff(page, pictures)
        await browser.close()


async def ask_why(person: Staff, follower: str, trade: str) -> None:
    """Why did this follower not get this alert? From the front page to the answer."""
    page = person.page
    await person.click(page.locator("#nav-sidebar-apps, nav, aside").get_by_role("link", name="Followers").first)
    await person.enter(page.locator("input[name=q]").first, follower)
    await person.click(page.locator("#result_list").get_by_role("link", name=follower, exact=True))
    await expect(page.locator("#id_trade")).to_be_visible()
    await person.picture("support-follower", full_page=False)
    await person.enter(page.locator("#id_trade"), trade)
    await expect(page.locator("#answer")).to_be_visible()
    await person.picture("support-answer", full_page=False)


async def retry_sms(person: Staff) -> None:
    """The SMS vendor was down for an hour: what is still valid goes out. From the front page to the message."""
    page = person.page
    await person.click(page.locator("#nav-sidebar-apps, nav, aside").get_by_role("link", name="Operations").first)
    await person.click(page.locator(".ops a[href*='channel=sms']"))
    await person.picture("support-bucket", full_page=False)
    await person.click(page.locator("#retry-matching"))
    await page.locator("textarea[name=note]").fill("The vendor was down from 9 to 10, and is back.")
    await person.picture("support-retry", full_page=False)
    await person.click(page.get_by_role("button", name="Retry"))
    await expect(page.get_by_text("queued and will be sent within seconds")).to_be_visible()
    await person.picture("support-retried", full_page=False)
