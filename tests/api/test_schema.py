"""The schema is worth reading: words and examples on every call, and the examples are true."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings
from jsonschema import Draft202012Validator

from followers.api.codes import ErrorCode
from followers.models import Follower
from followers.mongo import database
from tests.api.contract_world import (
    SCHEMA,
    Document,
    Example,
    as_bearer,
    examples,
    operations,
    stored_examples,
)

OPERATIONS = {f"{method.upper()} {path}": operation for path, method, operation in operations()}
FOLLOWERS_OWN = [example for example in examples() if example.operation["security"] == [{"FollowerToken": []}]]
TAKES_OVER = "devices_register"
"""A push token belongs to whoever registered it last: the app that knows it runs on that device."""


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_call_has_words_and_examples_for_app_developers(name: str) -> None:
    operation = OPERATIONS[name]

    assert operation["summary"]
    assert len(operation["description"]) > len(operation["summary"])
    assert operation["operationId"]
    assert operation["tags"]
    for where, schema, shown in _shown(operation):
        assert shown, f"{where} has no example"
        for example in shown.values():
            Draft202012Validator({**schema, "components": SCHEMA["components"]}).validate(example["value"])


def _shown(operation: Document) -> list[tuple[str, Document, Document]]:
    """(where, schema, examples) of all that a call takes and gives, its errors included."""
    found = [(p["name"], p["schema"], p.get("examples", {})) for p in operation.get("parameters", ())]
    bodies = {"request": operation["requestBody"]} if "requestBody" in operation else {}
    for status, response in operation["responses"].items():
        if "$ref" in response:
            bodies[status] = SCHEMA["components"]["responses"][response["$ref"].rpartition("/")[2]]
        else:
            bodies[status] = response
    for where, body in bodies.items():
        for media in body.get("content", {}).values():
            found.append((where, media["schema"], media.get("examples", {})))  # noqa: PERF401
    return found


def test_each_error_code_is_an_example_of_its_status() -> None:
    shown = {
        example["value"]["code"]: example["value"]["status"]
        for response in SCHEMA["components"]["responses"].values()
        for example in response["content"]["application/problem+json"]["examples"].values()
    }

    everywhere = {error.code: error.status for error in ErrorCode if error is not ErrorCode.METHOD_NOT_ALLOWED}
    assert shown == everywhere


def test_a_page_of_another_site_may_read_each_header_that_the_schema_promises() -> None:
    assert set(SCHEMA["components"]["headers"]) <= set(settings.CORS_EXPOSE_HEADERS)


@pytest.mark.parametrize("example", list(examples()), ids=str)
def test_each_example_can_be_called_as_it_stands(transactional_db: None, example: Example) -> None:
    callers, _ = stored_examples()

    answer = example.call(callers.of(example.operation))

    assert answer.status_code in {200, 201, 204}, answer.content


@pytest.mark.parametrize("example", FOLLOWERS_OWN, ids=str)
def test_no_follower_reads_or_changes_what_is_anothers(transactional_db: None, example: Example) -> None:
    _, owner = stored_examples()
    stranger = Follower.objects.create(external_id="F-stranger", name="Stranger")
    before = _belongings(owner)

    answer = example.call(as_bearer(stranger))

    if "{" in _template(example):
        assert answer.status_code == 404
    if example.operation["operationId"] != TAKES_OVER:
        assert _belongings(owner) == before
        assert not any(secret in answer.content.decode() for secret in _secrets(before))


def _template(example: Example) -> str:
    return next(path for path, _, operation in operations() if operation is example.operation)


def _belongings(owner: Follower) -> dict[str, list[Any]]:
    """Every document that names the follower, by collection."""
    found = {}
    for name in database().list_collection_names():
        if not name.startswith("system."):
            query = {"$or": [{"_id": owner.pk}, {"follower_id": owner.pk}]}
            found[name] = list(database()[name].find(query).sort("_id", 1))
    return {name: rows for name, rows in found.items() if rows}


def _secrets(belongings: dict[str, list[Any]]) -> set[str]:
    """The ids of all that is the owner's; whoever sees one of them sees something of theirs."""
    return {str(row["_id"]) for rows in belongings.values() for row in rows}
