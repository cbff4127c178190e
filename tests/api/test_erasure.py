"""Erasing a follower: all of it goes, nothing is sent afterwards, nothing comes back, and the proof holds."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId
from django.contrib.admin.models import LogEntry
from rest_framework.test import APIClient

from delivery import fan_out as fan_outs
from delivery.fan_out import fan_out_shard
from delivery.models import ReviewItem
from delivery.proof import prove
from delivery.updates import Draft, publish_update, send_test_alert
from followers import clock, erasures, upserts
from followers.addresses import mask_address
from followers.choices import Scope
from followers.members import Address
from followers.models import Endpoint, Erasure, Follow, Follower
from followers.mongo import collection, database
from notifications.erasure import erase
from notifications.models import InAppEntry, Notification, Update
from notifications.statements import event_id
from tests.api.conftest import as_service, code_of
from tests.pipeline import world
from tests.pipeline.world import alert, fan_out, make_follower, make_trader, states, take_in_trades, trade

LONG_AGO = timedelta(days=1)


@pytest.fixture
def service(transactional_db: None) -> APIClient:
    return as_service(Scope.FOLLOWERS_ERASE)


def call(client: APIClient, follower: Follower) -> dict[str, Any]:
    answer = client.delete(f"/api/v1/followers/{follower.external_id}")
    assert answer.status_code == 200, answer.content
    return answer.json()


def nothing_is_left(follower: Follower) -> bool:
    mine = {"follower_id": follower.pk}
    stored = [collection(model).find_one(mine) for model in (Endpoint, Follow, InAppEntry)]
    return not any(stored) and not naming(follower.external_id, follower.name)


def naming(*words: str) -> list[str]:
    """Where in the whole database one of the words still stands."""
    pattern = re.compile("|".join(rf"(?<![\w-]){re.escape(word)}(?![\w-])" for word in words))
    names = [name for name in database().list_collection_names() if not name.startswith("system.")]
    assert "django_admin_log" in names
    return [f"{name}: {row}" for name in names for row in database()[name].find() if pattern.search(str(row))]


@pytest.mark.parametrize("keeps", [True, False])
def test_everything_about_a_person_goes_and_nothing_is_sent(service, vendors, settings, keeps):
    settings.ERASURE_KEEPS_NOTIFICATIONS = keeps
    trader = make_trader()
    follower, other = make_follower(trader, "fcm", "sms"), make_follower(trader, "fcm")
    event = trade(trader)
    fan_out(event)

    report = call(service, follower)
    world.deliver_all()
    world.sweep(10)

    assert (report["endpoints"], report["follows"], report["inbox_entries"]) == (2, 1, 1)
    assert (report["pseudonymised"], report["removed"]) == ((1, 0) if keeps else (0, 1))
    assert nothing_is_left(follower)
    assert world.accepted(vendors) == 1
    assert states(alert(event, other))["fcm"] == "sent"
    if keeps:
        kept = alert(event, follower)
        assert set(states(kept).values()) == {"sent", "skipped"}
        assert kept["sizing"]["follower_portfolio"] is None
        assert Follower.objects.get(pk=follower.pk).external_id == f"erased:{follower.pk}"
    assert prove().as_json()["findings"] == []


def test_no_other_collection_names_the_person(service, vendors):
    trader = make_trader()
    publish_update(Draft(external_id="U-1", title="News", text="…", followers=["F-later", "F-nobody"]))
    follower = make_follower(trader, "fcm")
    follower.external_id = "F-later"
    follower.save()
    (phone,) = Endpoint.objects.filter(follower=follower)
    send_test_alert(follower)
    before_this_version = {"_id": event_id("U-2"), "external_id": "U-2", "is_test": True, "published_by": "F-later"}
    collection(Update).insert_one(before_this_version)
    for model, pk in ((Follower, follower.pk), (Endpoint, phone.pk), (ReviewItem, alert_of(trader, follower))):
        noted = {"user_id": ObjectId(), "object_id": str(pk), "object_repr": str(follower), "change_message": "F-later"}
        collection(LogEntry).insert_one({**noted, "action_flag": 2, "content_type_id": model._meta.model_name})
    person = (follower.external_id, follower.name, phone.address, phone.address_hash, mask_address(phone.address))
    assert {line.partition(":")[0] for line in naming(*person)} >= {
        "django_admin_log", "followers_follower", "followers_endpoint", "notifications_update"
    }  # fmt: skip

    call(service, follower)

    assert naming(*person) == []
    assert LogEntry.objects.count() == 3
    assert Update.objects.get(external_id="U-1").unknown_followers == [f"erased:{follower.pk}", "F-nobody"]


def alert_of(trader: Any, follower: Follower) -> ObjectId:
    fan_out(event := trade(trader))
    return alert(event, follower)["_id"]


@pytest.mark.parametrize("keeps", [True, False])
def test_deliveries_in_no_batch_are_cancelled(service, settings, vendors, keeps):
    settings.ERASURE_KEEPS_NOTIFICATIONS = keeps
    trader = make_trader()
    follower = make_follower(trader, "fcm")
    event = trade(trader)
    fan_out(event)
    world.free_all_rows()

    assert call(service, follower)["cancelled"] == 1

    if keeps:
        (push,) = [d for d in alert(event, follower)["deliveries"] if d["channel"] == "fcm"]
        assert (push["state"], push["error_code"]) == ("cancelled", "follower_erased")
    assert prove().as_json()["findings"] == []


def test_called_again_it_reports_the_same(service):
    trader = make_trader()
    follower = make_follower(trader, "fcm")
    fan_out(trade(trader))

    first, second = call(service, follower), call(service, follower)

    changing = {"erased_at", "finished_at", "pseudonymised"}
    assert {n: v for n, v in first.items() if n not in changing} == {
        n: v for n, v in second.items() if n not in changing
    }
    assert Erasure.objects.count() == 1
    assert code_of(service.delete("/api/v1/followers/F-nobody"), 404) == "not_found"
    assert code_of(as_service(Scope.AUDIENCE_WRITE).delete("/api/v1/followers/F-1"), 403) == "scope_missing"


def test_who_registers_again_is_somebody_new(service):
    follower = make_follower(make_trader())
    call(service, follower)

    again = upserts.write_followers({follower.external_id: {}})[follower.external_id]

    assert again.id != follower.pk
    assert call(service, follower)["follows"] == 0
    assert Erasure.objects.count() == 2


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("moment", ["insert_batches_with_rows", "insert_notifications", "insert_entries", "send_hints"])
def test_a_fan_out_that_read_them_before_brings_nothing_back(transactional_db, monkeypatch, settings, keeps, moment):
    settings.ERASURE_KEEPS_NOTIFICATIONS = keeps
    trader = make_trader()
    follower, other = make_follower(trader, "fcm"), make_follower(trader)
    (batch,) = take_in_trades(event := trade(trader))
    module = {"insert_batches_with_rows": fan_outs.batches, "send_hints": fan_outs}.get(moment, fan_outs.notifications)
    step = getattr(module, moment)

    def erase_first(*args: Any) -> Any:
        erase(follower.external_id)
        return step(*args)

    monkeypatch.setattr(module, moment, erase_first)
    fan_out_shard(batch["_id"])

    assert nothing_is_left(follower)
    assert len(world.entries(other)) == 1
    assert collection(Notification).count_documents({"follower_id": follower.pk}) == (1 if keeps else 0)
    assert alert(event, other)
    assert prove().as_json()["findings"] == []


def test_an_address_that_is_registered_meanwhile_goes_too(transactional_db, monkeypatch):
    trader = make_trader()
    follower = make_follower(trader)
    insert = upserts.insert_missing

    def erase_first(target: Any, documents: list[dict[str, Any]]) -> list[int]:
        erase(follower.external_id)
        return insert(target, documents)

    monkeypatch.setattr(upserts, "insert_missing", erase_first)
    upserts.write_endpoints([(Address("fcm", "token-1", {}), {"follower_id": follower.pk})])
    upserts.write_follows({(make_trader().pk, follower.pk): {}})

    assert nothing_is_left(follower)


def test_erasures_are_found_by_their_time_alone(transactional_db):
    follower = make_follower(make_trader())
    erase(follower.external_id)

    assert erasures.erased_since(clock.now()) == [follower.pk]
    assert erasures.erased_since(clock.now() + LONG_AGO) == []
