"""The sessions of a user, looked up when one is deleted (deviation D5). Built without blocking writes."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations

from fly2any.postgres.indexes import Index


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("accounts", "0003_account_user_index"),
    ]

    operations = [
        AddIndexConcurrently("session", Index(fields=["user"], name="sessions_userId_idx")),
    ]
