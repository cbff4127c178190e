"""Rejected messages replayed from the admin: those that were ticked, or everything that matches the filters."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from delivery import admin_rejected
from delivery import replay as replay_module
from followers import clock
from notifications.models import RejectedEvent, TradeEvent
from tests.admin.builders import build_rejected
from tests.notifications.builders import message

pytestmark = pytest.mark.django_db(transaction=True)
LIST = reverse("admin:notifications_rejectedevent_changelist")


def good(offset: int, **fields: Any) -> RejectedEvent:
    return build_rejected(offset, message(eventId=f"E-{offset}"), **{"code": "unknown_version", **fields})


def choose_all(client: Client, query: str = "", **fields: str) -> Any:
    ticked = RejectedEvent.objects.values_list("pk", flat=True)[:1]
    data = {"action": "replay", "select_across": "1", "_selected_action": str(ticked[0])}
    return client.post(f"{LIST}?{query}", {**data, **fields}, follow=True)


def said(response: Any) -> list[str]:
    return [str(m) for m in response.context["messages"]]


def test_everything_that_matches_is_shown_first_and_replayed_then(admin_client: Client) -> None:
    for n in range(60):  # More than a page of the list.
        good(n)
    build_rejected(100, message(side="LONG"), code="unknown_version")
    build_rejected(101, code="bad_utf8")

    preview = choose_all(admin_client, "code=unknown_version")

    assert (preview.context["total"], preview.context["sample"].accepted) == (61, 60)
    assert preview.context["sample"].still_rejected == 1
    assert not TradeEvent.objects.exists()
    assert f'action="{LIST}?code=unknown_version"' in preview.content.decode()

    done = choose_all(admin_client, "code=unknown_version", confirmed="1")

    assert said(done) == ["60 taken in as events, 1 are still rejected."]
    assert TradeEvent.objects.count() == 60
    assert RejectedEvent.objects.get(offset=101).replayed_at is None


def test_what_was_replayed_is_in_the_history_with_who(admin_client: Client, admin_user: Any) -> None:
    row = good(1)
    choose_all(admin_client, confirmed="1")
    (entry,) = LogEntry.objects.all()
    assert (entry.user, entry.object_id, entry.object_repr) == (admin_user, str(row.pk), "E-1")
    assert entry.change_message == "Replayed: taken in as an event."


def test_a_click_that_ran_out_of_time_offers_to_go_on_behind_it(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "PAGE", 2)
    monkeypatch.setattr(admin_rejected, "SECONDS_A_CLICK", 0.0)
    for n in range(2):
        build_rejected(n, message(side="LONG"), code="unknown_version")  # Still bad, whenever they are tried.
    for n in range(2, 4):
        good(n)

    first = choose_all(admin_client, confirmed="1")
    assert (said(first), first.context["total"]) == (["0 taken in as events, 2 are still rejected."], 2)
    assert first.context["after"] == RejectedEvent.objects.get(offset=1).pk

    second = choose_all(admin_client, confirmed="1", after=str(first.context["after"]))
    assert said(second) == ["2 taken in as events, 0 are still rejected."]
    assert RejectedEvent.objects.filter(replayed_at=None).count() == 2


@pytest.mark.parametrize(("query", "found"), [("received=1", 1), ("received=24", 2), ("topic=other", 1), ("", 3)])
def test_the_list_is_filtered_by_time_and_topic(admin_client: Client, query: str, found: int) -> None:
    good(1)
    good(2, topic="other", received_at=clock.now() - timedelta(hours=3))
    good(3, received_at=clock.now() - timedelta(days=3))
    assert admin_client.get(f"{LIST}?{query}").context["cl"].result_count == found


def test_one_topic_needs_no_filter(admin_client: Client) -> None:
    good(1)
    assert "topic" not in [spec.title for spec in admin_client.get(LIST).context["cl"].filter_specs]
