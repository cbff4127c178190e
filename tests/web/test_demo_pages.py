"""The demo's pages: off unless asked for, honest about what they show."""

from __future__ import annotations

import re
import shutil
from typing import Any

import pytest
from django.test import Client

from followers.models import Follower
from notifications import tokens
from tests.web import builders

pytestmark = pytest.mark.django_db(transaction=True)

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PAGES = ["/demo/", "/demo/inbox/F-ann/", "/demo/inbox/F-ann/token"]


@pytest.fixture
def demo(settings: Any) -> None:
    settings.DEMO_INBOX = True


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_404_while_the_demo_is_off(client: Client, ann: Follower, settings: Any, path: str):
    settings.DEMO_INBOX = False

    assert client.get(path).status_code == 404


@pytest.mark.parametrize("path", ["/demo/inbox/nobody/", "/demo/inbox/nobody/token"])
def test_an_unknown_follower_is_404(client: Client, demo: None, path: str):
    assert client.get(path).status_code == 404


def test_the_list_links_to_each_inbox_and_counts_its_unread(client: Client, demo: None, ann: Follower, bob: Follower):
    builders.stored_entry(ann)

    html = client.get("/demo/").content.decode()

    assert 'href="/demo/inbox/F-ann/"' in html
    assert 'href="/demo/inbox/F-bob/"' in html
    assert re.findall(r'class="badge" aria-label="unread">(\d+)<', html) == ["1"]


def test_the_inbox_is_one_tag_and_carries_no_token(client: Client, demo: None, ann: Follower):
    html = client.get("/demo/inbox/F-ann/").content.decode()

    assert html.count("<notifyhub-inbox ") == 1
    assert 'token-url="/demo/inbox/F-ann/token"' in html
    assert "ey" + "J" not in html  # As every JWT begins.


def test_the_token_is_renewed(client: Client, demo: None, ann: Follower):
    answer = client.get("/demo/inbox/F-ann/token")

    assert tokens.verify(answer.json()["token"]).follower_id == ann.pk
    assert "no-store" in answer["cache-control"]


def test_a_hostile_name_stays_text(client: Client, demo: None):
    evil = "</script><script>alert(1)</script>"
    Follower.objects.create(external_id="F-evil", name=evil)

    assert evil not in client.get("/demo/inbox/F-evil/").content.decode()
