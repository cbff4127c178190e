"""Services look alerts up: one with its deliveries and timeline, lists by index; no address is ever whole."""

from __future__ import annotations

from typing import Any

import pytest
from bson import ObjectId
from rest_framework.test import APIClient

from followers import clock
from followers.choices import Scope
from followers.mongo import collection
from notifications import lookup
from notifications.acks import acknowledge
from notifications.choices import AckEvent, NotificationState
from notifications.frames import Ack
from notifications.lookup import Wanted
from notifications.models import Notification
from notifications.statements import event_id
from tests.api.conftest import as_follower, as_service, code_of
from tests.pipeline import world
from tests.pipeline.world import add_endpoint, alert, fan_out, make_follower, make_trader, trade

ALERTS = "/api/v1/notifications/"


@pytest.fixture
def service(transactional_db: None) -> APIClient:
    return as_service(Scope.NOTIFICATIONS_READ)


def ids(page: dict[str, Any]) -> list[str]:
    return [row["id"] for row in page["results"]]


def test_an_alert_is_shown_with_its_deliveries_and_its_timeline(service, vendors):
    trader = make_trader()
    follower = make_follower(trader, "fcm")
    event = trade(trader)
    fan_out(event)
    world.deliver_all()
    row = alert(event, follower)

    shown = service.get(f"{ALERTS}{row['_id']}").json()

    assert (shown["event_id"], shown["trader_id"]) == (event["eventId"], trader.external_id)
    assert (shown["follower_id"], shown["state"], shown["sizing"]["suggested_qty"]) == (
        follower.external_id, "delivered", "5",
    )  # fmt: skip
    in_app, fcm = shown["deliveries"]
    assert (in_app["channel"], in_app["state"], in_app["address"]) == ("in_app", "sent", None)
    assert (fcm["channel"], fcm["state"], fcm["attempts"]) == ("fcm", "sent", 1)
    assert [step["what"] for step in shown["timeline"]][:3] == ["executed", "received", "stored"]
    assert "attempt_sent" in [step["what"] for step in shown["timeline"]]


def test_what_the_app_said_is_shown_of_each_delivery(service):
    trader = make_trader()
    follower = make_follower(trader, "fcm")
    event = trade(trader)
    fan_out(event)
    row = alert(event, follower)["_id"]
    at = clock.now().replace(microsecond=0)
    acknowledge(follower.pk, Ack(row, AckEvent.SEEN), at)

    shown = service.get(f"{ALERTS}{row}").json()

    in_app, fcm = shown["deliveries"]
    said = at.isoformat().replace("+00:00", "Z")
    assert in_app["acks"] == {"received": None, "seen": said, "opened": None}
    assert set(fcm["acks"].values()) == {None}
    assert ("ack_seen", "in_app", said) in [(s["what"], s["channel"], s["at"]) for s in shown["timeline"]]


def test_no_address_is_whole_not_even_in_a_vendors_words(service):
    trader = make_trader()
    follower = make_follower(trader)
    endpoint = add_endpoint("sms", follower=follower)
    event = trade(trader)
    fan_out(event)
    row = alert(event, follower)
    log = {"at": clock.now(), "outcome": "failed", "code": "21211", "latency_ms": 1.0, "breaker": ""}
    change = {"attempt_log": [{**log, "message": f"{endpoint.address} is no number"}]}
    collection(Notification).update_one(
        {"_id": row["_id"]}, {"$set": {f"deliveries.1.{name}": value for name, value in change.items()}}
    )

    answer = service.get(f"{ALERTS}{row['_id']}")

    assert endpoint.address not in answer.content.decode()
    assert answer.json()["deliveries"][1]["address"] == "…" + endpoint.address[-2:]
    assert "is no number" in answer.content.decode()


@pytest.mark.parametrize("by", ["follower_id", "trader_id", "event_id", None])
def test_pages_of_each_list_follow_each_other_without_a_gap(service, by):
    trader, other = make_trader(), make_trader()
    followers = [make_follower(trader) for _ in range(3)]
    make_follower(other)
    events = [trade(trader) for _ in range(3)]
    fan_out(*events, trade(other))
    value = {"follower_id": followers[0].external_id, "trader_id": trader.external_id, "event_id": events[0]["eventId"]}
    address = f"{ALERTS}?limit=2" + (f"&{by}={value[by]}" if by else "")
    seen: list[str] = []

    while address is not None:
        page = service.get(address).json()
        seen += ids(page)
        address = page["next"]

    assert len(seen) == len(set(seen)) == {"follower_id": 3, "trader_id": 9, "event_id": 3, None: 10}[by]


def test_alerts_are_found_by_their_state(service):
    trader = make_trader()
    good, poor = make_follower(trader), make_follower(trader, portfolio=None)
    event = trade(trader)
    fan_out(event)
    oid = alert(event, good)["_id"]
    collection(Notification).update_one({"_id": oid}, {"$set": {"state": "failed"}})

    assert ids(service.get(ALERTS, {"state": "failed"}).json()) == [str(oid)]
    assert ids(service.get(ALERTS, {"state": "failed", "trader_id": trader.external_id}).json()) == [str(oid)]
    skipped = service.get(ALERTS, {"state": "skipped", "event_id": event["eventId"]}).json()
    assert [row["follower_id"] for row in skipped["results"]] == [poor.external_id]
    assert skipped["results"][0]["sizing"]["reason"] == "no_portfolio"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"state": "lost"}, "invalid"),
        ({"state": "pending"}, "invalid"),
        ({"cursor": "x"}, "invalid_cursor"),
        ({"limit": "1000"}, "invalid"),
    ],
)
def test_a_wrong_query_is_named(service, query, code):
    assert code_of(service.get(ALERTS, query), 400) == code


@pytest.mark.parametrize("state", ["pending", "delivered", "skipped"])
def test_a_state_of_too_many_says_which_filter_it_needs(service, state):
    detail = service.get(ALERTS, {"state": state}).json()["detail"]

    assert detail == f"state={state} needs follower_id or event_id beside it."


def test_nothing_is_found_of_strangers(service, ann):
    for query in ({"follower_id": "F-x"}, {"trader_id": "T-x", "state": "failed"}, {"event_id": "E-x"}):
        assert service.get(ALERTS, query).json() == {"next": None, "results": []}
    assert code_of(service.get(f"{ALERTS}{ObjectId()}"), 404) == "not_found"
    assert code_of(as_follower(ann).get(ALERTS), 401) == "credentials_missing"
    assert code_of(as_service(Scope.AUDIENCE_WRITE).get(ALERTS), 403) == "scope_missing"


@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize(
    ("names", "state"),
    [
        ({"follower"}, None),
        ({"follower"}, "failed"),
        ({"event"}, None),
        ({"event"}, "pending"),
        ({"trader"}, None),
        ({"trader"}, "failed"),
        (set(), "failed"),
        (set(), None),
    ],
)
def test_each_list_is_read_by_an_index_in_its_order(transactional_db, names, state, paged):
    trader = make_trader()
    follower = make_follower(trader, "fcm")
    for _ in range(20):
        make_follower(trader)
    event = trade(trader)
    fan_out(event)
    people = {"follower": follower.pk, "trader": trader.pk, "event": event_id(event["eventId"])}
    wanted = Wanted(**{n: people[n] for n in names}, state=NotificationState(state) if state else None)
    after = (clock.now(), ObjectId("f" * 24)) if paged else None

    stats = lookup.found(wanted, after, 3).explain()["executionStats"]

    assert stats["totalDocsExamined"] <= 3
    assert {"SORT", "COLLSCAN"} & stages(stats["executionStages"]) == set()


def stages(plan: dict[str, Any]) -> set[str]:
    below = [*plan.get("inputStages", ()), *([plan["inputStage"]] if "inputStage" in plan else ())]
    return {plan["stage"]} | {stage for inner in below for stage in stages(inner)}
