"""The groups Support and Operator, and the permissions they are made of.

Permissions are made by Django when all migrations are done, but a group needs them now: they are made here, and found
there. A group that exists keeps what an administrator has added to it.
"""

from typing import Any

from django.contrib.auth.management import create_permissions
from django.db import migrations

SUPPORT = {
    "followers": ("view_trader", "view_follower", "view_follow", "view_endpoint", "switch_endpoint"),
    "notifications": ("view_tradeevent", "view_rejectedevent", "view_notification", "view_inappentry"),
    "delivery": (
        "view_batch", "view_breaker", "view_breakerchange", "view_reviewitem", "view_proofrun", "work_on_reviews",
        "view_operations",
    ),
}  # fmt: skip
"""Looks at everything, decides about reviews, switches endpoints off and on."""

OPERATOR = {
    "followers": (*SUPPORT["followers"], "view_servicekey"),
    "notifications": (*SUPPORT["notifications"], "change_tradeevent", "change_rejectedevent"),
    "delivery": (*SUPPORT["delivery"], "change_breaker", "add_proofrun"),
}
"""Forces breakers, runs a failed fan-out again, replays rejected messages and proves, besides."""


def make_groups(apps: Any, schema_editor: Any) -> None:
    for label in SUPPORT:
        config = apps.get_app_config(label)
        # A migration's apps have no module of models, and without one no permission would be made.
        module = getattr(config, "models_module", None)
        config.models_module = True
        create_permissions(config, apps=apps, verbosity=0, using=schema_editor.connection.alias)
        config.models_module = module
    for name, permissions in (("Support", SUPPORT), ("Operator", OPERATOR)):
        group, _ = apps.get_model("auth", "Group").objects.get_or_create(name=name)
        for label, codenames in permissions.items():
            # By id: on this database a filter across a relation is a join of both collections.
            kinds = apps.get_model("contenttypes", "ContentType").objects.filter(app_label=label)
            found = list(
                apps.get_model("auth", "Permission").objects.filter(
                    content_type_id__in=list(kinds.values_list("pk", flat=True)), codename__in=codenames
                )
            )
            if missing := set(codenames) - {permission.codename for permission in found}:
                raise LookupError(f"The group {name} needs permissions that were not made: {sorted(missing)}.")
            group.permissions.add(*found)


class Migration(migrations.Migration):
    dependencies = [
        ("admin", "0001_initial"),
        ("auth", "0001_initial"),
        ("contenttypes", "0001_initial"),
        ("delivery", "0005_proofrun"),
        ("followers", "0007_switch_endpoint"),
        ("notifications", "0011_event_alerts_pruned"),
    ]
    operations = [
        migrations.AlterModelOptions(
            name="breaker",
            options={"permissions": [("view_operations", "Can see the operations page")]},
        ),
        migrations.RunPython(make_groups, migrations.RunPython.noop),
    ]
