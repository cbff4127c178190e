"""What docs/api.md says of payloads and wrong fields is what the pipeline and the calls say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings

from delivery.choices import BatchKind
from delivery.fan_out import fan_out_shard
from delivery.updates import Draft, publish_update, send_test_alert
from followers import clock
from followers.api import idempotency
from followers.api.errors import RETRY_AFTER_SECONDS
from followers.models import Follow, Follower
from followers.mongo import REPEAT_FOR_SECONDS
from notifications import inbox
from notifications.api.examples import ENTRY
from notifications.sockets import SILENCE_SECONDS
from tests.api.conftest import as_follower
from tests.pipeline import world
from tests.web import builders

pytestmark = pytest.mark.django_db(transaction=True)

PAGE = (settings.BASE_DIR / "docs" / "api.md").read_text(encoding="utf-8")
WORDS = " ".join(PAGE.split())
EXIT = {"action": "CLOSE", "side": "SELL", "positionBefore": "50", "positionAfter": "0"}
KINDS: dict[str, tuple[set[str], dict[str, Any]]] = {
    "an entry": ({"all", "trades"}, {}),
    "an exit": ({"all", "trades", "exits"}, EXIT),
    "an exit from who knows how much": ({"all", "trades"}, {"action": "REDUCE", "side": "SELL"}),
}


def documented(kinds: set[str]) -> set[str]:
    """The fields that the page's table has for payloads of these kinds."""
    table = PAGE.partition("\n## What an alert says\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \| (\w+) \| ", table, re.MULTILINE)
    assert rows
    return {name for names, kind in rows if kind in kinds for name in re.findall(r"`(\w+)`", names)}


def follower() -> Follower:
    return world.make_follower(world.make_trader())


def told(who: Follower) -> dict[str, str]:
    """The payload of the newest alert, which the inbox and the alert's detail have alike."""
    api = as_follower(who)
    entry = api.get("/api/v1/inbox/").json()["results"][0]
    assert api.get(f"/api/v1/inbox/{entry['id']}/").json()["payload"] == entry["payload"]
    return entry["payload"]


def fan_out_all() -> None:
    for batch in world.unclaimed(BatchKind.FAN_OUT):
        fan_out_shard(batch["_id"])


@pytest.mark.parametrize("name", KINDS)
def test_a_trade_says_what_the_page_lists(name: str) -> None:
    kinds, details = KINDS[name]
    who = follower()

    world.fan_out(world.trade(Follow.objects.get(follower=who).trader, **details))

    assert told(who).keys() == documented(kinds)


def test_an_update_says_what_the_page_lists() -> None:
    who = follower()
    publish_update(
        Draft(external_id="U-1", title="Early close", text="At 14:00.", trader="", followers=(who.external_id,))
    )
    fan_out_all()

    assert told(who).keys() == documented({"all", "updates"})


def test_a_test_alert_says_what_the_page_lists() -> None:
    who = follower()
    send_test_alert(who)
    fan_out_all()

    assert told(who).keys() == documented({"all", "updates", "tests"})


def test_the_schemas_example_and_the_tests_entries_say_what_a_trade_says(ann: Follower) -> None:
    assert ENTRY["payload"].keys() == builders.entry(ann)["payload"].keys() == documented({"all", "trades"})


# --- Figures ---------------------------------------------------------------------------------------------------------
def test_the_figures_of_time_outs_and_retries_are_the_servers(settings: Any) -> None:
    for phrase in (
        f"holds its key for {idempotency.UNDER_WAY_SECONDS} s",
        f"Its answer is kept for {idempotency.KEPT_SECONDS // 3_600} h",
        f"`Retry-After` seconds later ({RETRY_AFTER_SECONDS})",
        f"repeats a statement for {inbox.PATIENCE_SECONDS:g} s",
        f"the same for {REPEAT_FOR_SECONDS:g} s a statement",
        f"Tokens** last {settings.FOLLOWER_TOKEN_SECONDS} s",
        f"says nothing for {SILENCE_SECONDS} s",
        f"`API_SERVICE_PER_MINUTE` for a key ({settings.API_SERVICE_PER_MINUTE:,})",
        f"`API_FOLLOWER_PER_MINUTE` for a follower ({settings.API_FOLLOWER_PER_MINUTE:,})",
    ):
        assert phrase in WORDS


# --- Times -----------------------------------------------------------------------------------------------------------
def test_since_takes_another_offset_once_its_plus_is_encoded(ann: Follower) -> None:
    noon = clock.now() - timedelta(hours=1)
    builders.stored_entry(ann)
    api, local = as_follower(ann), (noon + timedelta(hours=5, minutes=30)).strftime("%Y-%m-%dT%H:%M:%S")

    assert len(api.get(f"/api/v1/inbox/?since={local}%2B05:30").json()["results"]) == 1
    assert api.get(f"/api/v1/inbox/?since={local}+05:30").json()["code"] == "invalid"


# --- Wrong fields ----------------------------------------------------------------------------------------------------
WRONG: dict[str, list[Any]] = {
    "inbox/read": [{}, {"ids": 1}, {"ids": ["x"]}, {"ids": []}, {"ids": [None]}, {"ids": [""]}, {"before": "x"}, 1],
    "inbox/6742a1c83f0e9d5b7c8a1e2f/ack": [
        {}, {"event": "x"}, {"event": None}, {"event": "seen", "device_id": "6742a1c83f0e9d5b7c8a1e30"},
    ],
    "devices": [{}, {"channel": "sms"}],
}  # fmt: skip


def codes() -> Iterator[str]:
    sentence = WORDS.partition("That `code` is one of")[2].partition("Of `/preferences`")[0]
    assert sentence
    yield from re.findall(r"`(\w+)`", sentence)


@pytest.mark.parametrize(("path", "body"), [(path, body) for path, bodies in WRONG.items() for body in bodies])
def test_the_code_of_a_wrong_field_is_one_that_the_page_lists(ann: Follower, path: str, body: Any) -> None:
    answer = as_follower(ann).post(f"/api/v1/{path}", body, format="json")

    assert answer.status_code == 400
    assert {error["code"] for error in answer.json()["errors"]} <= set(codes())
