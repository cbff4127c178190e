from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('delivery', '0007_last_sweep'),
    ]

    operations = [
        migrations.AddField(
            model_name='breaker',
            name='used_at',
            field=models.DateTimeField(blank=True, help_text='When a worker last began to send with this account.', null=True),
        ),
    ]
