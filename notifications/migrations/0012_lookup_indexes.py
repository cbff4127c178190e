"""The API's lists of alerts: of a follower or a trader the newest first, of an event in the order of their ids.

Two of them replace a shorter one, which they begin with. Of a trader's alerts only those that ended badly are sought by
their state.
"""

from typing import Any

from django.db import migrations

from followers.indexes import create_index

TABLE = "notifications_notification"
RARE_STATES = ["partial", "failed", "expired", "cancelled"]
NEWEST = [("created_at", -1), ("_id", -1)]


def create(apps: Any, schema_editor: Any) -> None:
    create_index(schema_editor, TABLE, [("follower_id", 1), *NEWEST])
    create_index(schema_editor, TABLE, [("trader_id", 1), *NEWEST])
    create_index(schema_editor, TABLE, [("event_id", 1), ("state", 1), ("_id", -1)])
    rare = {"state": {"$in": RARE_STATES}}
    create_index(schema_editor, TABLE, [("trader_id", 1), ("state", 1), *NEWEST], partialFilterExpression=rare)
    alerts = schema_editor.connection.get_collection(TABLE)
    for replaced in {"follower_id_1_created_at_-1", "event_id_1_state_1"} & alerts.index_information().keys():
        alerts.drop_index(replaced)


class Migration(migrations.Migration):
    dependencies = [("notifications", "0011_event_alerts_pruned")]
    operations = [migrations.RunPython(create, migrations.RunPython.noop)]
