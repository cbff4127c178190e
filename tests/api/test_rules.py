"""What every call has in common: problem details, limits, idempotency, the schema."""

from __future__ import annotations

import io
import threading

import pytest
from django.conf import settings as django_settings
from django.core.management import call_command

from followers import redis_client, upserts
from followers.api.codes import ErrorCode
from followers.choices import Scope
from notifications.api import views
from tests.api.conftest import as_follower, as_service, code_of
from tests.web.builders import stored_alert

INBOX = "/api/v1/inbox/"
TOKENS = "/api/v1/tokens/"
BODY = {"follower_id": "F-ann"}
DEVICES = "/api/v1/devices"
PHONE = {"channel": "fcm", "address": "a-token-of-at-least-sixteen"}


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"),
    [
        ("get", "/api/v1/nothing", {}, 404, "not_found"),
        ("delete", INBOX, {}, 405, "method_not_allowed"),
        ("post", INBOX + "read", {"data": "<a/>", "content_type": "application/xml"}, 415, "unsupported_media_type"),
        ("post", INBOX + "read", {"data": "{", "content_type": "application/json"}, 400, "malformed"),
        ("post", INBOX + "read", {"data": "\xff\xfe", "content_type": "application/json"}, 400, None),
        ("get", INBOX, {"HTTP_ACCEPT": "text/csv"}, 406, "not_acceptable"),
        ("patch", INBOX + "f" * 24 + "/read", {}, 404, "not_found"),
        ("patch", INBOX + "x" * 24 + "/read", {}, 404, "not_found"),
    ],
)
def test_every_error_is_a_problem_detail(ann, method, path, options, status, code):
    answer = getattr(as_follower(ann), method)(path, **options)

    assert code_of(answer, status) == code or code is None


def test_a_fault_of_ours_shows_nothing_of_the_inside(ann, monkeypatch):
    def fail(*args):
        raise RuntimeError("secret")

    monkeypatch.setattr(views.inbox, "page", fail)
    answer = as_follower(ann).get(INBOX)

    assert code_of(answer, 500) == "internal_error"
    assert b"secret" not in answer.content


def test_each_answer_says_how_many_calls_are_left_and_one_too_many_when_to_come_back(ann, bob, settings):
    settings.API_FOLLOWER_PER_MINUTE = 2
    client = as_follower(ann)
    first, second, third = (client.get(INBOX) for _ in range(3))

    assert (first["RateLimit-Limit"], first["RateLimit-Remaining"], second["RateLimit-Remaining"]) == ("2", "1", "0")
    assert code_of(third, 429) == "rate_limited"
    assert 1 <= int(third["Retry-After"]) <= 120
    assert as_follower(bob).get(INBOX).status_code == 200


def test_two_keys_do_not_share_their_calls(ann, settings):
    settings.API_SERVICE_PER_MINUTE = 1
    one, other = as_service(Scope.TOKENS_MINT), as_service(Scope.TOKENS_MINT)

    assert one.post(TOKENS, BODY, format="json").status_code == 201
    assert code_of(one.post(TOKENS, BODY, format="json"), 429) == "rate_limited"
    assert other.post(TOKENS, BODY, format="json").status_code == 201


def test_the_same_key_gives_the_same_answer_and_another_body_a_conflict(ann):
    client = as_follower(ann)
    first = client.post(DEVICES, PHONE, format="json", HTTP_IDEMPOTENCY_KEY="k-1")
    again = client.post(DEVICES, PHONE, format="json", HTTP_IDEMPOTENCY_KEY="k-1")
    other = client.post(DEVICES, {**PHONE, "app": "x"}, format="json", HTTP_IDEMPOTENCY_KEY="k-1")

    assert (first.status_code, again.status_code, first.json()) == (201, 201, again.json())
    assert again["Idempotency-Replayed"] == "true"
    assert code_of(other, 409) == "idempotency_conflict"


def kept_answers() -> list[bytes]:
    return list(redis_client.client().scan_iter(f"{django_settings.QUEUE_NAMESPACE}:idempotency:*", count=1_000))


def test_an_answer_is_kept_for_a_day(ann):
    before = set(kept_answers())
    as_follower(ann).post(DEVICES, PHONE, format="json", HTTP_IDEMPOTENCY_KEY="k-4")

    (name,) = set(kept_answers()) - before
    assert 86_000 < redis_client.client().ttl(name) <= 86_400


def test_the_same_key_of_somebody_else_is_another_one(ann, bob):
    ours, theirs = (
        as_follower(who).post(DEVICES, PHONE, format="json", HTTP_IDEMPOTENCY_KEY="k-5") for who in (ann, bob)
    )

    assert (ours.status_code, theirs.status_code) == (201, 200)  # The device is Bob's now.
    assert "Idempotency-Replayed" not in theirs


def test_a_fault_of_ours_is_not_kept(ann, monkeypatch):
    client, write = as_follower(ann), upserts.write_endpoints

    def fail(given):
        raise RuntimeError("secret")

    monkeypatch.setattr(upserts, "write_endpoints", fail)
    failed = client.post(DEVICES, PHONE, format="json", HTTP_IDEMPOTENCY_KEY="k-6")
    monkeypatch.setattr(upserts, "write_endpoints", write)
    again = client.post(DEVICES, PHONE, format="json", HTTP_IDEMPOTENCY_KEY="k-6")

    assert (failed.status_code, again.status_code) == (500, 201)


def test_tokens_and_tickets_are_never_kept(ann):
    before = kept_answers()
    app, service = as_follower(ann), as_service(Scope.TOKENS_MINT)
    tickets = [app.post("/api/v1/ws-ticket", HTTP_IDEMPOTENCY_KEY="k-7") for _ in range(2)]
    minted = [service.post(TOKENS, BODY, format="json", HTTP_IDEMPOTENCY_KEY="k-7") for _ in range(2)]

    for first, again in (tickets, minted):
        assert (first.status_code, again.status_code) == (201, 201)
        assert first.json() != again.json()
        assert "Idempotency-Replayed" not in again
    assert kept_answers() == before


def test_an_answer_without_a_body_is_kept_as_well(ann):
    client, address = as_follower(ann), f"{INBOX}{stored_alert(ann)['_id']}/ack"
    first, again = (
        client.post(address, {"event": "seen"}, format="json", HTTP_IDEMPOTENCY_KEY="k-3") for _ in range(2)
    )

    assert (first.status_code, again.status_code) == (204, 204)
    assert again["Idempotency-Replayed"] == "true"


def test_a_second_request_waits_for_the_first_and_only_one_runs(ann, monkeypatch):
    client, running, go_on = as_follower(ann), threading.Event(), threading.Event()
    runs: list[int] = []

    def change(*arguments, **which):
        running.set()
        assert go_on.wait(10)
        runs.append(1)
        return []

    monkeypatch.setattr(views.InboxReadView, "change", staticmethod(change))
    body = {"before": "2026-11-21T09:15:00Z"}
    post = lambda: client.post(INBOX + "read", body, format="json", HTTP_IDEMPOTENCY_KEY="k-2")  # noqa: E731
    first = threading.Thread(target=post)
    first.start()
    assert running.wait(10)
    second = as_same(client).post(INBOX + "read", body, format="json", HTTP_IDEMPOTENCY_KEY="k-2")
    go_on.set()
    first.join(10)

    assert code_of(second, 409) == "request_in_progress"
    assert second["Retry-After"] == "1"
    assert post().json() == {"changed": 0}
    assert len(runs) == 1


def as_same(client):
    from rest_framework.test import APIClient

    other = APIClient()
    other.credentials(**client._credentials)
    return other


def test_without_redis_the_inbox_is_read_all_the_same(ann, settings):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"

    assert as_follower(ann).get(INBOX).status_code == 200


def test_the_documentation_lists_each_error_as_it_is_and_no_other():
    documented = (django_settings.BASE_DIR / "docs" / "api.md").read_text(encoding="utf-8")
    errors = documented[documented.index("## Errors") : documented.index("## General updates")]

    rows = [line for line in errors.splitlines() if line.startswith("| `")]
    assert rows == [f"| `{error.code}` | {error.status} | {error.title} |" for error in ErrorCode]


@pytest.mark.parametrize("body", [b'{"channel": "fcm"}', b"{"])
@pytest.mark.parametrize("method", ["post", "delete"])
def test_a_body_is_no_larger_than_is_sensible_whatever_the_method(ann, settings, method, body):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = len(body) - 1

    answer = getattr(as_follower(ann), method)("/api/v1/devices", body, content_type="application/json")

    assert code_of(answer, 413) == "too_large"


def test_options_tell_the_methods_and_nothing_of_the_inside(ann):
    answer = as_follower(ann).options("/api/v1/devices")

    assert (answer.status_code, answer.content) == (204, b"")
    assert set(answer["Allow"].split(", ")) == {"GET", "POST", "DELETE", "HEAD", "OPTIONS"}


def test_the_schema_has_no_warnings_and_is_the_committed_one():
    out = io.StringIO()
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=out)

    committed = (django_settings.BASE_DIR / "docs" / "openapi.yaml").read_text(encoding="utf-8")
    assert out.getvalue().strip() == committed.strip()


def test_the_docs_ask_no_other_host(client, db):
    page = client.get("/api/docs/").content.decode()

    assert "/static/drf_spectacular_sidecar/" in page
    assert "cdn" not in page
