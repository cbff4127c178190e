"""A follower's own preferences and devices."""

from __future__ import annotations

from typing import Any

import pytest

from followers import clock, preferences, statements
from followers.models import Endpoint, Follower
from tests.api.conftest import as_follower, code_of

PREFERENCES, DEVICES = "/api/v1/preferences", "/api/v1/devices"
PHONE = {"channel": "fcm", "address": "a-token-of-at-least-sixteen", "platform": "android", "app": "com.example"}


def patch(follower: Follower, body: Any) -> Any:
    return as_follower(follower).patch(PREFERENCES, body, format="json")


def test_everything_is_on_until_something_is_said(ann: Follower) -> None:
    told = as_follower(ann).get(PREFERENCES).json()

    assert set(told["channels"].values()) == {"all"}
    assert told["quiet_hours"] is None
    assert told["muted_traders"] == []


def test_a_change_keeps_what_it_does_not_name_and_null_brings_the_default_back(ann: Follower) -> None:
    patch(ann, {"quiet_hours": {"start": "22:00", "end": "07:00"}, "channels": {"sms": "off"}})

    patch(ann, {"channels": {"fcm": "critical_only"}})
    told = patch(ann, {"quiet_hours": None}).json()

    assert (told["channels"]["sms"], told["channels"]["fcm"]) == ("off", "critical_only")
    assert told["quiet_hours"] is None
    assert as_follower(ann).get(PREFERENCES).json() == told


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (
            {"quiet_hours": {"start": "25:00", "end": "07:00"}, "channels": {"fax": "off"}},
            {"quiet_hours.start": "#/quiet_hours/start", "channels.fax": "#/channels/fax"},
        ),
        ({"mute_exits": "yes", "no.such/~": 1}, {"mute_exits": "#/mute_exits", "no.such/~": "#/no.such~1~0"}),
        ([], {"": "#"}),
    ],
)
def test_each_broken_field_is_pointed_at_and_nothing_is_stored(ann: Follower, body: Any, named: dict[str, str]) -> None:
    answer = patch(ann, body)

    assert code_of(answer, 400) == "invalid"
    assert {e["field"]: e["pointer"] for e in answer.json()["errors"]} == named
    ann.refresh_from_db()
    assert ann.preferences == {}


def test_two_patches_at_once_both_count(ann: Follower, monkeypatch: pytest.MonkeyPatch) -> None:
    merge, rivals = preferences.merge, iter([{"mute_exits": True}])

    def overtaken(current: object, wanted: object) -> preferences.Preferences:
        for other in rivals:
            patch(ann, other)
        return merge(current, wanted)

    monkeypatch.setattr(preferences, "merge", overtaken)
    answer = patch(ann, {"sms_at_night": False}).json()

    assert (answer["mute_exits"], answer["sms_at_night"]) == (True, False)


@pytest.mark.parametrize("body", [[], "on", 3])
def test_preferences_that_are_no_object_are_refused(ann: Follower, body: Any) -> None:
    assert code_of(patch(ann, body), 400) == "invalid"


def test_a_person_who_is_gone_has_no_preferences(ann: Follower) -> None:
    client = as_follower(ann)
    ann.delete()

    assert code_of(client.get(PREFERENCES), 404) == "not_found"
    assert code_of(client.patch(PREFERENCES, {}, format="json"), 404) == "not_found"
    assert code_of(client.post(DEVICES, PHONE, format="json"), 404) == "not_found"


def test_a_device_is_registered_once_and_shown_masked(ann: Follower) -> None:
    client = as_follower(ann)

    first, again = (client.post(DEVICES, PHONE, format="json") for _ in range(2))

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    (shown,) = client.get(DEVICES).json()["results"]
    assert shown["active"]
    assert (shown["app"], shown["platform"], shown["environment"]) == ("com.example", "android", "production")
    assert PHONE["address"] not in str(shown)


def test_a_devices_environment_and_app_are_kept_and_changed_by_registering_again(ann: Follower) -> None:
    client = as_follower(ann)
    phone = {"channel": "apns", "address": "ab" * 32, "platform": "ios", "app": "com.example.beta"}

    beta = client.post(DEVICES, {**phone, "environment": "sandbox"}, format="json").json()
    assert (beta["environment"], beta["app"]) == ("sandbox", "com.example.beta")
    released = client.post(DEVICES, {**phone, "environment": "production", "app": "com.example"}, format="json").json()

    assert (released["id"], released["environment"], released["app"]) == (beta["id"], "production", "com.example")
    stored = Endpoint.objects.get(pk=beta["id"])
    assert (stored.environment, stored.app) == ("production", "com.example")


def test_a_device_that_another_person_registers_leaves_the_first_one(ann: Follower, bob: Follower) -> None:
    as_follower(ann).post(DEVICES, PHONE, format="json")

    as_follower(bob).post(DEVICES, PHONE, format="json")

    assert as_follower(ann).get(DEVICES).json()["results"] == []
    assert len(as_follower(bob).get(DEVICES).json()["results"]) == 1


@pytest.mark.parametrize("by", ["id", "address"])
def test_a_device_that_was_signed_off_comes_back_when_it_is_registered_again(ann: Follower, by: str) -> None:
    client = as_follower(ann)
    device = client.post(DEVICES, PHONE, format="json").json()

    if by == "id":
        gone = client.delete(f"{DEVICES}/{device['id']}")
    else:
        gone = client.delete(DEVICES, {"channel": "fcm", "address": PHONE["address"]}, format="json")

    stored = Endpoint.objects.get(pk=device["id"])
    assert (gone.status_code, stored.active, stored.deactivated_reason) == (204, False, "removed_by_follower")
    back = client.post(DEVICES, PHONE, format="json").json()
    assert (back["id"], back["active"], back["deactivated_reason"]) == (device["id"], True, "")


@pytest.mark.parametrize("by", ["id", "address"])
def test_a_device_that_a_vendor_called_dead_stays_off_once_it_is_signed_off(ann: Follower, by: str) -> None:
    client, began = as_follower(ann), clock.now()
    device = client.post(DEVICES, PHONE, format="json").json()
    Endpoint.objects.update(active=False, deactivated_reason="INVALID_ARGUMENT", deactivated_at=began)

    if by == "id":
        client.delete(f"{DEVICES}/{device['id']}")
    else:
        client.delete(DEVICES, {"channel": "fcm", "address": PHONE["address"]}, format="json")

    assert statements.reactivate_endpoints("fcm", ["INVALID_ARGUMENT"], began) == 0
    stored = Endpoint.objects.get(pk=device["id"])
    assert (stored.active, stored.deactivated_reason) == (False, "removed_by_follower")
    client.delete(f"{DEVICES}/{device['id']}")
    assert Endpoint.objects.get(pk=device["id"]).deactivated_at == stored.deactivated_at


def test_nobody_signs_off_another_persons_device(ann: Follower, bob: Follower) -> None:
    device = as_follower(ann).post(DEVICES, PHONE, format="json").json()

    by_id = as_follower(bob).delete(f"{DEVICES}/{device['id']}")
    by_address = as_follower(bob).delete(DEVICES, {"channel": "fcm", "address": PHONE["address"]}, format="json")

    assert (code_of(by_id, 404), code_of(by_address, 404)) == ("not_found", "not_found")
    assert Endpoint.objects.get(pk=device["id"]).active


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"channel": "sms", "address": "+919812345678"}, "channel"),
        ({"channel": "fcm"}, "address"),
        ({"channel": "fcm", "address": 7}, "address"),
        ({"channel": "fcm", "address": "a-token-of-at-least-sixteen", "platform": "toaster"}, "platform"),
    ],
)
def test_what_an_app_may_not_register_is_refused_by_its_field(ann: Follower, body: Any, field: str) -> None:
    answer = as_follower(ann).post(DEVICES, body, format="json")

    assert code_of(answer, 400) == "invalid"
    assert [e["field"] for e in answer.json()["errors"]] == [field]
    assert Endpoint.objects.count() == 0
