"""Support and operators see general updates and send test alerts; operators run an update's failed fan-out again."""

from typing import Any

from django.db import migrations

from delivery.groups import grant

SUPPORT = {"notifications": ("view_update", "send_test_alert")}
OPERATOR = {"notifications": (*SUPPORT["notifications"], "change_update")}


def extend_groups(apps: Any, schema_editor: Any) -> None:
    grant(apps, schema_editor, {"Support": SUPPORT, "Operator": OPERATOR})


class Migration(migrations.Migration):
    dependencies = [
        ("admin", "0001_initial"),
        ("auth", "0001_initial"),
        ("contenttypes", "0001_initial"),
        ("delivery", "0008_breaker_used_at"),
        ("notifications", "0018_test_alert_permission"),
    ]
    operations = [migrations.RunPython(extend_groups, migrations.RunPython.noop)]
