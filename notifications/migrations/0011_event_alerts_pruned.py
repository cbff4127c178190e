from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("notifications", "0010_sizing_reasons")]

    operations = [
        migrations.AddField(
            model_name="tradeevent",
            name="alerts_pruned_at",
            field=models.DateTimeField(
                blank=True,
                help_text="Since then its finished alerts may be gone, as the retention settings say.",
                null=True,
            ),
        ),
    ]
