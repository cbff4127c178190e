from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("notifications", "0017_traceparent")]
    operations = [
        migrations.AlterModelOptions(
            name="update",
            options={
                "verbose_name": "general update",
                "permissions": [("send_test_alert", "Can send a test alert to a follower")],
            },
        ),
    ]
