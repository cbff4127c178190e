"""What browsers are told they may load, and whether any page is refused something by it."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import Client
from playwright.async_api import BrowserContext, async_playwright

from tests.admin.builders import World, build_world
from tests.web.server import Server

pytestmark = pytest.mark.django_db(transaction=True)
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def policy(client: Client, path: str) -> dict[str, str]:
    header = client.get(path)["content-security-policy"]
    return {name: sources for name, _, sources in (part.strip().partition(" ") for part in header.split(";"))}


@pytest.mark.parametrize("path", ["/demo/", "/healthz", "/no/such/page"])
def test_our_own_pages_run_nothing_inline_and_load_nothing_from_elsewhere(client: Client, path: str) -> None:
    told = policy(client, path)

    assert told["default-src"] == "'none'"
    assert told["script-src"] == told["style-src"] == told["connect-src"] == "'self'"
    assert told["frame-ancestors"] == told["base-uri"] == "'none'"


def test_the_admin_has_what_its_theme_needs_and_no_inline_script(admin_client: Client) -> None:
    told = policy(admin_client, "/admin/")

    assert told["default-src"] == "'none'"
    assert told["script-src"] == "'self' 'unsafe-eval'"
    assert "http" not in " ".join(told.values())


@pytest.mark.slow
async def test_a_browser_is_refused_nothing_on_any_page(server: Server, settings: Any) -> None:
    settings.DEMO_INBOX = True
    world = await sync_to_async(build_world)()
    cookie = await sync_to_async(staff_session)()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = await browser.new_context()
        troubles = [await trouble(context, server, "/admin/login/")]
        await context.add_cookies([{"name": "sessionid", "value": cookie, "url": f"http://{server.address}"}])
        troubles += [await trouble(context, server, path) for path in pages(world)]
        await browser.close()
    assert [line for lines in troubles for line in lines] == []


def pages(world: World) -> list[str]:
    """One of each kind: the start, a form with widgets, a list, a list with a form of ours, the demo, the docs."""
    return [
        "/admin/",
        f"/admin/followers/follower/{world.follower.pk}/change/",
        "/admin/notifications/notification/",
        "/admin/delivery/proofrun/",
        f"/demo/inbox/{world.follower.external_id}/",
        "/api/docs/",
    ]


def staff_session() -> str:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client.cookies["sessionid"].value


async def trouble(context: BrowserContext, server: Server, path: str) -> list[str]:
    """What the browser complains of while it loads a page and runs its scripts."""
    lines: list[str] = []
    page = await context.new_page()
    page.on("pageerror", lambda error: lines.append(f"{path}: {error}"))
    page.on("console", lambda said: lines.append(f"{path}: {said.text}") if said.type in {"error", "warning"} else None)
    response = await page.goto(f"http://{server.address}{path}", wait_until="load")
    assert response is not None
    assert response.status == 200
    await page.close()
    return lines
