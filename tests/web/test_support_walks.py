"""The two tasks that support has most, walked in a browser: each takes under six clicks."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.admin.models import LogEntry
from django.core.cache import cache
from playwright.async_api import expect

from notifications.models import Notification
from tests.admin.scenes import busy_scene, follower_scene, outage_scene
from tests.web.server import Server
from tests.web.staff import ask_why, retry_sms, staff

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _plain_http(settings: Any) -> None:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    settings.TWILIO_ACCOUNT_SID, settings.TWILIO_AUTH_TOKEN, settings.TWILIO_FROM = "AC1", "x", "+14155550100"
    cache.clear()


async def test_why_a_follower_did_not_get_an_alert_takes_under_six_clicks(server: Server) -> None:
    await sync_to_async(follower_scene)()
    async with staff(server, "Support") as person:
        await ask_why(person, "F-17", "E-LAST")
        answer = person.page.locator("#answer")
        await expect(answer).to_contain_text("share is smaller than the smallest quantity that can be traded")
        assert person.clicks < 6
        assert person.troubles == []


async def test_what_is_still_valid_after_an_outage_goes_out_in_under_six_clicks(server: Server) -> None:
    await sync_to_async(outage_scene)(valid=5, over=3)
    async with staff(server, "Support") as person:
        await retry_sms(person)
        assert person.clicks < 6
        assert person.troubles == []
    states = await sync_to_async(lambda: sorted(n.deliveries[-1].state for n in Notification.objects.all()))()
    assert states == ["failed"] * 3 + ["queued"] * 5
    logged = await sync_to_async(lambda: {(e.user.get_username(), e.change_message) for e in LogEntry.objects.all()})()
    assert logged == {("mira", "Retried: The vendor was down from 9 to 10, and is back.")}


async def test_the_operations_page_renews_itself(server: Server) -> None:
    await sync_to_async(busy_scene)()
    async with staff(server, "Support") as person:
        await person.page.clock.install()
        await person.page.goto(f"http://{server.address}/admin/operations/")
        async with person.page.expect_response("**/admin/operations/?fragment") as renewed:
            await person.page.clock.fast_forward(6_000)
        assert (await renewed.value).ok
        await expect(person.page.locator(".ops-chart rect").first).to_be_attached()
        assert person.troubles == []
