"""Indexes that the lists of the admin follow.

Each index on notifications_notification slows the fan-out, so its one here is partial: an alert enters it only when
it ends in a way that somebody may have to look at.
"""

from typing import Any

from django.db import migrations

from followers.indexes import create_index

RARE_STATES = ["partial", "failed", "expired", "cancelled"]


def create(apps: Any, schema_editor: Any) -> None:
    # The same order for the list of all events, and of those in one state. It replaces the one on received_at alone.
    create_index(schema_editor, "notifications_tradeevent", [("received_at", -1), ("_id", -1)])
    create_index(schema_editor, "notifications_tradeevent", [("state", 1), ("received_at", -1), ("_id", -1)])
    create_index(schema_editor, "notifications_rejectedevent", [("code", 1), ("_id", -1)])
    create_index(schema_editor, "notifications_rejectedevent", [("replayed_at", 1), ("_id", -1)])
    create_index(
        schema_editor,
        "notifications_notification",
        [("state", 1), ("_id", -1)],
        partialFilterExpression={"state": {"$in": RARE_STATES}},
    )
    events = schema_editor.connection.get_collection("notifications_tradeevent")
    if "received_at_-1" in events.index_information():
        events.drop_index("received_at_-1")


class Migration(migrations.Migration):
    dependencies = [("notifications", "0002_indexes")]
    operations = [migrations.RunPython(create, migrations.RunPython.noop)]
