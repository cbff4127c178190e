"""Indexes of the claim protocol."""

from typing import Any

from django.conf import settings
from django.db import migrations

from followers.indexes import create_index


def create(apps: Any, schema_editor: Any) -> None:
    # What dispatch_due looks at; finished batches have no next_look_at and are not in it.
    create_index(
        schema_editor,
        "delivery_batch",
        [("priority", 1), ("next_look_at", 1)],
        partialFilterExpression={"next_look_at": {"$type": "date"}},
    )
    create_index(
        schema_editor, "delivery_batch", [("finished_at", 1)], expireAfterSeconds=settings.BATCH_RETENTION_SECONDS
    )


class Migration(migrations.Migration):
    dependencies = [("delivery", "0001_initial")]
    operations = [migrations.RunPython(create, migrations.RunPython.noop)]
