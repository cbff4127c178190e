"""The platform's public keys: when they are fetched, how often, and what holds while nobody answers."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from followers.models import Follower
from notifications import platform_keys
from notifications.platform_keys import PlatformKeysAwayError
from notifications.tokens import TokenErrorCode, verify
from tests.web.platform import WAIT_SECONDS, Platform, public_jwk, refused

pytestmark = pytest.mark.django_db(transaction=True)


def test_keys_are_fetched_once_for_many_tokens(platform: Platform, pass_time):
    for algorithm in platform_keys.ALGORITHMS * 2:
        verify(platform.token(algorithm))
    pass_time(platform_keys.FRESH - timedelta(seconds=1))
    verify(platform.token())

    assert platform.asked == 1


def test_a_new_key_is_found_and_a_withdrawn_one_forgotten(platform: Platform, ann: Follower, pass_time):
    verify(platform.token())
    pass_time(platform_keys.PAUSE)
    platform.keys = [public_jwk("RS256", 2)]

    assert verify(platform.token(number=2)).follower_id == ann.pk
    assert platform.asked == 2
    assert refused(platform.token()) is TokenErrorCode.INVALID


def test_a_withdrawn_key_is_forgotten_though_nobody_shows_a_new_one(platform: Platform, pass_time):
    verify(platform.token())
    platform.keys = [public_jwk("RS256", 2)]
    pass_time(platform_keys.FRESH)

    assert refused(platform.token()) is TokenErrorCode.INVALID


def test_made_up_key_ids_have_the_platform_asked_once_in_a_while(platform: Platform, pass_time):
    for round_ in (1, 2, 3):
        for number in range(20):
            assert refused(platform.token(kid=f"made-up-{number}")) is TokenErrorCode.INVALID
        assert platform.asked == round_
        pass_time(platform_keys.PAUSE)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"\xff\xfe", b"[]", b"{}", b'{"keys": []}', b'{"keys": {"kid": 1}}', b'{"keys": [1, null]}',
     b'{"keys": [{"kty": "RSA", "alg": [], "kid": "RS256-1"}]}',
     b'{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "RS256-1"}]}'],
)  # fmt: skip
def test_an_answer_without_a_usable_key_is_as_if_nobody_answered(platform: Platform, body: bytes):
    platform.body = body

    for _ in range(3):
        with pytest.raises(PlatformKeysAwayError):
            verify(platform.token())

    assert platform.asked == 1


def test_a_platform_that_is_away_is_asked_again_after_a_pause(platform: Platform, ann: Follower, pass_time):
    platform.status = 500
    for _ in range(3):
        with pytest.raises(PlatformKeysAwayError):
            verify(platform.token())
    assert platform.asked == 1

    platform.status = 200
    pass_time(platform_keys.PAUSE)

    assert verify(platform.token()).follower_id == ann.pk


def test_known_keys_work_on_while_the_platform_is_away_for_a_day(platform: Platform, ann: Follower, pass_time):
    verify(platform.token())
    platform.stop()
    for _ in range(3):
        pass_time(platform_keys.FRESH)
        assert verify(platform.token()).follower_id == ann.pk
    with pytest.raises(PlatformKeysAwayError):
        verify(platform.token(number=2))

    pass_time(platform_keys.USABLE)

    with pytest.raises(PlatformKeysAwayError):
        verify(platform.token())


def test_whoever_has_a_known_key_does_not_wait_for_a_platform_that_hangs(
    platform: Platform, ann: Follower, pass_time, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(platform_keys, "TIMEOUT_SECONDS", WAIT_SECONDS)
    verify(platform.token())
    platform.was_asked.clear()
    platform.may_answer.clear()
    pass_time(platform_keys.FRESH)
    asking = threading.Thread(target=platform_keys.find, args=["made-up"])
    asking.start()
    assert platform.was_asked.wait(WAIT_SECONDS)

    assert verify(platform.token()).follower_id == ann.pk

    assert asking.is_alive()
    platform.may_answer.set()
    asking.join()
