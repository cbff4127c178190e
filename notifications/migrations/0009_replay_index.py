"""An index for what a replay reads: rejected events that were not replayed, of one code, in their order."""

from typing import Any

from django.db import migrations

from followers.indexes import create_index


def create(apps: Any, schema_editor: Any) -> None:
    create_index(schema_editor, "notifications_rejectedevent", [("replayed_at", 1), ("code", 1), ("_id", -1)])


class Migration(migrations.Migration):
    dependencies = [("notifications", "0008_event_alerts_written")]
    operations = [migrations.RunPython(create, migrations.RunPython.noop)]
