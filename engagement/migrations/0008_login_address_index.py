"""The sign-ins from an IP address, for the admin (deviation D5). Built without blocking writes."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations
from django.db.models.functions import Left

from fly2any.postgres.indexes import Index


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("engagement", "0007_device_address_index"),
    ]

    operations = [
        AddIndexConcurrently(
            "loginhistory",
            Index(Left("ip_address", 64), "timestamp", name="login_history_ipAddress_timestamp_idx"),
        ),
    ]
