"""What the page benchmarks seed is what the pipeline would have left, and what they measure is what they say."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from bench.seed import Audience, follow_since, seeding
from bench.visits import Visit, Visitor, explained, in_words, statements_of
from delivery.proof import prove
from followers import clock
from followers.mongo import collection
from notifications import inbox
from notifications.models import InAppEntry, Notification
from notifications.statements import derive
from notifications.tokens import mint
from tests.pipeline import world

pytestmark = pytest.mark.django_db(transaction=True)
FATES = ("sent", "SENDER_ID_MISMATCH", "http_503", "no_answer", "")


def seed(followers: int) -> tuple[Any, list[Any]]:
    trader = world.make_trader()
    people = [world.make_follower(trader, "fcm", "sms") for _ in range(followers)]
    follow_since(clock.now() - timedelta(days=1))
    with seeding() as seeder:
        audience = Audience.of(trader.external_id)
        event = seeder.trade(audience, clock.now() - timedelta(seconds=10))
        fates = iter(FATES * followers)
        seeder.alerts(event, audience.members, lambda number, delivery: next(fates))
    return event, people


def test_what_is_seeded_is_what_the_pipeline_would_have_left() -> None:
    event, people = seed(len(FATES))

    # The proof finds each follower's alert, and each delivery sent, ended, in a batch, or with a wake-up ahead
    proof = prove()
    assert proof.holds, proof.as_json()["findings"]
    assert proof.tally.alerts == proof.tally.owed == len(people) == collection(InAppEntry).count_documents({})
    # And the database has nothing to add to what is derived
    assert collection(Notification).update_many({}, derive()).modified_count == 0
    opened = list(collection(Notification).find({"review.open": True}))
    assert {row["review"]["opened_at"] for row in opened} == {event["received_at"]}
    assert {code for row in opened for code in row["review"]["codes"]} == {
        "fcm:SENDER_ID_MISMATCH", "sms:SENDER_ID_MISMATCH", "fcm:no_answer", "sms:no_answer",
    }  # fmt: skip


def test_a_wrong_answer_is_noted() -> None:
    visitor = Visitor()
    for path, shows in (("/admin/", ["Review bucket"]), ("/admin/", ["No such words"]), ("/admin/nowhere/", [])):
        visitor.timed(Visit("a page", path, shows))
    assert visitor.wrong == ["a page does not show ['No such words']", "a page: status 404"]


def test_a_calls_statement_is_explained() -> None:
    _, people = seed(1)
    visitor = Visitor(mint(people[0]))

    (entry,) = [
        entry
        for entry in statements_of(lambda: visitor.timed(Visit("list", "/api/v1/inbox/", ['"id"'])))
        if entry["ns"].endswith("inappentry")
    ]

    assert not visitor.wrong
    assert f"IXSCAN {{ {', '.join(f'{k}: {v}' for k, v in inbox.INBOX_INDEX.items())} }}" in in_words(entry)
    told = explained(entry)
    assert told["plan"].endswith("IXSCAN follower_id_1_created_at_-1__id_-1")
    assert (told["documents examined"], told["returned"]) == (1, 1)
