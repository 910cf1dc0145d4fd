"""Who reads the record of access, and who makes groups."""

from django.db import migrations

from fly2any.administration.roles import ADMINISTRATORS, codenames, grant


class Migration(migrations.Migration):
    dependencies = [
        ("administration", "0001_initial"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [
        grant("administration", {ADMINISTRATORS: ["view_access"]}),
        grant("auth", {ADMINISTRATORS: codenames("add change delete view", "group")}),
    ]
