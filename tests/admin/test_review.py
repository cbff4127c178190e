"""The review bucket in the admin: what it shows, whom it lets do what, and what every decision leaves behind."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from delivery.admin_decisions import DECISIONS
from delivery.admin_review import short_age
from delivery.models import BreakerChange, ReviewItem
from followers import clock
from followers.models import Endpoint, Follow, Follower, Trader
from followers.mongo import collection
from notifications.models import Attempt, Delivery, Notification
from notifications.statements import derive
from tests.admin.builders import ADDRESS, MASKED, World, build_notification, build_world
from tests.admin.scenes import make_groups, member
from tests.admin.test_pages import text, url

pytestmark = pytest.mark.django_db(transaction=True)
NUMBER = "+14155550177"


@pytest.fixture
def world(settings: Any) -> World:
    settings.TWILIO_ACCOUNT_SID, settings.TWILIO_AUTH_TOKEN, settings.TWILIO_FROM = "AC1", "x", "+14155550100"
    world = build_world()
    world.notification.delete()
    return world


def troubled(
    world: World, state: str = "unknown", code: str = "timeout", endpoint: Endpoint | None = None, **fields: Any
) -> ReviewItem:
    """An alert whose SMS is in trouble, as the pipeline leaves it."""
    now = clock.now()
    if endpoint is None:
        endpoint = Endpoint.objects.create(follower=world.follower, channel="sms", address=NUMBER)
    attempt = Attempt(
        at=now, outcome="unknown" if state == "unknown" else "refused", code=code, message="Own words", latency_ms=12.3,
        breaker="half_open",
    )  # fmt: skip
    deliveries = [
        Delivery(channel="in_app", state="sent", sent_at=now),
        Delivery(
            channel="sms", endpoint=endpoint.pk, state=state, attempts=1, last_attempt_at=now, error_code=code,
            error_message="Own words", attempt_log=[attempt],
        ),
    ]  # fmt: skip
    follower = fields.pop("follower", world.follower)
    row = build_notification(
        world.event, follower, endpoint, id=ObjectId(), deliveries=deliveries, wake_at=None, **fields
    )
    collection(Notification).update_one({"_id": row.pk}, derive())
    return ReviewItem.objects.get(pk=row.pk)


@pytest.fixture
def support(client: Client) -> Client:
    """A member of the group Support as the migrations leave it."""
    client.force_login(member("Support", "ana"))
    return client


def chosen(client: Client, decision: str, *items: ReviewItem) -> Any:
    """The list's action on these items: the preview."""
    data = {"action": f"{decision}_chosen", "_selected_action": [str(item.pk) for item in items]}
    response = client.post(url(ReviewItem, "changelist"), data)
    assert response.status_code == 200
    return response


def decide(client: Client, decision: str, *items: ReviewItem, **said: str) -> Any:
    data = {"ids": ",".join(str(item.pk) for item in items), "back": "", "note": "because", **said}
    return client.post(reverse("admin:delivery_reviewitem_decide", args=[decision]), data, follow=True)


def listed(client: Client, **query: str) -> set[ObjectId]:
    response = client.get(url(ReviewItem, "changelist"), query)
    assert response.status_code == 200
    return {item.pk for item in response.context["cl"].result_list}


# --- The list ---------------------------------------------------------------------------------------------------------
def test_the_bucket_holds_reviewed_alerts_only_and_says_what_happened(support: Client, world: World) -> None:
    item = troubled(world)
    build_notification(world.event, world.follower, world.endpoint)
    page = text(support, url(ReviewItem, "changelist"))
    assert listed(support) == {item.pk}
    assert "The provider took too long." in page
    assert "timeout" in page
    assert url(Follower, "change", world.follower.pk) in page
    assert NUMBER not in page


def test_the_newest_is_first(support: Client, world: World) -> None:
    older, newer = troubled(world), troubled(world, endpoint=Endpoint.objects.get(channel="sms"))
    past = clock.now() - timedelta(hours=2)
    collection(Notification).update_one({"_id": newer.pk}, {"$set": {"review.opened_at": past}})
    rows = support.get(url(ReviewItem, "changelist")).context["cl"].result_list
    assert [row.pk for row in rows] == [older.pk, newer.pk]


@pytest.mark.parametrize(
    ("query", "finds"),
    [
        ({"channel": "sms"}, True),
        ({"channel": "fcm"}, False),
        ({"code": "sms:timeout"}, True),
        ({"code": "sms:30003"}, False),
        ({"trader": "T-17"}, True),
        ({"trader": "T-18"}, False),
        ({"age": "hour"}, True),
        ({"age": "day"}, True),
        ({"age": "older"}, False),
        ({"age": "week"}, False),
        ({"assignee": "me"}, False),
        ({"assignee": "nobody"}, True),
        ({"state": "resolved"}, False),
        ({"state": "all"}, True),
        ({"q": "F-1"}, True),
        ({"q": "F-2"}, False),
        ({"q": "timeout"}, True),
        ({"q": "01JD0000000000000000000001"}, True),
        ({"channel": "sms", "code": "sms:timeout", "trader": "T-17", "age": "hour", "assignee": "nobody"}, True),
    ],
)
def test_a_filter_or_a_search_narrows_the_bucket(
    support: Client, world: World, query: dict[str, str], finds: bool
) -> None:
    item = troubled(world)
    assert listed(support, **query) == ({item.pk} if finds else set())


def test_what_is_assigned_or_resolved_is_found_as_such(support: Client, world: World) -> None:
    item = troubled(world)
    decide(support, "assign", item, assignee="ana")
    assert listed(support, assignee="me") == {item.pk}
    assert listed(support, assignee="nobody") == set()
    decide(support, "resolve", item)
    assert listed(support) == set()
    assert listed(support, state="resolved") == {item.pk}


def test_another_channel_lets_go_of_a_code_that_belongs_to_the_first(support: Client, world: World) -> None:
    troubled(world)
    response = support.get(url(ReviewItem, "changelist"), {"channel": "sms", "code": "sms:timeout"})
    (spec,) = [s for s in response.context["cl"].filter_specs if s.parameter_name == "channel"]
    links = [choice["query_string"] for choice in spec.choices(response.context["cl"])]
    assert any("channel=fcm" in link for link in links)
    assert not any("code=" in link for link in links)


# --- One item ---------------------------------------------------------------------------------------------------------
def test_an_items_page_tells_its_story(support: Client, world: World) -> None:
    item = troubled(world)
    at = clock.now()
    BreakerChange.objects.create(
        channel="sms", at=at, status_before="closed", status_after="open", reason="62 % were errors", by="w-1"
    )
    BreakerChange.objects.create(
        channel="fcm", at=at, status_before="closed", status_after="open", reason="of the pushes", by="w-1"
    )
    BreakerChange.objects.create(
        channel="sms", at=at + timedelta(hours=5), status_before="closed", status_after="open", reason="later", by="w-1"
    )
    page = text(support, url(ReviewItem, "change", item.pk))
    for words in (
        "Nobody knows whether it arrived", "The provider took too long.", "What to do:", "A retry may bring a second",
        "In full: timeout: Own words", "12.3 ms", "Half open", "62 % were errors", "no answer", "end of validity",
        "1 × SMS. A second message may arrive.", "no active address on this channel",
    ):  # fmt: skip
        assert words in page, words
    for absent in (NUMBER, ADDRESS, "of the pushes", "later</td>", ">later"):
        assert absent not in page, absent
    assert "…77" in page


def test_a_breaker_that_was_open_before_the_alert_came_is_told(support: Client, world: World) -> None:
    item = troubled(world)
    BreakerChange.objects.create(
        channel="sms", at=item.created_at - timedelta(minutes=3), status_before="closed", status_after="open",
        reason="slow calls", by="w-1",
    )  # fmt: skip
    page = text(support, url(ReviewItem, "change", item.pk))
    assert "the channel&#x27;s breaker was" in page
    assert "slow calls" in page


def test_an_alert_that_nobody_reviews_has_no_page_here(support: Client, world: World) -> None:
    row = build_notification(world.event, world.follower, world.endpoint)
    assert support.get(url(ReviewItem, "change", row.pk)).status_code == 302
    assert support.get(reverse("admin:delivery_reviewitem_retry_one", args=[row.pk])).status_code == 404


# --- Decisions --------------------------------------------------------------------------------------------------------
def test_a_retry_is_previewed_with_what_can_and_what_cannot_be_sent(support: Client, world: World) -> None:
    items = [troubled(world)]
    endpoint = Endpoint.objects.get(channel="sms")
    items.append(troubled(world, "failed", "21612", endpoint))
    items.append(troubled(world, endpoint=endpoint, expires_at=clock.now() - timedelta(seconds=1)))
    gone = Endpoint.objects.create(follower=world.follower, channel="sms", address="+14155550188", active=False)
    items.append(troubled(world, "failed", "21612", gone))

    response = chosen(support, "retry", *items)

    page = response.content.decode()
    assert "2 of 4 chosen alerts can be sent again, as 2 messages." in page
    assert "1 of these messages may have arrived before" in page
    assert re.search(r">1</td>\s*<td[^>]*>no longer valid", page)
    assert re.search(r">1</td>\s*<td[^>]*>at an address that is deactivated", page)
    assert not LogEntry.objects.exists()
    assert Notification.objects.filter(state="pending").count() == 0  # A preview changes nothing.


def test_a_retry_queues_and_keeps_who_and_why(support: Client, world: World) -> None:
    item = troubled(world)
    response = decide(support, "retry", item, note="the customer asked")
    assert "1 alert is queued" in str(next(iter(response.context["messages"])))
    row = collection(Notification).find_one({"_id": item.pk})
    assert row is not None
    assert (row["state"], row["deliveries"][1]["state"]) == ("pending", "queued")
    (entry,) = LogEntry.objects.filter(object_id=str(item.pk))
    assert (entry.user.get_username(), entry.change_message) == ("ana", "Retried: the customer asked")
    page = text(support, url(ReviewItem, "change", item.pk))
    assert "ana: the customer asked" in page
    assert "Retried: the customer asked" in page
    kept = text(support, url(ReviewItem, "history", item.pk))
    assert "Retried: the customer asked" in kept
    assert "ana" in kept
    assert "Recent actions" not in text(support, reverse("admin:index"))  # It would read the whole log.


def test_sending_elsewhere_uses_the_followers_other_address(support: Client, world: World) -> None:
    item = troubled(world)
    other = Endpoint.objects.create(follower=world.follower, channel="discord", address="123456789012345678")
    page = chosen(support, "send_elsewhere", item).content.decode()
    assert "May arrive twice" in page
    decide(support, "send_elsewhere", item, channel="discord", note="try Discord")
    row = collection(Notification).find_one({"_id": item.pk})
    assert row is not None
    added = row["deliveries"][2]
    assert (added["channel"], added["endpoint"], added["state"]) == ("discord", other.pk, "queued")
    assert LogEntry.objects.get(object_id=str(item.pk)).change_message == "Sent on Discord: try Discord"


def test_resolving_and_assigning_are_kept_and_said(support: Client, world: World) -> None:
    items = [troubled(world), troubled(world, endpoint=Endpoint.objects.get(channel="sms"))]
    User.objects.create_user("ben", is_staff=True)
    assert "ben" in chosen(support, "assign", *items).content.decode()
    decide(support, "assign", *items, assignee="ben", note="he knows them")
    decide(support, "resolve", items[0], note="told by phone")
    review = ReviewItem.objects.get(pk=items[0].pk).review
    assert (review.open, review.assignee, review.resolved_by, review.note) == (False, "ben", "ana", "told by phone")
    assert ReviewItem.objects.get(pk=items[1].pk).review.assignee == "ben"
    words = {e.change_message for e in LogEntry.objects.filter(object_id=str(items[0].pk))}
    assert words == {"Assigned to ben: he knows them", "Resolved: told by phone"}
    decide(support, "assign", items[1], assignee="", note="he is ill")
    assert ReviewItem.objects.get(pk=items[1].pk).review.assignee == ""


@pytest.mark.parametrize("decision", DECISIONS)
def test_without_a_note_nothing_is_decided(support: Client, world: World, decision: str) -> None:
    item = troubled(world)
    before = collection(Notification).find_one({"_id": item.pk})
    response = decide(support, decision, item, note=" ", channel="sms", assignee="ana")
    assert "This field is required." in response.content.decode()
    assert collection(Notification).find_one({"_id": item.pk}) == before
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize("decision", DECISIONS)
def test_one_item_has_the_same_previews(support: Client, world: World, decision: str) -> None:
    item = troubled(world)
    page = text(support, reverse(f"admin:delivery_reviewitem_{decision}_one", args=[item.pk]))
    assert str(item.pk) in page
    response = decide(support, decision, item, channel="sms", assignee="ana")
    assert response.redirect_chain[-1][0] == url(ReviewItem, "change", item.pk)


def test_a_click_on_everything_is_bounded(support: Client, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delivery.admin_review.DECIDED_AT_ONCE", 2)
    first = troubled(world)
    endpoint = Endpoint.objects.get(channel="sms")
    items = [first, *(troubled(world, endpoint=endpoint) for _ in range(2))]
    data = {"action": "resolve_chosen", "select_across": "1", "_selected_action": [str(first.pk)]}
    page = support.post(f"{url(ReviewItem, 'changelist')}?channel=sms", data).content.decode()
    found = re.search(r'name="ids" value="([^"]*)"', page)
    assert found is not None
    assert set(found[1].split(",")) == {str(item.pk) for item in items[1:]}  # The newest.
    assert "One click decides about 2 items at most" in page
    response = decide(support, "resolve", *items, back="channel=sms")
    assert response.redirect_chain[-1][0] == f"{url(ReviewItem, 'changelist')}?channel=sms"
    assert ReviewItem.objects.filter(review__open=True).count() == 1


@pytest.mark.parametrize(("seconds", "words"), [(5, "now"), (60, "1 min"), (7_300, "2 h"), (86_400 * 3 + 5, "3 d")])
def test_ages_are_short(seconds: int, words: str) -> None:
    assert short_age(seconds) == words


# --- Permissions ------------------------------------------------------------------------------------------------------
def test_support_reviews_and_edits_nothing_but_switches_addresses(support: Client, world: World) -> None:
    item = troubled(world)
    text(support, url(Follower, "change", world.follower.pk))
    assert MASKED in text(support, url(Endpoint, "change", world.endpoint.pk))
    for model, row in ((Follower, world.follower), (Trader, world.trader), (Follow, world.follow), (ReviewItem, item)):
        assert support.post(url(model, "change", row.pk), {"name": "x"}).status_code == 403
        assert support.post(url(model, "delete", row.pk), {"post": "yes"}).status_code == 403
        assert support.get(url(model, "add")).status_code == 403
    assert support.get(reverse("admin:auth_user_changelist")).status_code == 403
    assert support.post(url(Endpoint, "change", world.endpoint.pk), {"address": "x"}).status_code == 403
    data = {"action": "deactivate", "_selected_action": [str(world.endpoint.pk)], "reason": "its owner asked"}
    support.post(url(Endpoint, "changelist"), data)
    world.endpoint.refresh_from_db()
    assert (world.endpoint.active, world.endpoint.deactivated_reason) == (False, "its owner asked")


def test_whoever_may_only_look_decides_nothing(client: Client, world: World) -> None:
    viewer = User.objects.create_user("viewer", password="x", is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_reviewitem"))
    client.force_login(viewer)
    item = troubled(world)
    assert "Own words" in text(client, url(ReviewItem, "change", item.pk))
    before = collection(Notification).find_one({"_id": item.pk})
    for decision in DECISIONS:
        assert client.get(reverse(f"admin:delivery_reviewitem_{decision}_one", args=[item.pk])).status_code == 403
        assert decide(client, decision, item, channel="sms", assignee="viewer").status_code == 403
    assert collection(Notification).find_one({"_id": item.pk}) == before


def test_the_groups_are_made_with_their_permissions_even_where_there_are_none_yet() -> None:
    Permission.objects.all().delete()
    Group.objects.all().delete()
    try:
        for _ in range(2):
            make_groups()
            made = {g.name: list(g.permissions.values_list("codename", flat=True)) for g in Group.objects.all()}
            beyond_looking = {name: {c for c in codes if not c.startswith("view_")} for name, codes in made.items()}
            assert all(len(codes) == len(set(codes)) for codes in made.values())
            support = {"work_on_reviews", "switch_endpoint", "send_test_alert"}
            changed = {f"change_{name}" for name in ("tradeevent", "update", "rejectedevent", "breaker")}
            operator = support | changed | {"add_proofrun"}
            assert beyond_looking == {"Support": support, "Operator": operator}
            assert len(made["Support"]) == 18
    finally:
        call_command("migrate", verbosity=0)  # Makes the permissions that other tests look for.
