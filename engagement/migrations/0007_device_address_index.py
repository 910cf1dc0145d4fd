"""The devices at an IP address, for the admin (deviation D5). Built without blocking writes."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations
from django.db.models.functions import Left

from fly2any.postgres.indexes import Index


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("engagement", "0006_roles"),
    ]

    operations = [
        AddIndexConcurrently(
            "usersession",
            Index(Left("ip_address", 64), "last_active", name="user_sessions_ipAddress_lastActive_idx"),
        ),
    ]
