"""The access records get the certificates of erasures."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("administration", "0005_notes")]

    operations = [
        migrations.AddField(
            model_name="access",
            name="certificate",
            field=models.JSONField(blank=True, null=True, verbose_name="certificate of erasure"),
        ),
        migrations.AlterField(
            model_name="access",
            name="action",
            field=models.TextField(choices=[("opened", "Opened"), ("exported", "Exported"), ("erased", "Erased")]),
        ),
    ]
