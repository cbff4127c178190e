"""The API keeps to its own schema, whatever it is sent: schemathesis over every operation, by real HTTP.

What it makes up is the same in every run. Its checks are all on, but for the few of which schemathesis.toml says why.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from django.conf import settings as django_settings
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from jsonschema import Draft202012Validator
from schemathesis.config import SchemathesisConfig

from devstack.stack import Stack
from tests.api.contract_world import SCHEMA, SCHEMA_FILE, Callers, Document, stored_examples
from tests.web.server import Server, running_server

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

EXCEPTIONS: Document = tomllib.loads((django_settings.BASE_DIR / "schemathesis.toml").read_text(encoding="utf-8"))
"""Where the schema cannot say all; the file has the reasons, and an outside run takes it too."""
BULK = EXCEPTIONS["operations"][0]["include-operation-id"]


def _api(examples: int, phases: Document) -> Any:
    config = {
        "seed": 20261124,
        # The credentials are the tests' own; the check `ignored_auth` tries others.
        "generation": {
            "max-examples": examples,
            "deterministic": True,
            "no-shrink": True,
            "with-security-parameters": False,
        },
        "phases": phases,
        **EXCEPTIONS,
    }
    return schemathesis.openapi.from_path(SCHEMA_FILE, config=SchemathesisConfig.from_dict(config))


EVERYTHING = _api(8, {})
A_LITTLE = _api(2, {"coverage": {"enabled": False}})
CALM = hypothesis_settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
    deadline=None,
)


@pytest.fixture(scope="module")
def shared_server(stack: Stack) -> Iterator[Server]:
    with running_server() as started:
        yield started


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as kept_alive:
        yield kept_alive


@pytest.fixture
def address(shared_server: Server, transactional_db: None, settings: Any) -> str:
    settings.API_SERVICE_PER_MINUTE = settings.API_FOLLOWER_PER_MINUTE = 10**9
    return f"http://{shared_server.address}"


@pytest.fixture
def callers(transactional_db: None) -> Callers:
    return stored_examples()[0]


@EVERYTHING.parametrize()
@CALM
def test_whoever_may_call_is_answered_as_the_schema_says(case, address, session, callers):
    headers = {"Authorization": callers.of(case.operation.definition.raw)}

    answer = case.call_and_validate(base_url=address, session=session, headers=headers)

    items_are_refused(case, answer)


def items_are_refused(case: Any, answer: Any) -> None:
    """In place of `negative_data_rejection`: of the items that the schema refuses, none is stored."""
    if case.operation.definition.raw["operationId"] in BULK and answer.status_code == 200:
        schema = case.operation.definition.raw["requestBody"]["content"]["application/json"]["schema"]
        items = SCHEMA["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["properties"]["items"]["items"]
        judge = Draft202012Validator({**items, "components": SCHEMA["components"]})
        for item, result in zip(case.body["items"], answer.json()["results"], strict=True):
            assert result["status"] == "error" or judge.is_valid(item), (item, result)


@A_LITTLE.parametrize()
@CALM
@pytest.mark.parametrize("who", ["nobody", "the other kind"])
def test_nobody_else_is_let_in(case, who, address, session, callers):
    mine = callers.of(case.operation.definition.raw)
    headers = {} if who == "nobody" else {"Authorization": next(h for h in callers.by_scheme.values() if h != mine)}

    answer = case.call_and_validate(base_url=address, session=session, headers=headers)

    assert answer.status_code in {401, 404, 406}  # A path that is none, or an Accept that nobody can meet, is first.


def test_what_is_made_and_removed_in_any_order_keeps_to_the_schema(
    address: str, session: requests.Session, callers: Callers
) -> None:
    class History(EVERYTHING.as_state_machine()):  # type: ignore[misc]
        def get_call_kwargs(self, case: Any) -> Document:
            headers = {"Authorization": callers.of(case.operation.definition.raw)}
            return {"base_url": address, "session": session, "headers": headers}

    History.run(settings=hypothesis_settings(CALM, max_examples=12, stateful_step_count=6, derandomize=True))
