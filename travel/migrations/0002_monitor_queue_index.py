"""The price monitor's queue (deviation D5). Built without blocking writes."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models

from fly2any.postgres.indexes import Index


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("travel", "0001_initial"),
    ]

    operations = [
        AddIndexConcurrently(
            "pricealert",
            Index(
                fields=["last_checked"],
                name="price_alerts_lastChecked_idx",
                condition=models.Q(active=True, triggered=False),
            ),
        ),
    ]
