"""Makes docs/images/support-*.png and operations*.png: `python -m pytest tests/web/support_screenshots.py`.

Not part of the suite.
"""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.cache import cache

from tests.admin.scenes import busy_scene, follower_scene, outage_scene
from tests.web.screenshots import IMAGES
from tests.web.server import Server
from tests.web.staff import ask_why, retry_sms, staff

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _scene(settings: Any) -> None:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    settings.TWILIO_ACCOUNT_SID, settings.TWILIO_AUTH_TOKEN, settings.TWILIO_FROM = "AC1", "x", "+14155550100"
    cache.clear()


def _everything() -> None:
    follower_scene()
    outage_scene()
    busy_scene()


async def test_support(server: Server) -> None:
    await sync_to_async(_everything)()
    async with staff(server, "Support", IMAGES) as person:
        await ask_why(person, "F-17", "E-LAST")
        await person.page.goto(f"http://{server.address}/admin/")
        await retry_sms(person)
        await person.page.goto(f"http://{server.address}/admin/notifications/tradeevent/?q=E-OUTAGE")
        await person.page.locator("#result_list").get_by_role("link", name="E-OUTAGE", exact=True).click()
        await person.picture("support-trade", full_page=False)


@pytest.mark.parametrize(
    ("name", "scheme", "size", "scale"),
    [
        ("operations", "light", (1440, 900), 1),
        ("operations-dark", "dark", (1440, 900), 1),
        ("operations-mobile", "light", (390, 844), 2),
    ],
)
async def test_operations(server: Server, name: str, scheme: Any, size: tuple[int, int], scale: int) -> None:
    await sync_to_async(_everything)()
    options = {"color_scheme": scheme, "viewport": {"width": size[0], "height": size[1]}, "device_scale_factor": scale}
    async with staff(server, "Operator", IMAGES, **options) as person:
        await person.page.goto(f"http://{server.address}/admin/operations/")
        await person.picture(name)
