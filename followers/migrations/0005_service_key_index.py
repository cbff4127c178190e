"""The look-up of a key by its prefix, which every call of a service makes."""

from typing import Any

from django.db import migrations

from followers.indexes import replace_unique


def create(apps: Any, schema_editor: Any) -> None:
    replace_unique(schema_editor, "followers_servicekey", "prefix")


class Migration(migrations.Migration):
    dependencies = [("followers", "0004_service_key")]
    operations = [migrations.RunPython(create, migrations.RunPython.noop)]
