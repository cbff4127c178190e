"""Indexes that the lists of the admin follow."""

from typing import Any

from django.db import migrations

from followers.indexes import create_index


def create(apps: Any, schema_editor: Any) -> None:
    # The endpoints of one channel, newest first.
    create_index(schema_editor, "followers_endpoint", [("channel", 1), ("_id", -1)])
    # Those that were deactivated; they are few, and the others cost this index nothing.
    create_index(
        schema_editor,
        "followers_endpoint",
        [("active", 1), ("channel", 1), ("_id", -1)],
        partialFilterExpression={"active": False},
    )


class Migration(migrations.Migration):
    dependencies = [("followers", "0002_indexes")]
    operations = [migrations.RunPython(create, migrations.RunPython.noop)]
