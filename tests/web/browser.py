"""A Chromium for the tests of the inbox component, and the part of the REST API that it needs."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from asgiref.sync import sync_to_async
from bson import ObjectId
from playwright.async_api import BrowserContext, Page, Route, async_playwright

from followers import clock
from followers.models import Follower
from notifications import frames, inbox

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
        await context.route("**/api/v1/inbox/**", Rest(follower).answer)
        yield Visitor(context, follower)
        await browser.close()


class Rest:
    """The inbox over REST, from the real database, answered inside the browser: pages, count and detail."""

    def __init__(self, follower: Follower) -> None:
        self.follower = follower

    async def answer(self, route: Route) -> None:
        url = urlsplit(route.request.url)
        assert route.request.headers["authorization"].startswith("Bearer ")
        name = url.path.removeprefix("/api/v1/inbox/")
        if name == "count":
            count = await sync_to_async(inbox.unread_count)(self.follower.pk, clock.now())
            body: dict[str, Any] = {"count": count}
        elif name:
            body = await self._detail(ObjectId(name))
        else:
            body = await self._page({key: values[0] for key, values in parse_qs(url.query).items()})
        await route.fulfill(status=200, content_type="application/json", body=json.dumps(body))

    async def _page(self, query: dict[str, str]) -> dict[str, Any]:
        limit, start = int(query["limit"]), int(query.get("cursor", "0"))
        found = await sync_to_async(inbox.newest)(self.follower.pk, clock.now(), start + limit + 1)
        page = [frames.created(entry) for entry in found[start : start + limit]]
        following = f"http://elsewhere.example/api/v1/inbox/?limit={limit}&cursor={start + limit}"
        return {"next": following if len(found) > start + limit else None, "previous": None, "results": page}

    async def _detail(self, oid: ObjectId) -> dict[str, Any]:
        [entry] = await sync_to_async(inbox.entries)(self.follower.pk, [oid], clock.now())
        summary = "The trader bought 50. Your portfolio is a tenth of the trader's, so your share is 5."
        steps = [
            {"label": "The trader's quantity", "value": "50"},
            {"label": "Your portfolio to the trader's", "value": "× 0.1"},
            {"label": "Your quantity", "value": entry["payload"]["suggested_qty"]},
        ]
        return {"id": str(oid), "explanation": {"summary": summary, "steps": steps}}
