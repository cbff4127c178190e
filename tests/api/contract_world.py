"""What the schema's examples speak of, stored, and its examples as requests: so each can be called as it stands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from bson import ObjectId
from django.test import Client

from delivery.updates import Draft, publish_update
from followers import service_keys
from followers.api.schema import ALERT_ID, ENDPOINT_ID
from followers.choices import Scope
from followers.models import Endpoint, Follower
from followers.mongo import collection
from notifications import tokens
from notifications.api.person import DEVICE
from notifications.models import InAppEntry, Notification
from tests.admin.builders import build_notification, build_world
from tests.web.builders import entry

Document = dict[str, Any]
SCHEMA_FILE = Path(__file__).resolve().parents[2] / "docs" / "openapi.yaml"
SCHEMA: Document = yaml.safe_load(SCHEMA_FILE.read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Callers:
    """The Authorization headers of those who call the API, by the name of their security scheme."""

    by_scheme: dict[str, str]

    def of(self, operation: Document) -> str:
        """Whom the schema lets in."""
        (requirement,) = operation["security"]
        (scheme,) = requirement
        return self.by_scheme[scheme]


@dataclass(frozen=True, slots=True)
class Example:
    """One request of the documentation."""

    operation: Document
    method: str
    path: str
    body: Any

    def __str__(self) -> str:
        return f"{self.operation['operationId']} {self.method} {self.path}"

    def call(self, authorization: str) -> Any:
        body = b"" if self.body is None else json.dumps(self.body).encode()
        headers = {"Authorization": authorization}
        return Client().generic(self.method, self.path, body, content_type="application/json", headers=headers)


def operations() -> Iterator[tuple[str, str, Document]]:
    """(path, method, operation) of all of the schema."""
    for path, methods in SCHEMA["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def examples() -> Iterator[Example]:
    """Every operation with the examples of its path, and each example of its body."""
    for template, method, operation in operations():
        path = template
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "path":
                (example,) = parameter["examples"].values()
                path = path.replace(f"{{{parameter['name']}}}", example["value"])
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        bodies = [example["value"] for example in content.get("examples", {}).values()] or [None]
        yield from (Example(operation, method.upper(), path, body) for body in bodies)


def stored_examples() -> tuple[Callers, Follower]:
    """The trader, the follower, their alert and device that the examples name; and who may call."""
    world = build_world()
    follower = world.follower
    device = Endpoint.objects.create(
        id=ObjectId(ENDPOINT_ID), follower=follower, channel="fcm", address=DEVICE["address"], platform="android"
    )
    for model in (Notification, InAppEntry):
        model.objects.all().delete()
    alert = ObjectId(ALERT_ID)
    build_notification(world.event, follower, device, id=alert)
    collection(InAppEntry).insert_one({**entry(follower), "_id": alert, "notification_id": alert})
    draft = Draft(
        external_id="2026-11-24-1", title="Markets close early", text="At 14:00.", trader="T-17", followers=()
    )
    publish_update(draft)
    return Callers({"ServiceKey": service(), "FollowerToken": as_bearer(follower)}), follower


def service() -> str:
    return f"Api-Key {service_keys.create('Platform', list(Scope))[1]}"


def as_bearer(follower: Follower) -> str:
    return f"Bearer {tokens.mint(follower)}"
