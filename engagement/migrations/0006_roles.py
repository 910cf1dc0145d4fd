"""Grants the staff groups their permissions in this app."""

from django.db import migrations

from fly2any.administration.permissions import PERMISSIONS
from fly2any.administration.roles import ADMINISTRATORS, OPERATIONS, SUPPORT, codenames, grant

MODELS = "wishlistitem notification pushsubscription useractivity usersession loginhistory"


class Migration(migrations.Migration):
    dependencies = [
        ("engagement", "0005_export_permission"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [
        grant(
            "engagement",
            {
                SUPPORT: [*codenames("view", MODELS), "change_notification", "delete_usersession"],
                OPERATIONS: [*codenames("view", "notification useractivity usersession loginhistory"), "export_useractivity"],
                ADMINISTRATORS: codenames(" ".join(PERMISSIONS), MODELS),
            },
        ),
    ]
