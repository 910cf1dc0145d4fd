"""The newest messages first, for the admin (deviation D5). Built without blocking writes."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations

from fly2any.postgres.indexes import Index


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("ai_consultant", "0001_initial"),
    ]

    operations = [
        AddIndexConcurrently("message", Index(fields=["created_at"], name="ai_messages_createdAt_idx")),
    ]
