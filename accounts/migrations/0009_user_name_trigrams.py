"""Parts of names, for the admin's search (deviation D5). Built without blocking writes."""

from django.contrib.postgres.indexes import GinIndex, OpClass
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations
from django.db.models.functions import Upper


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("accounts", "0008_user_email_trigrams"),
    ]

    operations = [
        AddIndexConcurrently("user", GinIndex(OpClass(Upper("name"), name="gin_trgm_ops"), name="users_name_trgm_idx")),
    ]
