"""Parts of names and addresses, without accents and in any order, for the admin's search (deviation D5). Built without blocking writes."""

from django.contrib.postgres.indexes import GinIndex, OpClass
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations

from fly2any.postgres.expressions import Folded, Words


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("accounts", "0011_roles"),
    ]

    operations = [
        AddIndexConcurrently(
            "user",
            GinIndex(
                OpClass(Folded(Words("name", "first_name", "last_name", "email")), name="gin_trgm_ops"),
                name="users_words_trgm_idx",
            ),
        ),
    ]
