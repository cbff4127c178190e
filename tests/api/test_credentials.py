"""Who is let in: services by key and scope, followers by token; everybody else gets a problem detail."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.management import call_command
from rest_framework.test import APIClient

from followers import clock, service_keys
from followers.choices import Scope
from followers.models import ServiceKey
from notifications import tokens
from tests.api.conftest import as_follower, as_service, code_of, with_key

BODY = {"follower_id": "F-ann"}
TOKENS = "/api/v1/tokens/"
INBOX = "/api/v1/inbox/"


def test_a_service_mints_a_token_that_opens_the_followers_inbox(ann):
    answer = as_service(Scope.TOKENS_MINT).post(TOKENS, BODY, format="json")

    assert answer.status_code == 201
    assert tokens.verify(answer.json()["token"]).follower_id == ann.pk


def test_without_credentials_nobody_is_let_in(db):
    answer = APIClient().get(INBOX)

    assert code_of(answer, 401) == "credentials_missing"
    assert answer["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("header", ["Bearer", "Bearer a b", "Basic eDp5", "Api-Key x", "Bearer \xff"])
def test_what_is_no_token_is_no_credential(db, header):
    answer = APIClient(raise_request_exception=False).get(INBOX, HTTP_AUTHORIZATION=header)

    assert code_of(answer, 401) in {"credentials_missing", "token_invalid"}


def test_a_followers_token_opens_nothing_of_a_service(ann):
    assert code_of(as_follower(ann).post(TOKENS, BODY, format="json"), 401) == "credentials_missing"


def test_an_expired_token_says_so(ann, monkeypatch):
    client, now = as_follower(ann), clock.now()
    monkeypatch.setattr(clock, "now", lambda: now + timedelta(hours=1))

    assert code_of(client.get(INBOX), 401) == "token_expired"


def test_a_key_without_the_scope_is_refused(ann):
    client = as_service(Scope.NOTIFICATIONS_READ)

    assert code_of(client.post(TOKENS, BODY, format="json"), 403) == "scope_missing"


def test_a_revoked_an_expired_and_an_unknown_key_are_refused(ann, monkeypatch):
    now = clock.now()
    revoked, revoked_text = service_keys.create("Old", [Scope.TOKENS_MINT])
    _, expired = service_keys.create("Older", [Scope.TOKENS_MINT], expires_at=now - timedelta(seconds=1))
    service_keys.revoke([revoked.pk], now)
    wrong = revoked_text[:-1] + ("A" if revoked_text[-1] != "A" else "B")

    for text, code in ((revoked_text, "key_revoked"), (expired, "key_expired"), (wrong, "key_invalid")):
        assert code_of(with_key(text).post(TOKENS, BODY, format="json"), 401) == code


def test_the_keys_text_is_not_stored_and_its_use_is_stamped_once_a_minute(ann, monkeypatch):
    key, text = service_keys.create("Platform", [Scope.TOKENS_MINT])
    first = clock.now()
    for seconds in (0, 59, 60):
        monkeypatch.setattr(clock, "now", lambda at=first + timedelta(seconds=seconds): at)
        with_key(text).post(TOKENS, BODY, format="json")
        stamped = ServiceKey.objects.get(pk=key.pk).last_used_at
        assert stamped is not None
        assert clock.as_utc(stamped) == (first if seconds < 60 else first + timedelta(seconds=60))

    assert text.split("_", 2)[2] not in str(ServiceKey.objects.values().get())


def test_an_old_tokens_key_is_taken_while_it_is_named_and_not_after(ann, settings):
    settings.FOLLOWER_TOKEN_SECRETS = ["old"]
    client = as_follower(ann)

    settings.FOLLOWER_TOKEN_SECRETS = ["new", "old"]
    assert client.get(INBOX).status_code == 200
    settings.FOLLOWER_TOKEN_SECRETS = ["new"]
    assert code_of(client.get(INBOX), 401) == "token_invalid"


def test_the_admin_makes_a_key_shows_it_once_and_revokes_it(admin_client):
    made = admin_client.post(
        "/admin/followers/servicekey/add/", {"name": "Platform", "scopes": [Scope.TOKENS_MINT.value]}, follow=True
    )
    key = ServiceKey.objects.get()
    text = made.content.decode().split("<code>")[1].split("</code>")[0]

    assert service_keys.find(text) == key
    assert text not in admin_client.get(f"/admin/followers/servicekey/{key.pk}/change/").content.decode()
    admin_client.post("/admin/followers/servicekey/", {"action": "revoke", "_selected_action": [str(key.pk)]})
    assert ServiceKey.objects.get().revoked_at is not None


def test_the_command_prints_a_key_that_works(db, capsys):
    call_command("create_api_key", "Demo", "--scopes", "tokens:mint", "updates:write")

    key = service_keys.find(capsys.readouterr().out.strip())
    assert key is not None
    assert key.scopes == ["tokens:mint", "updates:write"]
