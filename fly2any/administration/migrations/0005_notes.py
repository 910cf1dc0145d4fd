"""Staff notes about a person, and the permissions to read and to add them."""

from django.conf import settings
from django.db import migrations, models

import fly2any.postgres.deletion
import fly2any.postgres.expressions
import fly2any.postgres.indexes
from fly2any.administration.roles import ADMINISTRATORS, SUPPORT, grant


class Migration(migrations.Migration):
    dependencies = [
        ("administration", "0004_person"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Note",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "at",
                    models.DateTimeField(
                        db_default=fly2any.postgres.expressions.CurrentTimestamp(), editable=False, verbose_name="time"
                    ),
                ),
                ("staff_id", models.TextField(verbose_name="staff")),
                ("text", models.TextField()),
                (
                    "person",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=fly2any.postgres.deletion.DB_CASCADE,
                        related_name="staff_notes",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "verbose_name": "staff note",
                "db_table": "fly2any_notes",
                "default_permissions": ("view", "add"),
                "indexes": [
                    fly2any.postgres.indexes.Index(fields=["person", "at"], name="fly2any_notes_person_at_idx"),
                    fly2any.postgres.indexes.Index(fields=["at"], name="fly2any_notes_at_idx"),
                ],
            },
        ),
        grant("administration", {SUPPORT: ["view_note", "add_note"], ADMINISTRATORS: ["view_note", "add_note"]}),
    ]
