"""manage.py export_alerts: all that answers "why did I get this, when, and with what quantity"."""

from __future__ import annotations

import csv
import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from delivery import evidence
from delivery.management.commands.export_alerts import cell
from devstack.vendors.client import Sandbox
from followers.models import Endpoint
from tests.pipeline import world

pytestmark = pytest.mark.django_db(transaction=True)


def export(*options: str) -> str:
    out = StringIO()
    call_command("export_alerts", *options, stdout=out, stderr=StringIO())
    return out.getvalue()


def lines(*options: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in export(*options).splitlines()]


def test_an_alert_is_told_with_its_sizing_and_each_attempt(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "sms")
    event = world.trade(trader)
    world.fan_out(event)
    world.deliver_all()

    (told,) = lines("--follower", follower.external_id)

    assert (told["follower"], told["trader"]) == (follower.external_id, trader.external_id)
    assert told["event"] == event["eventId"]
    assert told["sizing"]["suggested_qty"] == "5"
    assert told["sizing"]["follower_portfolio"] == "10000"
    assert "Result: 5 at 2,945.5 INR" in told["explanation"]
    (sms,) = [d for d in told["deliveries"] if d["channel"] == "sms"]
    assert (sms["state"], sms["attempts"]) == ("sent", 1)
    assert sms["attempt_log"][0]["at"].endswith("Z")
    assert Endpoint.objects.get().address not in json.dumps(told)
    assert "…" in sms["address"]


def test_by_event_by_trader_and_by_follower(vendors: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "READ", 2)
    trader = world.make_trader()
    people = [world.make_follower(trader) for _ in range(3)]
    first, second = world.trade(trader), world.trade(trader)
    world.fan_out(first, second)
    assert len(lines("--event", first["eventId"])) == 3
    assert len(lines("--trader", trader.external_id)) == 6
    assert len(lines("--trader", trader.external_id, "--since", "1h")) == 6
    assert lines("--trader", trader.external_id, "--until", "1h") == []
    assert {a["event"] for a in lines("--follower", people[0].external_id)} == {first["eventId"], second["eventId"]}
    with pytest.raises(CommandError, match="No such"):
        export("--follower", "nobody")


def test_csv_has_a_row_per_delivery_and_runs_no_formula(vendors: Sandbox, tmp_path: Path) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm")
    event = world.trade(trader, event='=HYPERLINK("http://x")')
    world.fan_out(event)
    world.deliver_all()
    path = tmp_path / "alerts.csv"

    export("--follower", follower.external_id, "--format", "csv", "--output", str(path))

    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["delivery_channel"] for row in rows} == {"in_app", "fcm"}
    assert rows[0]["event"] == '\'=HYPERLINK("http://x")'
    assert rows[0]["sizing_suggested_qty"] == "5"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+2", "@SUM(A1)", "\t=1", "\r=1", "-"])
def test_text_that_a_spreadsheet_would_run_is_quoted(text: str) -> None:
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["-12.5", "5", "RELIANCE", None, 3, True])
def test_numbers_and_plain_words_stay(value: Any) -> None:
    assert cell(value) == value
