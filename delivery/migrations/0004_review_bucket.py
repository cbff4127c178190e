from typing import Any

from django.contrib.auth.management import create_permissions
from django.db import migrations

from followers.indexes import create_index

SUPPORT = "Support"
VIEWED = {
    "followers": ("trader", "follower", "follow", "endpoint"),
    "notifications": ("tradeevent", "rejectedevent", "notification", "inappentry"),
    "delivery": ("batch", "breaker", "breakerchange", "reviewitem"),
}
"""What support may look at. It changes nothing of it: what it decides about a review is a permission of its own."""


def create_log_index(apps: Any, schema_editor: Any) -> None:
    """What was decided about one item. A decision about ten thousand items writes as many lines into this history."""
    create_index(schema_editor, "django_admin_log", [("object_id", 1), ("action_time", -1)])
    create_index(schema_editor, "django_admin_log", [("user_id", 1), ("action_time", -1)])


def create_support_group(apps: Any, schema_editor: Any) -> None:
    """The group with its permissions; one that is there keeps what an administrator has added to it."""
    for label in VIEWED:
        config = apps.get_app_config(label)
        # Django makes permissions when all migrations are done, but the group needs them now. Made here, they are found
        # there. A migration's apps have no module of models, and without one nothing would be made.
        config.models_module = True
        create_permissions(config, apps=apps, verbosity=0, using=schema_editor.connection.alias)
        config.models_module = None
    permissions = apps.get_model("auth", "Permission").objects
    names = {app: [f"view_{model}" for model in models] for app, models in VIEWED.items()}
    names["delivery"] = [*names["delivery"], "work_on_reviews"]
    group, _ = apps.get_model("auth", "Group").objects.get_or_create(name=SUPPORT)
    content_types = apps.get_model("contenttypes", "ContentType").objects
    for app, codenames in names.items():
        # By id: on this database a filter across a relation is a join of both collections.
        kinds = list(content_types.filter(app_label=app).values_list("pk", flat=True))
        group.permissions.add(*permissions.filter(content_type_id__in=kinds, codename__in=codenames))


class Migration(migrations.Migration):

    dependencies = [
        ('admin', '0001_initial'),
        ('auth', '0001_initial'),
        ('contenttypes', '0001_initial'),
        ('delivery', '0003_breaker_breakerchange'),
        ('followers', '0003_admin_indexes'),
        ('notifications', '0007_review'),
    ]

    operations = [
        migrations.CreateModel(
            name='ReviewItem',
            fields=[
            ],
            options={
                'verbose_name': 'review item',
                'permissions': [('work_on_reviews', 'Can retry, assign and resolve review items')],
                'proxy': True,
                'default_permissions': ('view',),
                'indexes': [],
                'constraints': [],
            },
            bases=('notifications.notification',),
        ),
        migrations.RunPython(create_log_index, migrations.RunPython.noop),
        migrations.RunPython(create_support_group, migrations.RunPython.noop),
    ]
