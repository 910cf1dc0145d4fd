"""Names have an index with the addresses (0012); this one served the search before. Dropped without blocking writes."""

from django.contrib.postgres.operations import RemoveIndexConcurrently
from django.db import migrations


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("accounts", "0012_user_words"),
    ]

    operations = [
        RemoveIndexConcurrently("user", "users_name_trgm_idx"),
    ]
