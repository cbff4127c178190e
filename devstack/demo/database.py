"""The demo's database: migrated, with a login and the followers asked for. Needs Django set up."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any, cast

from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from devstack.demo.followers import SET_VERSION
from devstack.vendors.credentials import write_private
from followers.models import Follower
from followers.mongo import collection

LOGIN_NAME = "demo"
PASSWORD_FILE = "demo-password"  # noqa: S105 - A file's name.
FOLLOWERS_NOTE = "followers.json"


def pending_migrations() -> int:
    """How many migrations `manage.py migrate` would apply."""
    executor = MigrationExecutor(connection)
    return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def has_followers(directory: Path, count: int) -> bool:
    """Whether exactly this set of followers is loaded: a note tells which set it was, the database that it is there."""
    return _noted_set(directory) == _set(count) and collection(Follower).estimated_document_count() == count


def has_other_followers(directory: Path, count: int) -> bool:
    """Whether another set is loaded, or half of one: then the demo begins with an empty database."""
    return collection(Follower).estimated_document_count() > 0 and not has_followers(directory, count)


def note_followers(directory: Path, count: int) -> None:
    """Remember which set was loaded."""
    (directory / FOLLOWERS_NOTE).write_text(json.dumps(_set(count)), encoding="ascii")


def empty_database() -> None:
    """Drop the demo's own database."""
    connection.ensure_connection()
    client = cast(Any, connection).connection
    client.drop_database(settings.DATABASES["default"]["NAME"])


def ensure_login(directory: Path) -> str:
    """The password of the superuser `demo`, made at first and kept in a file that only its owner reads."""
    path = directory / PASSWORD_FILE
    user = User.objects.filter(username=LOGIN_NAME).first()
    if user is not None and path.exists():
        return path.read_text(encoding="ascii").strip()
    password = secrets.token_urlsafe(12)
    write_private(path, f"{password}\n".encode("ascii"))
    if user is None:
        User.objects.create_superuser(LOGIN_NAME, "demo@example.com", password)
    else:
        user.set_password(password)
        user.save()
    return password


def _set(count: int) -> dict[str, int]:
    return {"version": SET_VERSION, "followers": count}


def _noted_set(directory: Path) -> object:
    try:
        return json.loads((directory / FOLLOWERS_NOTE).read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return None
