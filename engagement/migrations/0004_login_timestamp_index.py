"""The newest sign-ins first, for the admin (deviation D5). Built without blocking writes."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations

from fly2any.postgres.indexes import Index


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("engagement", "0003_activity_created_index"),
    ]

    operations = [
        AddIndexConcurrently("loginhistory", Index(fields=["timestamp"], name="login_history_timestamp_idx")),
    ]
