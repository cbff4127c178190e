"""Who guesses a password of the admin's."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from notifyhub import admin_login

pytestmark = pytest.mark.django_db(transaction=True)
TOO_MANY = "Too many failed logins"


@pytest.fixture
def ann(settings: Any) -> User:
    settings.ADMIN_LOGIN_FAILURES = 3
    return User.objects.create_superuser("ann", password="right")


def log_in(password: str, name: str = "ann", address: str = "198.51.100.7") -> Any:
    credentials = {"username": name, "password": password}
    return Client(REMOTE_ADDR=address).post(reverse("admin:login"), credentials)


def is_refused(response: Any) -> bool:
    return TOO_MANY in response.content.decode()


def test_after_a_few_failures_even_the_right_password_is_refused_for_a_while(ann: User) -> None:
    for _ in range(3):
        assert not is_refused(log_in("wrong"))

    assert is_refused(log_in("right"))
    assert is_refused(log_in("right", name="ANN"))  # In any spelling.


def test_others_are_not_locked_out_with_them(ann: User) -> None:
    for _ in range(4):
        log_in("wrong")

    assert log_in("right", address="203.0.113.9").status_code == 302


def test_whoever_gets_in_starts_from_nothing(ann: User) -> None:
    for _ in range(2):
        log_in("wrong")
        log_in("wrong")
        assert log_in("right").status_code == 302


def test_an_address_that_goes_through_names_is_stopped(ann: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_login, "PER_ADDRESS_TIMES", 2)
    for number in range(6):
        assert not is_refused(log_in("wrong", name=f"name-{number}"))

    assert is_refused(log_in("right"))


def test_without_redis_staff_get_in_and_guessing_is_still_counted(ann: User, settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    admin_login._own.cache_clear()

    assert log_in("right").status_code == 302
    for _ in range(3):
        log_in("wrong")
    assert is_refused(log_in("right"))
