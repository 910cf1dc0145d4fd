"""Grants the permissions to read the access records and to see the groups."""

from django.db import migrations

from fly2any.administration.roles import ADMINISTRATORS, grant


class Migration(migrations.Migration):
    dependencies = [
        ("administration", "0001_initial"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [
        grant("administration", {ADMINISTRATORS: ["view_access"]}),
        grant("auth", {ADMINISTRATORS: ["view_group"]}),
    ]
