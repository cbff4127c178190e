"""General updates go the way of a trade: stored whole, fanned out by preferences, delivered, proved and traced."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from pymongo.errors import AutoReconnect

from delivery import updates
from delivery.choices import BatchKind
from delivery.fan_out import fan_out_shard
from delivery.models import Batch
from delivery.operations import rerun_fan_out
from delivery.proof import prove
from delivery.updates import (
    FOLLOWERS_MAX,
    Draft,
    UnknownTraderError,
    UpdateConflictError,
    publish_update,
    send_test_alert,
)
from devstack.vendors.client import Sandbox
from followers.models import Follower
from followers.mongo import collection
from notifications import statements as notifications
from notifications.models import Notification, Update
from tests.pipeline import world

pytestmark = pytest.mark.django_db(transaction=True)
Document = dict[str, Any]


def draft(**fields: Any) -> Draft:
    return Draft(**{"external_id": "U-1", "title": "Markets close early", "text": "At 14:00 today.", **fields})


def fan_out() -> None:
    """As the hints would: every shard that nobody has claimed."""
    for batch in world.unclaimed(BatchKind.FAN_OUT):
        fan_out_shard(batch["_id"])


def rows(update: Document) -> dict[Any, Document]:
    return {row["follower_id"]: row for row in collection(Notification).find({"event_id": update["_id"]})}


def stored(update: Document) -> Document:
    found = collection(Update).find_one({"_id": update["_id"]})
    assert found is not None
    return found


def test_an_update_reaches_a_traders_followers_and_community_without_a_quantity(vendors: Sandbox) -> None:
    trader = world.make_trader()
    rich, poor = world.make_follower(trader, "fcm", "sms"), world.make_follower(trader, portfolio=None)
    stranger = world.make_follower(world.make_trader(), "fcm")
    world.add_endpoint("discord", trader=trader)

    update = publish_update(draft(trader=trader.external_id)).update
    fan_out()
    assert prove().holds
    world.deliver_all()

    found = rows(update)
    assert set(found) == {rich.pk, poor.pk, None}
    assert world.states(found[rich.pk]) == {"in_app": "sent", "fcm": "sent", "sms": "sent"}
    assert world.states(found[None]) == {"discord": "sent"}
    assert {(row["kind"], row["priority"], row["state"], row["sizing"]) for row in found.values()} == {
        ("update", "normal", "delivered", None)
    }
    assert world.entries(stranger) == []
    (entry,) = world.entries(poor)
    assert entry["payload"] == {
        "title": "Markets close early",
        "body": "At 14:00 today.",
        "type": "update",
        "notification_id": str(entry["_id"]),
        "update_id": "U-1",
        "priority": "normal",
        "expires_at": f"{update['expires_at']:%Y-%m-%dT%H:%M:%S.%f}Z",
        "correlation_id": update["correlation_id"],
    }
    assert (stored(update)["state"], stored(update)["alerts_written"]) == ("done", 3)
    assert prove().holds


def test_named_followers_are_told_in_shards_and_unknown_names_are_kept(vendors: Sandbox, settings: Any) -> None:
    settings.FAN_OUT_SINGLE_SHARD_MAX = 2
    people = [world.make_follower(world.make_trader(), "fcm") for _ in range(5)]
    names = [person.external_id for person in people]

    update = publish_update(draft(followers=[*names, "F-nobody", names[0]])).update
    fan_out()
    world.deliver_all()

    assert update["unknown_followers"] == ["F-nobody"]
    assert update["shards"] == 3
    assert set(rows(update)) == {person.pk for person in people}
    assert {row["state"] for row in rows(update).values()} == {"delivered"}
    assert stored(update)["alerts_written"] == 5
    proof = prove()
    assert proof.holds
    assert (proof.tally.owed, proof.tally.found) == (5, 5)


def test_preferences_hold_for_updates(vendors: Sandbox) -> None:
    trader = world.make_trader()
    wishes: list[Document] = [
        {"muted_traders": [trader.external_id]},
        {"channels": {"fcm": "off"}},
        {"channels": {"fcm": "critical_only"}},
        {"min_value": {"amount": "1000000", "currency": "INR"}},  # Of entries; an update has no value.
    ]
    people = []
    for preferences in wishes:
        people.append(world.make_follower(trader, "fcm"))
        Follower.objects.filter(pk=people[-1].pk).update(preferences=preferences)

    update = publish_update(draft(trader=trader.external_id)).update
    fan_out()

    found = rows(update)
    codes = [world.delivery(found[person.pk], "fcm")["error_code"] for person in people]
    assert codes == ["muted", "channel_off_by_follower", "critical_only", ""]
    assert [len(world.entries(person)) for person in people] == [0, 1, 1, 1]


def test_the_same_again_is_no_second_update_and_another_is_refused(vendors: Sandbox) -> None:
    follower = world.make_follower(world.make_trader(), "fcm")
    said = draft(followers=[follower.external_id])
    first = publish_update(said)
    fan_out()

    again = publish_update(said)

    assert (first.is_new, again.is_new) == (True, False)
    assert again.update["state"] == "done"
    assert world.unclaimed(BatchKind.FAN_OUT) == []
    assert len(rows(first.update)) == 1
    with pytest.raises(UpdateConflictError):
        publish_update(draft(followers=[follower.external_id], text="Something else."))


def test_an_update_that_could_not_be_hinted_wakes_and_one_that_could_not_be_stored_leaves_nothing(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = world.make_follower(world.make_trader(), "fcm")
    said = draft(followers=[follower.external_id])

    def away(*_: object, **__: object) -> None:
        raise AutoReconnect("away")

    with monkeypatch.context() as patched:
        patched.setattr(updates, "send_hints", away)
        with pytest.raises(AutoReconnect):
            publish_update(said)
    assert world.sweep(after_seconds=6).hinted == 1
    assert publish_update(said).is_new is False

    shards = collection(Batch).count_documents({})
    with monkeypatch.context() as patched:
        # The worker dies between the two inserts of the transaction.
        patched.setattr(updates, "Batch", None)
        with pytest.raises(AttributeError):
            publish_update(draft(external_id="U-2", followers=[follower.external_id]))
    assert collection(Update).count_documents({}) == 1
    assert collection(Batch).count_documents({}) == shards
    assert publish_update(draft(external_id="U-2", followers=[follower.external_id])).is_new is True


def test_a_lost_alert_of_an_update_is_a_gap_and_a_failed_fan_out_can_be_run_again(vendors: Sandbox) -> None:
    people = [world.make_follower(world.make_trader(), "fcm") for _ in range(2)]
    update = publish_update(draft(followers=[person.external_id for person in people])).update
    fan_out()
    lost = rows(update)[people[0].pk]
    collection(Notification).delete_one({"_id": lost["_id"]})

    (finding,) = prove().as_json()["findings"]
    assert finding["follower"] == str(people[0].pk)
    assert finding["event_id"] == "update:U-1"

    collection(Update).update_one(
        {"_id": update["_id"]},
        {"$set": {"state": "pending", "shards_done": [], "alerts_written": 0, "fanned_out_at": None}},
    )
    notifications.fail_event(update["_id"])
    assert stored(update)["state"] == "failed"
    assert rerun_fan_out(update["_id"]) == 1
    assert stored(update)["state"] == "pending"
    fan_out()
    assert stored(update)["state"] == "done"
    assert set(rows(update)) == {person.pk for person in people}
    assert prove().holds


def test_an_update_never_meets_a_trade_of_the_same_id(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower = world.make_follower(trader, "fcm")
    event = world.trade(trader, event="U-1")
    world.fan_out(event)

    update = publish_update(draft(trader=trader.external_id)).update
    fan_out()

    assert len(world.entries(follower)) == 2
    assert len(rows(update)) == 1
    assert world.alert(event, follower)["kind"] == "trade_alert"


def test_a_test_alert_goes_to_one_follower_and_says_what_it_is(vendors: Sandbox) -> None:
    trader = world.make_trader()
    follower, other = world.make_follower(trader, "fcm"), world.make_follower(trader, "fcm")

    update = send_test_alert(follower).update
    fan_out()
    world.deliver_all()

    (entry,) = world.entries(follower)
    assert entry["payload"]["test"] == "true"
    assert world.states(rows(update)[follower.pk]) == {"in_app": "sent", "fcm": "sent"}
    assert world.entries(other) == []


@pytest.mark.parametrize(
    "audience", [{}, {"trader": "T", "followers": ["F"]}, {"followers": ["F"] * (FOLLOWERS_MAX + 1)}]
)
def test_an_audience_is_a_trader_or_a_list(audience: Document) -> None:
    with pytest.raises(ValueError, match="An update goes to"):
        publish_update(draft(**audience))


def test_an_unknown_trader_is_named_and_nobody_known_is_done_at_once() -> None:
    with pytest.raises(UnknownTraderError):
        publish_update(draft(trader="T-nobody"))
    update = publish_update(draft(followers=["F-nobody"])).update
    assert (update["state"], world.unclaimed(BatchKind.FAN_OUT)) == ("done", [])
    assert prove().holds


def test_an_update_and_its_alerts_can_be_traced(vendors: Sandbox) -> None:
    follower = world.make_follower(world.make_trader(), "fcm")
    update = publish_update(draft(followers=[follower.external_id])).update
    fan_out()
    world.deliver_all()
    row = rows(update)[follower.pk]

    def trace(identifier: str) -> str:
        out = StringIO()
        call_command("trace", identifier, stdout=out, no_color=True)
        return out.getvalue()

    by_update = trace("U-1")
    assert "Markets close early" in by_update
    assert "1  fcm sent" in by_update
    assert trace(update["correlation_id"]) == by_update
    assert "published" in trace(str(row["_id"]))
