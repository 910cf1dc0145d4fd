"""The staff among the users, for the admin (deviation D5). Built without blocking writes."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models

from fly2any.postgres.indexes import Index


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("accounts", "0005_user_created_index"),
    ]

    operations = [
        AddIndexConcurrently("user", Index(fields=["created_at"], name="users_staff_idx", condition=models.Q(is_staff=True))),
    ]
