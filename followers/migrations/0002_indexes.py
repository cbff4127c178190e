"""Indexes that the hot paths and look-ups need beside Django's own."""

from typing import Any

from django.db import migrations

from followers.indexes import create_index, replace_unique


def create(apps: Any, schema_editor: Any) -> None:
    replace_unique(schema_editor, "followers_trader", "external_id")
    replace_unique(schema_editor, "followers_follower", "external_id")
    replace_unique(schema_editor, "followers_follow", "trader_id", "follower_id")
    replace_unique(schema_editor, "followers_endpoint", "channel", "address_hash")
    # A trader's audience in pages, by shard.
    create_index(schema_editor, "followers_follow", [("trader_id", 1), ("bucket", 1), ("_id", 1)])


class Migration(migrations.Migration):
    dependencies = [("followers", "0001_initial")]
    operations = [migrations.RunPython(create, migrations.RunPython.noop)]
