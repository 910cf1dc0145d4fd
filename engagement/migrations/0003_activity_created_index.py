"""The newest activities first, for the admin (deviation D5). Built without blocking writes."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations

from fly2any.postgres.indexes import Index


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("engagement", "0002_bell_index"),
    ]

    operations = [
        AddIndexConcurrently("useractivity", Index(fields=["created_at"], name="user_activities_createdAt_idx")),
    ]
