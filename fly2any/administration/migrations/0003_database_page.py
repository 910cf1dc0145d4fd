"""Grants the permission to see the page of the database's health and backups."""

from django.db import migrations

from fly2any.administration.roles import ADMINISTRATORS, OPERATIONS, grant

VIEW = "view_database"


class Migration(migrations.Migration):
    dependencies = [("administration", "0002_roles")]

    operations = [
        migrations.AlterModelOptions(
            name="access",
            options={
                "default_permissions": ("view",),
                "permissions": [(VIEW, "Can see the database's health and backups")],
                "verbose_name": "access record",
            },
        ),
        grant("administration", {OPERATIONS: [VIEW], ADMINISTRATORS: [VIEW]}),
    ]
