"""A follower's inbox over REST: their own alone, in pages, and every change told to their sockets."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId

from followers import clock
from followers.mongo import collection
from notifications import inbox, live
from notifications.models import InAppEntry
from tests.api.conftest import as_follower, code_of
from tests.web.builders import inbox_entry, notification, stored_alert, stored_entry

INBOX = "/api/v1/inbox/"


@pytest.fixture
def frames(monkeypatch) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    def push(pushed: Any) -> int:
        sent.extend(frame for _, frame in pushed)
        return 0

    monkeypatch.setattr(live, "push", push)
    return sent


def test_pages_follow_each_other_without_a_gap_even_within_a_millisecond(ann, bob):
    at = clock.now()
    mine = [stored_entry(ann, at - timedelta(seconds=n // 3))["_id"] for n in range(7)]
    stored_entry(bob, at)
    client, seen, cursor = as_follower(ann), [], None

    while True:
        page = client.get(INBOX, {"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        seen += [row["id"] for row in page["results"]]
        cursor = page["next"]
        if cursor is None:
            break

    assert len(seen) == 7
    assert set(seen) == {str(oid) for oid in mine}


def test_ten_entries_make_a_page_and_since_leaves_out_what_is_older(ann):
    at = clock.now()
    for n in range(12):
        stored_entry(ann, at - timedelta(seconds=n))
    client = as_follower(ann)

    assert len(client.get(INBOX).json()["results"]) == 10
    since = (at - timedelta(seconds=3)).isoformat()
    assert len(client.get(INBOX, {"since": since}).json()["results"]) == 3


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"cursor": "x"}, "invalid_cursor"),
        ({"cursor": ""}, "invalid_cursor"),
        ({"cursor": "_" * 27}, "invalid_cursor"),
        ({"limit": "0"}, "invalid"),
        ({"limit": "101"}, "invalid"),
        ({"limit": "²"}, "invalid"),
        ({"since": "yesterday"}, "invalid"),
        ({"since": "2026-11-21T09:15:00"}, "invalid"),
    ],
)
def test_a_wrong_query_is_named(ann, query, code):
    assert code_of(as_follower(ann).get(INBOX, query), 400) == code


def test_the_count_is_sent_again_only_when_it_changed(ann):
    stored_entry(ann)
    client = as_follower(ann)
    first = client.get(INBOX + "count")

    assert first.json() == {"unread": 1}
    assert client.get(INBOX + "count", HTTP_IF_NONE_MATCH=first["ETag"]).status_code == 304
    stored_entry(ann)
    assert client.get(INBOX + "count", HTTP_IF_NONE_MATCH=first["ETag"]).json() == {"unread": 2}


def test_read_and_unread_tell_the_other_tabs_the_count(ann, frames):
    entry = stored_entry(ann)["_id"]
    client = as_follower(ann)

    assert client.patch(f"{INBOX}{entry}/read").status_code == 204
    assert inbox_entry(entry)["read_at"] is not None
    assert client.patch(f"{INBOX}{entry}/unread").status_code == 204

    assert inbox_entry(entry)["read_at"] is None
    assert [frame["count"] for frame in frames] == [0, 1]


def test_an_archived_entry_leaves_the_inbox_and_the_other_tabs(ann, frames):
    entry = stored_entry(ann)["_id"]
    client = as_follower(ann)

    assert client.patch(f"{INBOX}{entry}/archive").status_code == 204

    assert client.get(INBOX).json()["results"] == []
    assert [frame["type"] for frame in frames] == ["notification.removed", "unread_count.changed"]


def test_many_are_read_at_once(ann, bob, frames):
    at = clock.now()
    old, new = stored_entry(ann, at - timedelta(seconds=9))["_id"], stored_entry(ann, at)["_id"]
    others = stored_entry(bob, at)["_id"]
    client = as_follower(ann)

    by_time = client.post(INBOX + "read", {"before": (at - timedelta(seconds=5)).isoformat()}, format="json")
    by_id = client.post(INBOX + "read", {"ids": [str(old), str(new), str(others)]}, format="json")

    assert (by_time.json(), by_id.json()) == ({"changed": 1}, {"changed": 1})
    assert inbox_entry(others)["read_at"] is None


@pytest.mark.parametrize("body", [{}, {"ids": []}, {"ids": ["x"]}, {"before": "soon"}, {"ids": "x", "before": 1}, []])
def test_a_wrong_body_names_its_fields(ann, body):
    answer = as_follower(ann).post(INBOX + "read", body, format="json")

    assert code_of(answer, 400) == "invalid"
    assert answer.json()["errors"]


@pytest.mark.parametrize("event", ["received", "seen", "opened"])
def test_an_acknowledged_alert_is_delivered_in_the_app(ann, event):
    alert = stored_alert(ann)["_id"]

    answer = as_follower(ann).post(f"{INBOX}{alert}/ack", {"event": event}, format="json")

    assert answer.status_code == 204
    assert notification(alert)["deliveries"][0]["state"] == "delivered"


def test_nobody_reaches_anothers_entry(ann, bob, frames):
    entry = stored_alert(bob)["_id"]
    before = inbox_entry(entry), notification(entry)
    client = as_follower(ann)

    for call in ("read", "unread", "archive"):
        assert code_of(client.patch(f"{INBOX}{entry}/{call}"), 404) == "not_found"
    assert code_of(client.post(f"{INBOX}{entry}/ack", {"event": "seen"}, format="json"), 404) == "not_found"

    assert (inbox_entry(entry), notification(entry)) == before
    assert frames == []


def test_a_page_is_read_from_the_index_alone(ann, monkeypatch):
    for n in range(30):
        stored_entry(ann, clock.now() - timedelta(seconds=n))
    after = (clock.now() - timedelta(seconds=5), ObjectId())
    made = {"created_at": {"$lte": after[0]}, "$or": [{"created_at": {"$lt": after[0]}}, {"_id": {"$lt": after[1]}}]}
    query = {**inbox._visible(ann.pk, clock.now()), **made}

    rows = collection(InAppEntry).find(query).sort([("created_at", -1), ("_id", -1)]).hint(inbox.INBOX_INDEX).limit(3)
    stats = rows.explain()["executionStats"]

    assert stats["totalDocsExamined"] <= 5
    assert stages(stats["executionStages"]) == ["LIMIT", "FETCH", "IXSCAN"]


def stages(plan: dict[str, Any]) -> list[str]:
    """The plan's stages from the last to the first."""
    return [plan["stage"], *(stages(plan["inputStage"]) if "inputStage" in plan else [])]
