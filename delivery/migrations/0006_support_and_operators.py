"""The groups Support and Operator, and the permissions they are made of."""

from typing import Any

from django.db import migrations

from delivery.groups import grant

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
    grant(apps, schema_editor, {"Support": SUPPORT, "Operator": OPERATOR})


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
