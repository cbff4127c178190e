"""<notifyhub-inbox> in a real Chromium, against the real server."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from bson import ObjectId
from playwright.async_api import Locator, Page, Route, WebSocket, WebSocketRoute, expect

from followers import clock
from followers.models import Follower
from notifications import frames, inbox
from notifications.live import push_alerts
from tests.web import builders
from tests.web.browser import CHROMIUM, visitor
from tests.web.server import Server, running_server

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium on the PATH"),
]

tell = sync_to_async(push_alerts)
stored_alert = sync_to_async(builders.stored_alert)


@pytest.fixture(autouse=True)
def demo(settings: Any) -> None:
    settings.DEMO_INBOX = True


def bell(page: Page) -> Locator:
    return page.locator("notifyhub-inbox .bell")


async def live(page: Page) -> None:
    await expect(page.locator("notifyhub-inbox .state")).to_have_text("Live")


def entry_of(alert: dict[str, Any]) -> str:
    return f".entry[data-id='{alert['_id']}']"


async def arriving(follower: Follower) -> dict[str, Any]:
    alert = await stored_alert(follower)
    await tell([alert], [])
    return alert


async def test_an_alert_arrives_live_is_acknowledged_explained_and_read(server: Server, ann: Follower):
    async with visitor(ann) as person:
        page = await person.open(server.address)
        await live(page)
        await expect(page.get_by_text("You’re all caught up")).to_be_visible()

        alert = await arriving(ann)

        entry = page.locator(".entry")
        await expect(entry.locator(".symbol")).to_have_text("RELIANCE")
        await expect(entry.locator(".chip")).to_have_text("BUY")
        await expect(entry.locator(".quantity b")).to_have_text("5")
        await expect(entry.locator(".left")).to_have_text(re.compile(r"^[45]:\d\d left$"))
        await expect(bell(page)).to_have_attribute("aria-label", "Alerts, 1 unread")

        await page.get_by_role("button", name="Why this quantity?").click()

        await expect(entry.locator(".explanation")).to_contain_text("your share is 5")
        await expect(bell(page)).to_have_attribute("aria-label", "Alerts")
        await page.wait_for_function("() => document.querySelector('notifyhub-inbox').line.waiting.length === 0")
        assert person.troubles == []
    in_app = (await sync_to_async(builders.notification)(alert["_id"]))["deliveries"][0]
    assert (in_app["state"], set(in_app["acks"])) == ("delivered", {"received", "seen", "opened"})
    assert (await sync_to_async(builders.inbox_entry)(alert["_id"]))["read_at"] is not None


async def test_an_alert_in_a_closed_panel_is_received_and_not_seen(server: Server, ann: Follower):
    sockets: list[WebSocket] = []
    said: list[str] = []

    def opened(socket: WebSocket) -> None:
        sockets.append(socket)

    async with visitor(ann) as person:
        person.context.on("page", lambda page: page.on("websocket", opened))
        page = await person.open(server.address)
        await live(page)
        sockets[0].on("framesent", lambda frame: said.extend(re.findall(r'"ack".*"event":"(\w+)"', str(frame))))
        await bell(page).click()
        await expect(page.locator("notifyhub-inbox .panel")).to_be_hidden()
        async with sockets[0].expect_event("framesent", lambda frame: "received" in str(frame)):
            await arriving(ann)
        await expect(bell(page)).to_have_attribute("aria-label", "Alerts, 1 unread")
        assert said == ["received"]

        async with sockets[0].expect_event("framesent", lambda frame: "seen" in str(frame)):
            await bell(page).click()

        assert said == ["received", "seen"]
        assert person.troubles == []


async def test_two_tabs_stay_in_step(server: Server, ann: Follower):
    async with visitor(ann) as person:
        one, two = await person.open(server.address), await person.open(server.address)
        await live(one)
        await live(two)
        await arriving(ann)
        await arriving(ann)
        await expect(one.locator(".entry")).to_have_count(2)
        await expect(two.locator(".entry")).to_have_count(2)

        await one.locator(".entry").first.click()
        await expect(two.locator(".entry.read")).to_have_count(1)
        await expect(bell(two)).to_have_attribute("aria-label", "Alerts, 1 unread")

        await one.locator(".entry").first.hover()
        await one.get_by_role("button", name="Archive").first.click()
        await expect(two.locator(".entry")).to_have_count(1)

        await two.get_by_role("button", name="Mark all read").click()
        await expect(one.locator(".entry.read")).to_have_count(1)
        await expect(bell(one)).to_have_attribute("aria-label", "Alerts")


async def test_it_comes_back_after_the_server_restarts_and_has_missed_nothing(ann: Follower):
    async with visitor(ann) as person:
        with running_server() as first:
            address = first.address
            page = await person.open(address)
            await live(page)
            known, elsewhere = await arriving(ann), await arriving(ann)
            await expect(page.locator(".entry")).to_have_count(2)
        await expect(page.locator(".state")).to_have_text("Reconnecting…")
        await stored_alert(ann)
        await page.locator(entry_of(known)).click()  # Read while the line is down, here and on another device.
        await sync_to_async(inbox.mark_read)(ann.pk, elsewhere["_id"], clock.now())

        with running_server(int(address.rsplit(":", 1)[1])):
            await expect(page.locator(".entry")).to_have_count(3)
            await expect(bell(page)).to_have_attribute("aria-label", "Alerts, 1 unread")
            await expect(page.locator(f"{entry_of(elsewhere)}.read, {entry_of(known)}.read")).to_have_count(2)
            await live(page)
    assert (await sync_to_async(builders.inbox_entry)(known["_id"]))["read_at"] is not None


async def test_a_resume_names_the_newest_entries_of_more_than_it_can(server: Server, ann: Follower):
    """The line is the test's own here: alerts, oldest first, a loss, and what is said on the next one."""
    at, most, more = clock.now() - timedelta(seconds=1), 5, 8
    ids = [str(ObjectId()) for _ in range(more)]
    resumed: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    lines: list[WebSocketRoute] = []

    def created(number: int) -> dict[str, Any]:
        made = builders.entry(ann, at + timedelta(milliseconds=number), _id=ObjectId(ids[number]))
        return frames.created(made)

    async def naming_fewer(route: Route) -> None:
        answer = await route.fetch()
        script, found = re.subn(r"(?<=const MOST_KNOWN_IDS = )\d+", str(most), await answer.text())
        assert found == 1
        await route.fulfill(response=answer, body=script)

    async def line(route: WebSocketRoute) -> None:
        lines.append(route)
        if len(lines) == 1:
            for frame in ({"type": "unread_count.changed", "count": 0}, *map(created, range(more))):
                route.send(json.dumps(frame))
            return

        def heard(message: str | bytes) -> None:
            frame = json.loads(message)
            if frame["type"] == "resume" and not resumed.done():
                resumed.set_result(frame)

        route.on_message(heard)

    async with visitor(ann) as person:
        await person.context.route("**/notifyhub-inbox.js", naming_fewer)
        await person.context.route_web_socket("**/ws/inbox/", line)
        page = await person.open(server.address)
        await expect(page.locator(".entry")).to_have_count(more)
        await lines[0].close(code=1012)
        async with asyncio.timeout(10):
            known = (await resumed)["known"]

    assert known == ids[::-1][:most]


async def test_what_expires_fades_out_and_is_counted_no_more(server: Server, ann: Follower):
    await stored_alert(ann, expires_at=clock.now() + timedelta(seconds=4))
    await stored_alert(ann)
    async with visitor(ann) as person:
        page = await person.open(server.address)
        await expect(page.locator(".entry")).to_have_count(2)

        await expect(page.locator(".entry.leaving")).to_have_count(1)
        await expect(page.locator(".entry")).to_have_count(1)
        await expect(bell(page)).to_have_attribute("aria-label", "Alerts, 1 unread")


async def test_it_is_used_by_keyboard_alone(server: Server, ann: Follower):
    for _ in range(3):
        await stored_alert(ann)
    async with visitor(ann) as person:
        page = await person.open(server.address)
        await expect(page.locator(".entry")).to_have_count(3)
        await page.keyboard.press("Escape")
        await bell(page).focus()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("dialog")).to_be_visible()
        entries = page.get_by_role("article")
        await expect(entries.nth(0)).to_be_focused()

        await page.keyboard.press("ArrowDown")
        await expect(entries.nth(1)).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(entries.nth(1).locator(".explanation")).to_be_visible()
        await page.keyboard.press("Delete")
        await expect(entries).to_have_count(2)
        await expect(entries.nth(1)).to_be_focused()

        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog")).to_be_hidden()
        await expect(bell(page)).to_be_focused()


async def test_older_entries_come_while_scrolling(server: Server, ann: Follower):
    at = clock.now()
    for second in range(45):
        await stored_alert(ann, at - timedelta(seconds=second), expires_at=at + timedelta(hours=1))
    async with visitor(ann) as person:
        page = await person.open(server.address)
        await expect(page.locator(".entry")).to_have_count(20)

        while await page.locator(".more").is_visible():
            before = await page.locator(".entry").count()
            await page.locator(".more").scroll_into_view_if_needed()
            await expect(page.locator(".entry")).not_to_have_count(before)

        await expect(page.locator(".entry")).to_have_count(45)
        ids = await page.locator(".entry").evaluate_all("entries => entries.map((e) => e.dataset.id)")
        assert len(set(ids)) == 45


async def test_a_token_that_ran_out_is_replaced(server: Server, ann: Follower, settings: Any):
    settings.FOLLOWER_TOKEN_SECONDS = 2
    async with visitor(ann) as person:
        page = await person.open(server.address)
        await live(page)
        settings.FOLLOWER_TOKEN_SECONDS = 900

        async with page.expect_request("**/demo/inbox/F-ann/token"):
            pass
        await live(page)
        await arriving(ann)
        await expect(page.locator(".entry")).to_have_count(1)


async def test_hostile_words_stay_text(server: Server, ann: Follower):
    evil = "<img src=x onerror=alert(1)>"
    await stored_alert(ann, payload={"title": evil, "symbol": evil, "side": "BUY", "currency": evil, "price": evil})
    async with visitor(ann) as person:
        page = await person.open(server.address)

        await expect(page.locator(".entry .symbol")).to_have_text(evil)
        await expect(page.locator("notifyhub-inbox img")).to_have_count(0)
        assert person.troubles == []
