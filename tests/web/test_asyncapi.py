"""docs/asyncapi.yaml and docs/api.md say what the code says."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from bson import ObjectId
from jsonschema import Draft7Validator, Draft202012Validator
from jsonschema.exceptions import ValidationError

from followers import clock
from notifications import choices, frames, tokens
from notifications.frames import ClientFrame, CloseCode, ErrorCode, RemovalReason, ServerFrame

DOCS = Path(__file__).resolve().parents[2] / "docs"
SPEC: dict[str, Any] = yaml.safe_load((DOCS / "asyncapi.yaml").read_text())
API_PAGE = (DOCS / "api.md").read_text()
PUBLISHED = Path(__file__).with_name("asyncapi-3.0.0.schema.json.gz")
"""From github.com/asyncapi/spec-json-schemas, schemas/3.0.0.json (Apache 2.0)."""
MESSAGES = SPEC["components"]["messages"]


def validate(message: str, instance: Any) -> None:
    schema = {**MESSAGES[message]["payload"], "components": SPEC["components"]}
    Draft202012Validator(schema).validate(instance)


def names(operation: str) -> list[str]:
    return [ref["$ref"].rsplit("/", 1)[1] for ref in SPEC["operations"][operation]["messages"]]


def test_it_is_a_valid_asyncapi_document():
    schema = json.loads(gzip.decompress(PUBLISHED.read_bytes()))

    assert [error.message for error in Draft7Validator(schema).iter_errors(SPEC)] == []
    assert list(Draft7Validator(schema).iter_errors({**SPEC, "operations": {"x": {"action": "shout"}}}))


def test_the_messages_are_those_of_the_code():
    assert names("tell") == [frame.value for frame in ServerFrame]
    assert names("hear") == [frame.value for frame in ClientFrame]
    assert list(SPEC["channels"]["inbox"]["messages"]) == [*ServerFrame, *ClientFrame]
    assert list(MESSAGES) == [*ServerFrame, *ClientFrame, "trade.executed"]


def test_every_reference_leads_somewhere():
    found = re.findall(r"\$ref: '#/([^']+)'", (DOCS / "asyncapi.yaml").read_text())
    for reference in found:
        target: Any = SPEC
        for step in reference.split("/"):
            target = target[step]
    assert len(found) > 40


@pytest.mark.parametrize(
    "frame",
    [
        frames.created(
            {"_id": ObjectId(), "created_at": clock.now(), "expires_at": clock.now(), "payload": {"title": "Buy"}}
        ),
        frames.updated(ObjectId(), clock.now()),
        frames.updated(ObjectId(), None),
        *(frames.removed(ObjectId(), reason) for reason in RemovalReason),
        frames.unread_count(0),
        frames.pong(clock.now()),
        *(frames.error(code, "") for code in ErrorCode),
    ],
    ids=lambda frame: frame["type"],
)
def test_what_the_server_says_fits_its_description(frame: dict[str, Any]):
    validate(frame["type"], frame)
    with pytest.raises(ValidationError):
        validate(frame["type"], {"type": frame["type"] + "?"})


@pytest.mark.parametrize("type_", list(ClientFrame))
def test_what_is_described_is_understood(type_: str):
    frame = {
        "type": type_, "id": str(ObjectId()), "since": frames.rfc3339(clock.now()), "known": [str(ObjectId())],
        "event": "seen", "channel": "fcm", "device_id": str(ObjectId()),
    }  # fmt: skip
    needed = {name: frame[name] for name in _payload(type_)["properties"]}

    validate(type_, needed)
    frames.parse(frames.encode(needed))


def _payload(message: str) -> dict[str, Any]:
    payload = MESSAGES[message]["payload"]
    if "$ref" in payload:
        return SPEC["components"]["schemas"][payload["$ref"].rsplit("/", 1)[1]]
    return payload


def test_the_words_of_an_acknowledgement_are_those_of_the_code():
    properties = _payload("ack")["properties"]
    assert properties["event"]["enum"] == choices.AckEvent.values
    assert properties["channel"]["enum"] == list(frames.ACK_CHANNELS)
    assert frames.parse(frames.encode({"type": "ack", "id": "6" * 24})) == frames.Ack(
        ObjectId("6" * 24), properties["event"]["default"], properties["channel"]["default"]
    )
    for event in choices.AckEvent:
        assert f"`{event}`" in API_PAGE


def test_the_words_of_a_trade_are_those_of_the_code():
    details = SPEC["components"]["schemas"]["TradeDetails"]["properties"]
    assert details["side"]["enum"] == choices.Side.values
    assert details["action"]["enum"] == choices.Action.values
    assert details["productType"]["enum"] == choices.ProductType.values
    assert _payload("trade.executed")["properties"]["priority"]["enum"] == choices.Priority.values


def test_the_page_for_people_has_every_frame_code_and_reason():
    for code in CloseCode:
        assert f"| {code.value} | " in API_PAGE
        assert code.label.split(": ")[1] in API_PAGE
    for word in [*ServerFrame, *ClientFrame]:
        assert f'{{"type": "{word}"' in API_PAGE
    for word in [*ErrorCode, *RemovalReason, *tokens.TokenErrorCode]:
        assert f"`{word}`" in API_PAGE
