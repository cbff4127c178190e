"""The fills of one order: what a newer one replaces in the inbox."""

from typing import Any

from django.db import migrations

from followers.indexes import create_index


def create(apps: Any, schema_editor: Any) -> None:
    create_index(schema_editor, "notifications_tradeevent", [("trader_id", 1), ("instrument", 1), ("order_id", 1)])


class Migration(migrations.Migration):
    dependencies = [("notifications", "0003_admin_indexes")]
    operations = [
        migrations.RunPython(create, migrations.RunPython.noop),
    ]
