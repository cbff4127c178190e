"""A follower who was erased while their app still has a good token: it opens nothing, and stores nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from pymongo.errors import AutoReconnect
from rest_framework.test import APIClient

from delivery import updates
from followers import clock, erasures, profile, upserts
from followers.choices import Scope
from followers.erasures import Lately
from followers.models import Endpoint, Follower
from followers.mongo import collection
from notifications.erasure import erase
from notifications.models import InAppEntry, Update
from tests.api.conftest import as_follower, as_service, code_of
from tests.pipeline.test_updates import fan_out

API = "/api/v1/"
PHONE = {"channel": "fcm", "address": "a-token-of-at-least-sixteen"}
CALLS: dict[str, Callable[[APIClient], Any]] = {
    "inbox": lambda app: app.get(API + "inbox/"),
    "read": lambda app: app.post(API + "inbox/read", {"before": clock.now().isoformat()}, format="json"),
    "preferences": lambda app: app.patch(API + "preferences", {"mute_exits": True}, format="json"),
    "device": lambda app: app.post(API + "devices", PHONE, format="json"),
    "test": lambda app: app.post(API + "test-alert"),
    "ticket": lambda app: app.post(API + "ws-ticket"),
}


@pytest.mark.parametrize("keeps", [True, False])
def test_the_followers_own_token_opens_nothing_any_more(ann: Follower, bob: Follower, settings: Any, keeps: bool):
    settings.ERASURE_KEEPS_NOTIFICATIONS = keeps
    app, others = as_follower(ann), as_follower(bob)
    assert app.get(API + "inbox/").status_code == 200

    as_service(Scope.FOLLOWERS_ERASE).delete(API + "followers/F-ann")

    for name, call in CALLS.items():
        assert code_of(call(app), 403) == "follower_unknown", name
        assert call(others).status_code < 300, name
    assert stored_of(ann) == ({} if keeps else None, 0, 0)


def test_nobody_mints_a_token_for_the_row_that_is_left(ann: Follower):
    erase("F-ann")

    for name in ("F-ann", f"erased:{ann.pk}"):
        minted = as_service(Scope.TOKENS_MINT).post(API + "tokens/", {"follower_id": name}, format="json")
        assert code_of(minted, 404) == "not_found"


MOMENTS = {
    "device": (upserts, "insert_missing"),
    "preferences": (profile.preferences, "merge"),
    "test": (updates, "_document"),
}


@pytest.mark.parametrize("call", MOMENTS)
def test_who_is_erased_during_a_call_leaves_nothing_of_it(ann: Follower, monkeypatch: pytest.MonkeyPatch, call: str):
    module, name = MOMENTS[call]
    step = getattr(module, name)

    def erase_first(*arguments: Any) -> Any:
        erase("F-ann")
        return step(*arguments)

    monkeypatch.setattr(module, name, erase_first)
    answer = CALLS[call](as_follower(ann))
    fan_out()

    assert answer.status_code in {201, 403, 404}, answer.content
    assert stored_of(ann) == ({}, 0, 0)
    assert "F-ann" not in str(list(collection(Update).find()))


@pytest.mark.parametrize("call", ["device", "preferences", "test"])
def test_an_app_whose_call_comes_before_this_process_knows_leaves_nothing(
    ann: Follower, monkeypatch: pytest.MonkeyPatch, call: str
):
    monkeypatch.setattr(erasures, "is_erased", lambda follower: False)
    erase("F-ann")

    answer = CALLS[call](as_follower(ann))

    assert answer.status_code in {403, 404}, answer.content
    assert stored_of(ann) == ({}, 0, 0)
    assert not Update.objects.exists()


def test_no_service_writes_to_the_row_that_is_left(ann: Follower):
    erase("F-ann")
    body = {"id": "U-1", "title": "News", "text": "…", "follower_ids": [f"erased:{ann.pk}"]}

    answer = as_service(Scope.UPDATES_WRITE).post(API + "updates/", body, format="json")
    fan_out()

    assert answer.json()["unknown_follower_ids"] == [f"erased:{ann.pk}"]
    assert stored_of(ann) == ({}, 0, 0)


def stored_of(follower: Follower) -> tuple[Any, int, int]:
    """(preferences, devices, entries); None = there is no row of theirs."""
    row = collection(Follower).find_one({"_id": follower.pk})
    mine = {"follower_id": follower.pk}
    counts = (collection(model).count_documents(mine) for model in (Endpoint, InAppEntry))
    return (row and row["preferences"], *counts)  # type: ignore[return-value]


def test_erasures_are_read_once_a_second_and_the_last_answer_holds_while_the_database_is_away(
    ann: Follower, monkeypatch: pytest.MonkeyPatch
):
    read, at, reads = erasures.erased_since, [100.0], []

    def counted(*arguments: Any, **options: Any) -> Any:
        reads.append(at[0])
        if at[0] == 103.0:
            raise AutoReconnect("Gone.")
        return read(*arguments, **options)

    monkeypatch.setattr(erasures, "erased_since", counted)
    monkeypatch.setattr(erasures, "time", SimpleNamespace(monotonic=lambda: at[0]))
    lately = Lately()
    assert lately.ids() == frozenset()
    erasures.begin("F-ann", clock.now())

    known = {}
    for at[0] in (100.9, 101.0, 101.9, 103.0, 103.5, 104.0):
        known[at[0]] = ann.pk in lately.ids()

    assert reads == [100.0, 101.0, 103.0, 104.0]
    assert known == {100.9: False, 101.0: True, 101.9: True, 103.0: True, 103.5: True, 104.0: True}


def test_who_was_erased_longer_ago_than_a_token_lives_is_not_kept_in_mind(ann: Follower):
    erasures.begin("F-ann", clock.now() - timedelta(days=1))

    assert Lately().ids() == frozenset()


def test_a_new_process_knows_nothing_until_its_first_reading_has_come(ann: Follower, monkeypatch: pytest.MonkeyPatch):
    """Whoever asks meanwhile, or after a first reading that failed, reads for themselves."""
    erasures.begin("F-ann", clock.now())
    lately, read, meanwhile = Lately(), erasures.erased_since, []

    def away(*arguments: Any, **options: Any) -> Any:
        raise AutoReconnect

    def slow(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(erasures, "erased_since", read)
        meanwhile.append(lately.ids())
        return read(*arguments, **options)

    monkeypatch.setattr(erasures, "erased_since", away)
    assert lately.ids() == frozenset()
    monkeypatch.setattr(erasures, "erased_since", slow)

    assert lately.ids() == {ann.pk}
    assert meanwhile == [{ann.pk}]


def test_a_slow_reading_replaces_nothing_newer(ann: Follower, monkeypatch: pytest.MonkeyPatch):
    lately, read = Lately(), erasures.erased_since

    def overtaken(*arguments: Any, **options: Any) -> Any:
        before = list(read(*arguments, **options))
        monkeypatch.setattr(erasures, "erased_since", read)
        erasures.begin("F-ann", clock.now())
        lately.forget()
        assert lately.ids() == {ann.pk}
        return before

    monkeypatch.setattr(erasures, "erased_since", overtaken)
    lately.ids()

    assert lately.ids() == {ann.pk}
