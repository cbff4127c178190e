"""Giving permissions to the admin's groups: for migrations, which need both before Django has made the permissions.

Django makes permissions when all migrations are done, but a group needs them now: they are made here, and found there.
A group that exists keeps what an administrator has added to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.contrib.auth.management import create_permissions

Permissions = Mapping[str, Iterable[str]]
"""App label → codenames."""


def grant(apps: Any, schema_editor: Any, groups: Mapping[str, Permissions]) -> None:
    """Makes the groups that are not there, and adds these permissions to each.

    Raises LookupError if a model of that app has no such permission.
    """
    for label in {label for permissions in groups.values() for label in permissions}:
        _make_permissions(apps, schema_editor, label)
    for name, permissions in groups.items():
        group, _ = apps.get_model("auth", "Group").objects.get_or_create(name=name)
        for label, codenames in permissions.items():
            # By id: on this database a filter across a relation is a join of both collections.
            kinds = apps.get_model("contenttypes", "ContentType").objects.filter(app_label=label)
            found = list(
                apps.get_model("auth", "Permission").objects.filter(
                    content_type_id__in=list(kinds.values_list("pk", flat=True)), codename__in=list(codenames)
                )
            )
            if missing := set(codenames) - {permission.codename for permission in found}:
                raise LookupError(f"The group {name} needs permissions that were not made: {sorted(missing)}.")
            group.permissions.add(*found)


def _make_permissions(apps: Any, schema_editor: Any, label: str) -> None:
    config = apps.get_app_config(label)
    # A migration's apps have no module of models, and without one no permission would be made.
    module = getattr(config, "models_module", None)
    config.models_module = True
    create_permissions(config, apps=apps, verbosity=0, using=schema_editor.connection.alias)
    config.models_module = module
