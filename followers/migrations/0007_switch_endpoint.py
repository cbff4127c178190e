from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("followers", "0006_erasure")]
    operations = [
        migrations.AlterModelOptions(
            name="endpoint",
            options={"permissions": [("switch_endpoint", "Can deactivate and reactivate endpoints, with a reason")]},
        ),
    ]
