"""Erasures, with the look-ups of a repeated request and of whoever writes at the same moment."""

from typing import Any

import django_mongodb_backend.fields
from django.db import migrations, models

from followers.indexes import create_index


def create(apps: Any, schema_editor: Any) -> None:
    create_index(schema_editor, "followers_erasure", [("external_id_hash", 1), ("erased_at", -1)])
    create_index(schema_editor, "followers_erasure", [("erased_at", 1)])


class Migration(migrations.Migration):
    dependencies = [("followers", "0005_service_key_index")]
    operations = [
        migrations.CreateModel(
            name="Erasure",
            fields=[
                ("id", django_mongodb_backend.fields.ObjectIdAutoField(primary_key=True, serialize=False)),
                ("external_id_hash", models.CharField(editable=False, max_length=64)),
                ("erased_at", models.DateTimeField(help_text="When it was last asked for.")),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
                ("keeps_notifications", models.BooleanField(help_text="Alerts are kept, under a name that says nothing.")),
                ("counts", models.JSONField(default=dict)),
            ],
        ),
        migrations.RunPython(create, migrations.RunPython.noop),
    ]
