"""Grants the permissions to export and to erase a person."""

from django.db import migrations

from fly2any.administration.roles import ADMINISTRATORS, grant


class Migration(migrations.Migration):
    dependencies = [("administration", "0003_database_page")]

    operations = [
        migrations.AlterModelOptions(
            name="access",
            options={
                "default_permissions": ("view",),
                "permissions": [
                    ("view_database", "Can see the database's health and backups"),
                    ("export_person", "Can export everything about a person"),
                    ("erase_person", "Can erase a person"),
                ],
                "verbose_name": "access record",
            },
        ),
        grant("administration", {ADMINISTRATORS: ["export_person", "erase_person"]}),
    ]
