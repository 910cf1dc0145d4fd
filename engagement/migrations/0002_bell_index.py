"""The newest notifications of a user (deviation D5). Built without blocking writes."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations

from fly2any.postgres.indexes import Index


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("engagement", "0001_initial"),
    ]

    operations = [
        AddIndexConcurrently("notification", Index(fields=["user", "-created_at"], name="notifications_userId_createdAt_idx")),
    ]
