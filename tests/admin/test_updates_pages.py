"""What support sees of general updates, and what an operator can do about one that has failed."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from delivery.choices import BatchKind
from delivery.models import Batch
from delivery.updates import Draft, publish_update
from delivery.why_not import Cause, why
from followers.models import Follower
from notifications import statements as notifications
from notifications.choices import Kind
from notifications.models import Notification, Update
from tests.admin.scenes import member
from tests.admin.test_actions import run
from tests.admin.test_pages import text, url
from tests.pipeline.test_updates import fan_out, rows
from tests.pipeline.world import make_follower, make_trader

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ann(transactional_db: None) -> Follower:
    return make_follower(make_trader())


def publish(*followers: Follower, external_id: str = "U-7", **fields: Any) -> Any:
    draft = Draft(
        external_id=external_id, title="Markets close early", text="At 14:00.", correlation_id="asked-by-hand",
        followers=[follower.external_id for follower in followers], **fields,
    )  # fmt: skip
    return publish_update(draft).update


def test_support_finds_an_update_in_the_sidebar_and_opens_it(client: Client, ann: Follower) -> None:
    update = publish(ann)
    client.force_login(member("Support"))
    assert url(Update, "changelist") in text(client, reverse("admin:index"))
    assert "Markets close early" in text(client, url(Update, "changelist"), {"q": "asked-by-hand"})
    assert "At 14:00." in text(client, url(Update, "change", update["_id"]))
    assert "run_again" not in text(client, url(Update, "changelist"))


def test_what_became_of_an_update_is_answered_by_each_of_its_ids(client: Client, ann: Follower) -> None:
    update = publish(ann)
    fan_out()
    alert = rows(update)[ann.pk]
    for term in ("U-7", "update:U-7", "asked-by-hand", str(alert["_id"])):
        answer = why(ann, term)
        assert (answer.cause, answer.event, answer.alert) == (Cause.THERE, update["_id"], alert["_id"])
        assert answer.kind is Kind.UPDATE
    client.force_login(member("Support"))
    page = text(client, url(Follower, "change", ann.pk), {"trade": "U-7"})
    assert "In-app: It stands in the inbox." in page
    assert page.count(url(Update, "change", update["_id"])) == 2  # In the answer, and among the last alerts.
    assert url(Notification, "change", alert["_id"]) in page


def test_of_several_with_one_correlation_id_the_followers_own_is_told_of(ann: Follower) -> None:
    bob = make_follower(make_trader())
    to_bob, to_ann = publish(bob, external_id="U-1"), publish(ann, external_id="U-2")
    fan_out()
    assert why(ann, "asked-by-hand").event == to_ann["_id"]
    assert why(bob, "asked-by-hand").event == to_bob["_id"]


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        ("pending", Cause.UNDER_WAY),
        ("failed", Cause.FAN_OUT_FAILED),
        ("done", Cause.MISSING),
    ],
)
def test_why_an_update_has_no_alert(ann: Follower, state: str, cause: Cause) -> None:
    bob = make_follower(make_trader())
    update = publish(ann)
    Update.objects.filter(pk=update["_id"]).update(state=state)
    assert why(ann, "U-7").cause is cause
    assert why(bob, "U-7").cause is Cause.NOT_NAMED


def test_a_traders_update_does_not_reach_those_who_do_not_follow(ann: Follower) -> None:
    trader = make_trader()
    bob = make_follower(trader)
    publish(trader=trader.external_id)
    assert why(ann, "U-7").cause is Cause.NEVER_FOLLOWED
    assert why(bob, "U-7").cause is Cause.UNDER_WAY


def test_an_operator_runs_a_failed_update_again(client: Client, ann: Follower) -> None:
    update = publish(ann)
    notifications.fail_event(update["_id"])
    client.force_login(member("Operator"))
    row = Update.objects.get(pk=update["_id"])

    said = run(client, Update, "run_again", row)

    row.refresh_from_db()
    assert row.state == "pending"
    assert said == ["U-7: 1 shards run again within seconds."]
    log = LogEntry.objects.get(object_id=str(row.pk))
    assert (log.user.get_username(), log.change_message) == ("mira", "Fan-out run again: 1 shards.")
    fan_out()
    assert set(rows(update)) == {ann.pk}
    assert run(client, Update, "run_again", row) == ["None of the chosen general updates has failed."]


def test_a_batch_and_an_alert_lead_to_their_update(admin_client: Client, ann: Follower) -> None:
    update = publish(ann)
    (shard,) = Batch.objects.filter(kind=BatchKind.FAN_OUT)
    assert url(Update, "change", update["_id"]) in text(admin_client, url(Batch, "change", shard.pk))
