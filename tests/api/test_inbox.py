"""A follower's inbox over REST: their own alone, in pages, and every change told to their sockets."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId

from followers import clock
from followers.choices import PUSH_CHANNELS
from followers.mongo import collection
from notifications import inbox, live
from notifications.models import InAppEntry
from tests.api.conftest import as_follower, code_of
from tests.web.builders import inbox_entry, notification, sent_push, stored_alert, stored_entry

INBOX = "/api/v1/inbox/"


@pytest.fixture
def frames(monkeypatch) -> list[dict[str, Any]]:
    """What is pushed; web processes add the unread count (tests/web/test_live_push_fan_in.py)."""
    sent: list[dict[str, Any]] = []

    def push(pushed: Any) -> int:
        sent.extend(frame for _, frame in pushed if frame is not None)
        return 0

    monkeypatch.setattr(live, "push", push)
    return sent


def test_pages_follow_each_other_without_a_gap_even_within_a_millisecond(ann, bob):
    at = clock.now()
    mine = [stored_entry(ann, at - timedelta(seconds=n // 3))["_id"] for n in range(7)]
    stored_entry(bob, at)
    client, seen, address = as_follower(ann), [], f"{INBOX}?limit=2"

    while address is not None:
        page = client.get(address).json()
        seen += [row["id"] for row in page["results"]]
        address = page["next"]

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


def test_read_and_unread_tell_the_other_tabs(ann, frames):
    entry = stored_entry(ann)["_id"]
    client = as_follower(ann)

    assert client.patch(f"{INBOX}{entry}/read").status_code == 204
    assert inbox_entry(entry)["read_at"] is not None
    assert client.patch(f"{INBOX}{entry}/unread").status_code == 204

    assert inbox_entry(entry)["read_at"] is None
    assert [(frame["type"], frame["read_at"] is None) for frame in frames] == [
        ("notification.updated", False),
        ("notification.updated", True),
    ]


def test_an_archived_entry_leaves_the_inbox_and_the_other_tabs(ann, frames):
    entry = stored_entry(ann)["_id"]
    client = as_follower(ann)

    assert client.patch(f"{INBOX}{entry}/archive").status_code == 204

    assert client.get(INBOX).json()["results"] == []
    assert [frame["type"] for frame in frames] == ["notification.removed"]


def test_many_are_read_at_once(ann, bob, frames):
    at = clock.now()
    old, new = stored_entry(ann, at - timedelta(seconds=9))["_id"], stored_entry(ann, at)["_id"]
    others = stored_entry(bob, at)["_id"]
    client = as_follower(ann)

    by_time = client.post(INBOX + "read", {"before": (at - timedelta(seconds=5)).isoformat()}, format="json")
    by_id = client.post(INBOX + "read", {"ids": [str(old), str(new), str(others)]}, format="json")

    assert (by_time.json(), by_id.json()) == ({"changed": 1}, {"changed": 1})
    assert inbox_entry(others)["read_at"] is None


def told(frames: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(frame["id"], str(frame.get("reason", frame.get("read_at")))) for frame in frames}


def test_many_are_unread_again_at_once(ann, bob, frames):
    at = clock.now()
    old, new = (stored_entry(ann, at - timedelta(seconds=age), read_at=at)["_id"] for age in (9, 0))
    unread, gone = stored_entry(ann)["_id"], stored_entry(ann, read_at=at, archived_at=at)["_id"]
    others = stored_entry(bob, at, read_at=at)["_id"]
    client = as_follower(ann)

    by_time = client.post(INBOX + "unread", {"before": (at - timedelta(seconds=5)).isoformat()}, format="json")
    ids = [str(oid) for oid in (old, new, unread, gone, others)]
    by_id = client.post(INBOX + "unread", {"ids": ids}, format="json")

    assert (by_time.json(), by_id.json()) == ({"changed": 1}, {"changed": 1})
    assert [inbox_entry(oid)["read_at"] for oid in (old, new)] == [None, None]
    assert inbox_entry(others)["read_at"] is not None
    assert inbox_entry(gone)["read_at"] is not None
    assert told(frames) == {(str(old), "None"), (str(new), "None")}
    assert {frame["type"] for frame in frames} == {"notification.updated"}


def test_many_are_archived_at_once(ann, bob, frames):
    at = clock.now()
    old, new = (stored_entry(ann, at - timedelta(seconds=age))["_id"] for age in (9, 0))
    others = stored_entry(bob, at)["_id"]
    client = as_follower(ann)

    by_time = client.post(INBOX + "archive", {"before": (at - timedelta(seconds=5)).isoformat()}, format="json")
    by_id = client.post(INBOX + "archive", {"ids": [str(old), str(new), str(others)]}, format="json")

    assert (by_time.json(), by_id.json()) == ({"changed": 1}, {"changed": 1})
    assert client.get(INBOX).json()["results"] == []
    assert inbox_entry(others)["archived_at"] is None
    assert told(frames) == {(str(old), "archived"), (str(new), "archived")}


@pytest.mark.parametrize("left", ["archived_at", "expires_at"])
def test_what_has_left_the_inbox_is_not_made_unread(ann, frames, left):
    at = clock.now()
    entry = stored_entry(ann, read_at=at, **{left: at - timedelta(seconds=1)})["_id"]

    assert code_of(as_follower(ann).patch(f"{INBOX}{entry}/unread"), 404) == "not_found"

    assert inbox_entry(entry)["read_at"] is not None
    assert frames == []


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
    in_app = notification(alert)["deliveries"][0]
    assert (in_app["state"], list(in_app["acks"])) == ("delivered", [event])


@pytest.mark.parametrize("channel", PUSH_CHANNELS)
def test_an_acknowledged_push_message_is_delivered_on_its_channel(ann, channel):
    alert = stored_alert(ann)["_id"]
    device = sent_push(alert, channel)
    body = {"event": "opened", "channel": channel, "device_id": str(device)}

    assert as_follower(ann).post(f"{INBOX}{alert}/ack", body, format="json").status_code == 204

    in_app, *_, push = notification(alert)["deliveries"]
    assert (in_app["state"], push["state"], list(push["acks"])) == ("sent", "delivered", ["opened"])


def test_with_several_devices_the_acknowledgement_must_say_which(ann):
    alert = stored_alert(ann)["_id"]
    sent_push(alert, "apns")
    sent_push(alert, "apns")
    before = notification(alert)

    answer = as_follower(ann).post(f"{INBOX}{alert}/ack", {"event": "seen", "channel": "apns"}, format="json")

    assert code_of(answer, 400) == "invalid"
    assert [(error["field"], error["code"]) for error in answer.json()["errors"]] == [("device_id", "required")]
    assert notification(alert) == before


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "event"),
        ({"event": "eaten"}, "event"),
        ({"event": "seen", "channel": "sms"}, "channel"),
        ({"event": "seen", "channel": "pigeon"}, "channel"),
        ({"event": "seen", "channel": "fcm", "device_id": "x"}, "device_id"),
        ({"event": "seen", "device_id": "6" * 24}, "device_id"),
    ],
)
def test_a_wrong_acknowledgement_names_its_field(ann, body, field):
    alert = stored_alert(ann)["_id"]

    answer = as_follower(ann).post(f"{INBOX}{alert}/ack", body, format="json")

    assert code_of(answer, 400) == "invalid"
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_nobody_reaches_anothers_entry(ann, bob, frames):
    entry = stored_alert(bob)["_id"]
    sent_push(entry, "fcm")
    before = inbox_entry(entry), notification(entry)
    client = as_follower(ann)

    for call in ("read", "unread", "archive"):
        assert code_of(client.patch(f"{INBOX}{entry}/{call}"), 404) == "not_found"
    device = before[1]["deliveries"][-1]["endpoint"]
    for said in ({}, {"channel": "fcm"}, {"channel": "fcm", "device_id": str(device)}):
        ack = {"event": "seen", **said}
        assert code_of(client.post(f"{INBOX}{entry}/ack", ack, format="json"), 404) == "not_found"

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
