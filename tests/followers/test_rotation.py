"""manage.py rotate_keys: every address under the first key, and nothing that was registered meanwhile is undone."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from followers import rotation
from followers.encryption import decrypt, key_id, key_of
from followers.models import Endpoint, Follower
from followers.mongo import collection

pytestmark = pytest.mark.django_db(transaction=True)
OLD, NEW = b"\x01" * 32, b"\x02" * 32


def stored() -> list[str]:
    return [row["address"] for row in collection(Endpoint).find().sort("_id", 1)]


def rotate_keys(*options: str) -> str:
    out = StringIO()
    call_command("rotate_keys", *options, stdout=out, stderr=StringIO())
    return out.getvalue()


@pytest.fixture
def addresses(settings: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Five addresses under the old key; the new one has been put in front, and pages are of two."""
    settings.ENDPOINT_ENCRYPTION_KEYS = [OLD]
    monkeypatch.setattr(rotation, "BATCH", 2)
    numbers = [f"+1415555010{n}" for n in range(5)]
    follower = Follower.objects.create(external_id="F-1")
    for number in numbers:
        Endpoint.objects.create(follower=follower, channel="sms", address=number)
    settings.ENDPOINT_ENCRYPTION_KEYS = [NEW, OLD]
    return numbers


def test_every_address_comes_under_the_first_key(settings: Any, addresses: list[str]) -> None:
    assert "5 rotated" in rotate_keys()
    settings.ENDPOINT_ENCRYPTION_KEYS = [NEW]
    assert [decrypt(value) for value in stored()] == addresses
    before = stored()
    assert "0 rotated" in rotate_keys()
    assert stored() == before


def test_check_says_whether_the_old_key_is_needed_and_changes_nothing(addresses: list[str]) -> None:
    before = stored()
    with pytest.raises(CommandError, match="5 addresses still need an old key"):
        rotate_keys("--check")
    assert stored() == before
    rotate_keys()
    assert "No old key is needed" in rotate_keys("--check")


def test_an_address_that_is_registered_meanwhile_stays(addresses: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    real = rotation._apply

    def change_one_first(changes: list[Any]) -> int:
        Endpoint.objects.filter(pk=changes[0]._filter["_id"]).update(address="+14155559999")
        return real(changes)

    monkeypatch.setattr(rotation, "_apply", change_one_first)
    said = rotate_keys()
    assert "2 rotated" in said
    assert [decrypt(value) for value in stored()].count("+14155559999") == 3
    assert {key_of(value) for value in stored()} == {key_id(NEW)}


def test_a_lost_key_is_named_and_the_others_are_rotated(settings: Any, addresses: list[str]) -> None:
    settings.ENDPOINT_ENCRYPTION_KEYS = [b"\x03" * 32]
    lost = Endpoint.objects.create(
        follower=Follower.objects.get(), channel="sms", address="+14155550999", deactivated_reason=""
    )
    settings.ENDPOINT_ENCRYPTION_KEYS = [NEW, OLD]
    with pytest.raises(CommandError, match=str(lost.pk)):
        rotate_keys()
    assert [key_of(value) for value in stored()].count(key_id(NEW)) == 5
