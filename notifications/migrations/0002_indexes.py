"""Indexes that the hot paths and look-ups need beside Django's own."""

from typing import Any

from django.db import migrations

from followers.indexes import create_index, replace_unique


def create(apps: Any, schema_editor: Any) -> None:
    replace_unique(schema_editor, "notifications_tradeevent", "external_id")
    replace_unique(schema_editor, "notifications_rejectedevent", "topic", "partition", "offset")
    # Entries and exits of one position, in their order.
    create_index(schema_editor, "notifications_tradeevent", [("trader_id", 1), ("instrument", 1), ("executed_at", 1)])
    create_index(schema_editor, "notifications_tradeevent", [("correlation_id", 1)])
    create_index(schema_editor, "notifications_tradeevent", [("received_at", -1)])
    create_index(schema_editor, "notifications_rejectedevent", [("received_at", -1)])
    # Alerts of one event, and their outcomes without a look at the documents.
    create_index(schema_editor, "notifications_notification", [("event_id", 1), ("state", 1)])
    create_index(schema_editor, "notifications_notification", [("follower_id", 1), ("created_at", -1)])
    # What dispatch_due wakes; finished rows have no wake_at and are not in it.
    create_index(
        schema_editor,
        "notifications_notification",
        [("priority", 1), ("wake_at", 1)],
        partialFilterExpression={"wake_at": {"$type": "date"}},
    )
    # An inbox, newest first; and the pruning of one trader's entries in it, which this index covers.
    create_index(schema_editor, "notifications_inappentry", [("follower_id", 1), ("created_at", -1), ("_id", -1)])
    create_index(
        schema_editor,
        "notifications_inappentry",
        [("trader_id", 1), ("follower_id", 1), ("executed_at", -1), ("event_key", -1), ("expires_at", 1), ("_id", 1)],
        name="prune",
    )
    create_index(schema_editor, "notifications_inappentry", [("expires_at", 1)], expireAfterSeconds=0)


class Migration(migrations.Migration):
    dependencies = [("notifications", "0001_initial")]
    operations = [migrations.RunPython(create, migrations.RunPython.noop)]
