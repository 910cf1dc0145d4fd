"""The OAuth accounts of a user, looked up when one is deleted (deviation D5). Built without blocking writes."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations

from fly2any.postgres.indexes import Index


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("accounts", "0002_staff"),
    ]

    operations = [
        AddIndexConcurrently("account", Index(fields=["user"], name="accounts_userId_idx")),
    ]
