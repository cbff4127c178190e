"""manage.py prove: what it says, in which form, and with which exit status."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from pymongo.errors import ServerSelectionTimeoutError

from delivery import proof
from delivery.management.commands.prove import parse_since
from delivery.models import ProofRun
from devstack.vendors.client import Sandbox
from followers.mongo import collection
from notifications.models import Notification
from tests.pipeline import world

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def run(*arguments: str) -> tuple[int, str]:
    """The exit status and what was written."""
    out = StringIO()
    try:
        call_command("prove", *arguments, stdout=out, no_color=True)
    except SystemExit as ended:
        return int(str(ended.code)), out.getvalue()
    return 0, out.getvalue()


@pytest.mark.django_db(transaction=True)
def test_a_healthy_system_proves_with_its_figures(vendors: Sandbox) -> None:
    trader = world.make_trader()
    world.make_follower(trader, "fcm")
    world.make_follower(trader, "sms")
    world.fan_out(world.trade(trader))
    world.deliver_all()

    status, text = run()

    assert status == 0
    assert "1 all that are stored: 1 fanned out" in text
    assert "2 surely owed, 2 of them found; 2 stored" in text
    assert "fcm:        1 sent" in text
    assert text.endswith("Proved: nobody was forgotten.\n")


@pytest.mark.django_db(transaction=True)
def test_a_gap_is_named_in_a_line_and_ends_in_1(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader)
    event = world.trade(trader)
    world.fan_out(event)
    collection(Notification).delete_many({})

    status, text = run("--since", "24h")

    assert status == 1
    (line,) = [line for line in text.splitlines() if line.startswith("Alert missing: ")]
    assert follower.external_id in line
    assert event["eventId"] in line
    assert text.endswith("Not proved: 1 missing.\n")


@pytest.mark.django_db(transaction=True)
def test_more_gaps_than_are_named_are_counted(vendors: Sandbox) -> None:
    trader = world.make_trader()
    for _ in range(103):
        world.make_follower(trader)
    world.fan_out(world.trade(trader))
    collection(Notification).delete_many({})

    status, text = run()

    assert status == 1
    assert text.count("Alert missing: ") == 100
    assert "… and 3 more." in text


@pytest.mark.django_db(transaction=True)
def test_json_says_the_same_to_machines_and_the_run_is_kept() -> None:
    trader = world.make_trader()
    world.make_follower(trader)
    world.fan_out(world.trade(trader))
    healthy, text = run("--json")
    assert (healthy, json.loads(text)["proved"], json.loads(text)["missing"]) == (0, True, 0)
    collection(Notification).delete_many({})

    status, text = run("--json", "--since", "7d")

    result = json.loads(text)
    assert (status, result["proved"], result["gaps"]) == (1, False, {"alert_missing": 1})
    assert set(result["findings"][0]) == {"gap", "text", "event_id", "event", "notification", "follower"}
    kept = ProofRun.objects.order_by("-id")[0]
    assert (kept.by, kept.missing, kept.result) == ("manage.py prove", 1, result)


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("24h", "2026-11-23T12:00:00+00:00"),
        ("90m", "2026-11-24T10:30:00+00:00"),
        ("30s", "2026-11-24T11:59:30+00:00"),
        ("7d", "2026-11-17T12:00:00+00:00"),
        ("2w", "2026-11-10T12:00:00+00:00"),
        ("2026-11-20", "2026-11-20T00:00:00+00:00"),
        ("2026-11-20T09:15", "2026-11-20T09:15:00+00:00"),
        ("2026-11-20 09:15:30", "2026-11-20T09:15:30+00:00"),
        ("2026-11-20T09:15+05:30", "2026-11-20T03:45:00+00:00"),
        ("2026-11-20T09:15:00Z", "2026-11-20T09:15:00+00:00"),
    ],
)
def test_since_is_a_time_or_how_long_ago(text: str, since: str) -> None:
    assert parse_since(text, NOW).isoformat() == since


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("yesterday", "is no time"),
        ("", "is no time"),
        ("24", "is no time"),
        ("-24h", "is no time"),
        ("999999999w", "is no time"),
        ("2026-13-01", "is no time"),
        ("2026-11-25", "lies in the future"),
    ],
)
def test_a_wrong_since_is_one_line_and_status_2(text: str, words: str) -> None:
    with pytest.raises(CommandError, match=words) as refused:
        parse_since(text, NOW)
    assert refused.value.returncode == 2
    assert "\n" not in str(refused.value)


@pytest.mark.django_db(transaction=True)
def test_a_database_that_stays_away_is_one_line_and_status_3(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*args: Any) -> None:
        raise ServerSelectionTimeoutError("no primary")

    monkeypatch.setattr(proof.statements, "count_events", away)
    with pytest.raises(CommandError, match="could not be finished: no primary") as failed:
        run()
    assert failed.value.returncode == 3
