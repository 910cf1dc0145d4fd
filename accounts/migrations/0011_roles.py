"""Grants the staff groups their permissions in this app."""

from django.db import migrations

from fly2any.administration.permissions import PERMISSIONS
from fly2any.administration.roles import ADMINISTRATORS, OPERATIONS, SUPPORT, codenames, grant

MODELS = "user account session verificationtoken userpreferences"


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0010_export_permission"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [
        grant(
            "accounts",
            {
                SUPPORT: [*codenames("view", MODELS), "delete_account", "delete_session"],
                OPERATIONS: ["view_user", "view_userpreferences"],
                ADMINISTRATORS: codenames(" ".join(PERMISSIONS), MODELS),
            },
        ),
    ]
