"""The alerts of a route, newest first, for the admin (deviation D5). Built without blocking writes."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations
from django.db.models.functions import Left

from fly2any.postgres.indexes import Index


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("travel", "0004_roles"),
    ]

    operations = [
        AddIndexConcurrently(
            "pricealert",
            Index(Left("origin", 8), Left("destination", 8), "created_at", name="price_alerts_route_createdAt_idx"),
        ),
    ]
