"""The newest users first, for the admin (deviation D5). Built without blocking writes."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations

from fly2any.postgres.indexes import Index


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("accounts", "0004_session_user_index"),
    ]

    operations = [
        AddIndexConcurrently("user", Index(fields=["created_at"], name="users_createdAt_idx")),
    ]
