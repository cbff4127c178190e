"""The services' bulk calls: an answer per item, one bad item spoils no other, and saying it again changes nothing."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from rest_framework.test import APIClient

from followers import clock, upserts
from followers.choices import Scope
from followers.models import Endpoint, Follow, Follower, Trader
from tests.api.conftest import as_follower, as_service, code_of

V1 = "/api/v1/"


@pytest.fixture
def service(transactional_db: None) -> APIClient:
    return as_service(Scope.AUDIENCE_WRITE)


@pytest.fixture
def trader(transactional_db: None) -> Trader:
    return Trader.objects.create(external_id="T-17")


def call(client: APIClient, name: str, *items: Any) -> list[dict[str, Any]]:
    answer = client.post(f"{V1}{name}/", {"items": list(items)}, format="json")
    assert answer.status_code == 200, answer.content
    results = answer.json()["results"]
    assert [r["index"] for r in results] == list(range(len(items)))
    return results


def statuses(results: list[dict[str, Any]]) -> list[str]:
    return [r["code"] or r["status"] for r in results]


def test_a_follower_is_created_then_unchanged_then_updated(service):
    item = {"external_id": "F-1", "name": "Ann", "portfolio_value": "10000.50", "currency": "INR"}
    item |= {"locale": "de", "timezone": "Asia/Kolkata"}

    assert statuses(call(service, "followers", item)) == ["created"]
    assert statuses(call(service, "followers", item)) == ["unchanged"]
    results = call(service, "followers", {"external_id": "F-1", "name": "Anna"})

    assert statuses(results) == ["updated"]
    stored = Follower.objects.get()
    assert (stored.name, stored.portfolio_value, stored.timezone) == ("Anna", Decimal("10000.50"), "Asia/Kolkata")
    assert results[0]["external_id"] == "F-1"
    assert results[0]["id"] == str(stored.pk)


def test_one_bad_item_spoils_no_other(service):
    results = call(
        service,
        "traders",
        {"external_id": "T-1"},
        {"external_id": "T-2", "portfolio_value": "much"},
        {"name": "nobody"},
        "T-3",
        None,
        {"external_id": "x" * 129},
        {"external_id": "T-4", "portfolio_value": 5},
    )

    assert statuses(results) == ["created", *["invalid"] * 5, "created"]
    assert results[1]["detail"] == "portfolio_value “much” is not a number."
    assert set(Trader.objects.values_list("external_id", flat=True)) == {"T-1", "T-4"}


def test_a_number_keeps_every_digit(service):
    body = b'{"items": [{"external_id": "T-1", "portfolio_value": 12345678901234567.890123456789}]}'

    assert service.post(f"{V1}traders/", body, content_type="application/json").status_code == 200
    assert Trader.objects.get().portfolio_value == Decimal("12345678901234567.890123456789")


def test_the_last_of_several_items_about_the_same_counts(service):
    results = call(service, "traders", {"external_id": "T-1", "name": "A"}, {"external_id": "T-1", "name": "B"})

    assert statuses(results) == ["created", "created"]
    assert Trader.objects.get().name == "B"


def test_a_follow_begins_ends_and_begins_anew(service, trader, ann, monkeypatch):
    item = {"trader_id": "T-17", "follower_id": "F-ann", "multiplier": "2", "max_notional": "500"}
    assert statuses(call(service, "follows", item)) == ["created"]
    later = clock.now() + timedelta(hours=1)
    monkeypatch.setattr(clock, "now", lambda: later)

    for _ in range(2):
        assert service.delete(f"{V1}follows/T-17/F-ann").status_code == 204
    ended = Follow.objects.get()
    assert ended.ended_at is not None
    assert (ended.multiplier, ended.max_notional) == (Decimal(2), Decimal(500))
    monkeypatch.setattr(clock, "now", lambda: later + timedelta(hours=1))
    assert statuses(call(service, "follows", item)) == ["updated"]

    again = Follow.objects.get()
    assert again.ended_at is None
    assert clock.as_utc(again.since) == later + timedelta(hours=1)


def test_a_follow_of_or_by_nobody_is_named(service, trader, ann):
    results = call(
        service,
        "follows",
        {"trader_id": "T-x", "follower_id": "F-ann"},
        {"trader_id": "T-17", "follower_id": "F-x"},
        {"trader_id": "T-17", "follower_id": "F-ann"},
    )

    assert statuses(results) == ["unknown_trader", "unknown_follower", "created"]
    for path in ("follows/T-17/F-x", "follows/T-x/F-ann"):
        assert code_of(service.delete(V1 + path), 404) == "not_found"


def test_a_device_that_another_person_registers_leaves_the_first(service, ann, bob):
    item = {"channel": "fcm", "address": "token-1", "platform": "android"}
    assert statuses(call(service, "endpoints", {**item, "follower_id": "F-ann"})) == ["created"]

    assert statuses(call(service, "endpoints", {**item, "follower_id": "F-bob"})) == ["updated"]

    assert Endpoint.objects.get().follower_id == bob.pk


def test_a_deactivated_endpoint_comes_back_when_it_is_registered_again(service, ann):
    item = {"follower_id": "F-ann", "channel": "sms", "address": "+1 415 555 0100"}
    (created,) = call(service, "endpoints", item)
    path = f"{V1}endpoints/{created['id']}?reason=sold"

    assert [service.delete(path).status_code for _ in range(2)] == [204, 204]
    gone = Endpoint.objects.get()
    assert (gone.active, gone.deactivated_reason) == (False, "sold")
    assert statuses(call(service, "endpoints", item)) == ["updated"]

    back = Endpoint.objects.get()
    assert (back.active, back.deactivated_reason, back.deactivated_at) == (True, "", None)


def test_a_service_deactivates_for_its_own_reason_what_a_vendor_called_dead(service, ann):
    item = {"follower_id": "F-ann", "channel": "fcm", "address": "token-1", "platform": "android"}
    (created,) = call(service, "endpoints", item)
    Endpoint.objects.update(active=False, deactivated_reason="INVALID_ARGUMENT")

    service.delete(f"{V1}endpoints/{created['id']}?reason=sold")

    assert Endpoint.objects.get().deactivated_reason == "sold"


def test_an_address_is_checked_and_never_repeated(service, ann, trader):
    webhook = "https://discord.com/api/webhooks/123456789012345678/" + "t" * 60
    results = call(
        service,
        "endpoints",
        {"follower_id": "F-ann", "channel": "sms", "address": "SECRET"},
        {"follower_id": "F-ann", "trader_id": "T-17", "channel": "sms", "address": "+14155550100"},
        {"trader_id": "T-17", "channel": "sms", "address": "+14155550100"},
        {"trader_id": "T-17", "channel": "discord", "address": webhook},
    )

    assert statuses(results) == ["invalid", "invalid", "invalid", "created"]
    assert "SECRET" not in json.dumps(results)
    assert Endpoint.objects.get().trader_id == trader.pk
    assert code_of(service.delete(f"{V1}endpoints/{'f' * 24}"), 404) == "not_found"


def test_a_portfolio_value_never_replaces_a_later_one(service, ann, trader):
    now = clock.now()
    older, newer = ((now - timedelta(minutes=n)).isoformat() for n in (2, 1))

    def push(value: str, **fields: str) -> list[str]:
        return statuses(call(service, "portfolios", {"follower_id": "F-ann", "portfolio_value": value, **fields}))

    assert push("100", as_of=newer) == ["updated"]
    assert push("90", as_of=older) == ["unchanged"]
    assert push("100", as_of=newer) == ["unchanged"]
    assert push("110", as_of="2999-01-01T00:00:00Z") == ["invalid"]
    assert Follower.objects.get().portfolio_value == Decimal(100)
    assert push("120", currency="INR") == ["updated"]
    assert Follower.objects.get().portfolio_value == Decimal(120)


def test_portfolio_values_of_strangers_make_nobody(service, trader):
    results = call(
        service,
        "portfolios",
        {"follower_id": "F-x", "portfolio_value": 1},
        {"trader_id": "T-17", "portfolio_value": "5"},
        {"portfolio_value": "5"},
    )

    assert statuses(results) == ["unknown_follower", "updated", "invalid"]
    assert Follower.objects.count() == 0


@pytest.mark.parametrize("body", [{}, [], {"items": []}, {"items": {}}, {"items": [{}] * 1001}, "x", None, 1])
def test_a_body_without_items_is_refused_as_a_whole(service, body):
    answer = service.post(f"{V1}traders/", body, format="json")

    assert code_of(answer, 400) == "invalid"


@pytest.mark.parametrize("raw", [b'{"items": [{"external_id": "\\ud800"}]}', b"[" * 2000, b'{"items": NaN}', b"\xff"])
def test_what_is_no_json_is_malformed(service, raw):
    assert code_of(service.post(f"{V1}traders/", raw, content_type="application/json"), 400) == "malformed"


def test_a_body_that_is_too_large_is_refused(service, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
    answer = service.post(f"{V1}traders/", {"items": [{"external_id": "x" * 120}]}, format="json")

    assert code_of(answer, 413) == "too_large"


@pytest.mark.parametrize("name", ["traders", "followers", "follows", "endpoints", "portfolios"])
def test_only_a_service_with_the_scope_writes(ann, name):
    path = f"{V1}{name}/"

    assert code_of(as_follower(ann).post(path, {"items": [{}]}, format="json"), 401) == "credentials_missing"
    assert code_of(as_service(Scope.TOKENS_MINT).post(path, {"items": [{}]}, format="json"), 403) == "scope_missing"


def test_an_endpoint_that_was_removed_while_it_was_taken_over_is_made_anew(service, ann, bob, monkeypatch):
    item = {"channel": "fcm", "address": "token-1"}
    call(service, "endpoints", {**item, "follower_id": "F-ann"})
    difference = upserts._difference

    def remove(document: Any, fields: Any) -> Any:
        Endpoint.objects.filter(follower_id=ann.pk).delete()
        return difference(document, fields)

    monkeypatch.setattr(upserts, "_difference", remove)
    call(service, "endpoints", {**item, "follower_id": "F-bob"})

    assert Endpoint.objects.get().follower_id == bob.pk
