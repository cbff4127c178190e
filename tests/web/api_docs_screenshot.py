"""Makes docs/images/api-docs.png: `python -m pytest tests/web/api_docs_screenshot.py`. Not part of the suite."""

from __future__ import annotations

from playwright.async_api import async_playwright, expect

from tests.web.browser import CHROMIUM
from tests.web.screenshots import IMAGES
from tests.web.server import Server


async def test_picture(server: Server) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page(viewport={"width": 1280, "height": 1240})
        await page.goto(f"http://{server.address}/api/docs/")
        await page.get_by_text("Count what is unread").click()
        await expect(page.get_by_text("For a badge.")).to_be_visible()
        await page.evaluate("document.activeElement.blur()")
        await page.mouse.move(2, 2)
        await page.screenshot(path=IMAGES / "api-docs.png")
        await browser.close()
