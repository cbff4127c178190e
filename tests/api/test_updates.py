"""General updates and test alerts over REST."""

from __future__ import annotations

from typing import Any

import pytest

from delivery.choices import BatchKind
from delivery.fan_out import fan_out_shard
from followers.choices import Scope
from followers.models import Follower
from followers.mongo import collection
from notifications.models import Update
from tests.api.conftest import as_follower, as_service, code_of
from tests.pipeline import world

UPDATES = "/api/v1/updates/"


def body(**fields: Any) -> dict[str, Any]:
    return {"id": "U-1", "title": "Markets close early", "text": "At 14:00.", "follower_ids": ["F-ann"], **fields}


def fan_out() -> None:
    for batch in world.unclaimed(BatchKind.FAN_OUT):
        fan_out_shard(batch["_id"])


def test_a_service_publishes_an_update_and_sees_how_far_it_has_come(ann: Follower, bob: Follower) -> None:
    service = as_service(Scope.UPDATES_WRITE)

    first = service.post(UPDATES, body(follower_ids=["F-ann", "F-nobody"]), format="json")
    fan_out()
    seen = service.get(UPDATES + "U-1").json()

    assert first.status_code == 201
    assert first.json()["state"] == "pending"
    assert first.json()["unknown_follower_ids"] == ["F-nobody"]
    assert (seen["state"], seen["shards_done"], seen["alerts"]["delivered"]) == ("done", 1, 1)
    assert (len(world.entries(ann)), len(world.entries(bob))) == (1, 0)
    again = service.post(UPDATES, body(follower_ids=["F-ann", "F-nobody"]), format="json")
    assert (again.status_code, again.json()) == (200, seen)
    assert code_of(service.post(UPDATES, body(text="Other."), format="json"), 409) == "update_conflict"


def test_an_update_goes_to_a_traders_followers(transactional_db: None) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader)
    wanted = {name: value for name, value in body(trader_id=trader.external_id).items() if name != "follower_ids"}

    assert as_service(Scope.UPDATES_WRITE).post(UPDATES, wanted, format="json").status_code == 201
    fan_out()

    assert len(world.entries(follower)) == 1


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"trader_id": "T-1"}, ""),
        ({"id": "a b"}, "id"),
        ({"title": "x" * 121}, "title"),
        ({"text": ""}, "text"),
        ({"follower_ids": []}, "follower_ids"),
    ],
)
def test_a_wrong_update_is_refused_by_its_field(ann: Follower, fields: dict[str, Any], named: str) -> None:
    answer = as_service(Scope.UPDATES_WRITE).post(UPDATES, body(**fields), format="json")

    assert code_of(answer, 400) == "invalid"
    assert named in answer.json()["errors"][0]["field"]
    assert collection(Update).count_documents({}) == 0


def test_an_unknown_trader_and_an_unknown_update_are_named(transactional_db: None) -> None:
    service = as_service(Scope.UPDATES_WRITE)
    wanted = {"id": "U-1", "title": "t", "text": "t", "trader_id": "T-nobody"}

    answer = service.post(UPDATES, wanted, format="json")

    assert code_of(answer, 400) == "invalid"
    assert answer.json()["errors"][0]["field"] == "trader_id"
    assert code_of(service.get(UPDATES + "U-9"), 404) == "not_found"


def test_only_a_service_with_the_scope_publishes(ann: Follower) -> None:
    assert code_of(as_service(Scope.TOKENS_MINT).post(UPDATES, body(), format="json"), 403) == "scope_missing"
    assert code_of(as_follower(ann).post(UPDATES, body(), format="json"), 401) == "credentials_missing"
    assert code_of(as_service(Scope.TOKENS_MINT).get(UPDATES + "U-1"), 403) == "scope_missing"


def test_a_follower_sends_a_test_to_themselves_alone(ann: Follower, bob: Follower) -> None:
    answer = as_follower(ann).post("/api/v1/test-alert")
    fan_out()

    assert answer.status_code == 201
    (entry,) = world.entries(ann)
    assert (entry["payload"]["test"], entry["payload"]["update_id"]) == ("true", answer.json()["id"])
    assert world.entries(bob) == []
    assert code_of(as_service(Scope.UPDATES_WRITE).post("/api/v1/test-alert"), 401) == "credentials_missing"
