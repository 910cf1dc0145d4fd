"""Grants the staff groups their permissions in this app."""

from django.db import migrations

from fly2any.administration.permissions import PERMISSIONS
from fly2any.administration.roles import ADMINISTRATORS, OPERATIONS, SUPPORT, codenames, grant

MODELS = "savedsearch pricealert recentsearch pricehistory pricemonitorlog"


class Migration(migrations.Migration):
    dependencies = [
        ("travel", "0003_export_permission"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [
        grant(
            "travel",
            {
                SUPPORT: [*codenames("view", MODELS), "change_pricealert"],
                OPERATIONS: [*codenames("view", MODELS), *codenames("export", "pricehistory pricemonitorlog")],
                ADMINISTRATORS: codenames(" ".join(PERMISSIONS), MODELS),
            },
        ),
    ]
