"""Parts of e-mail addresses, for the admin's search (deviation D5). Built without blocking writes."""

from django.contrib.postgres.indexes import GinIndex, OpClass
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations
from django.db.models.functions import Upper


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("accounts", "0007_trigrams"),
    ]

    operations = [
        AddIndexConcurrently("user", GinIndex(OpClass(Upper("email"), name="gin_trgm_ops"), name="users_email_trgm_idx")),
    ]
