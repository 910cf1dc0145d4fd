from django.conf import settings
from django.db import migrations, models

import fly2any.postgres.deletion
import fly2any.postgres.expressions
import fly2any.postgres.fields
import fly2any.postgres.indexes


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="PriceHistory",
            fields=[
                ("id", fly2any.postgres.fields.TextIdField(serialize=False)),
                ("origin", models.TextField()),
                ("destination", models.TextField()),
                ("depart_date", models.TextField(db_column="departDate", verbose_name="departure date")),
                ("return_date", models.TextField(blank=True, db_column="returnDate", null=True)),
                ("price", models.FloatField()),
                ("currency", models.TextField(db_default="USD", default="USD")),
                ("provider", models.TextField(choices=[("duffel", "Duffel"), ("amadeus", "Amadeus"), ("mock", "Mock")])),
                ("timestamp", models.DateTimeField(db_default=fly2any.postgres.expressions.CurrentTimestamp())),
            ],
            options={
                "verbose_name": "price",
                "verbose_name_plural": "price history",
                "db_table": "price_history",
                "indexes": [
                    fly2any.postgres.indexes.Index(
                        fields=["origin", "destination", "depart_date"], name="price_history_origin_destination_departDate_idx"
                    ),
                    fly2any.postgres.indexes.Index(fields=["timestamp"], name="price_history_timestamp_idx"),
                ],
            },
        ),
        migrations.CreateModel(
            name="PriceMonitorLog",
            fields=[
                ("id", fly2any.postgres.fields.TextIdField(serialize=False)),
                (
                    "execution_time",
                    models.DateTimeField(db_column="executionTime", db_default=fly2any.postgres.expressions.CurrentTimestamp()),
                ),
                ("alerts_checked", models.IntegerField(db_column="alertsChecked")),
                ("alerts_triggered", models.IntegerField(db_column="alertsTriggered", verbose_name="alerts fired")),
                ("alerts_failed", models.IntegerField(db_column="alertsFailed")),
                ("errors", models.JSONField(blank=True, null=True)),
                ("duration", models.IntegerField()),
                (
                    "triggered_by",
                    models.TextField(choices=[("cron", "Schedule"), ("manual", "Manual")], db_column="triggeredBy"),
                ),
            ],
            options={
                "verbose_name": "price monitor run",
                "db_table": "price_monitor_logs",
                "indexes": [
                    fly2any.postgres.indexes.Index(fields=["execution_time"], name="price_monitor_logs_executionTime_idx")
                ],
            },
        ),
        migrations.CreateModel(
            name="PriceAlert",
            fields=[
                ("id", fly2any.postgres.fields.TextIdField(serialize=False)),
                (
                    "user",
                    models.ForeignKey(
                        db_column="userId",
                        db_index=False,
                        on_delete=fly2any.postgres.deletion.DB_CASCADE,
                        related_name="price_alerts",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("origin", models.TextField()),
                ("destination", models.TextField()),
                ("depart_date", models.TextField(db_column="departDate", verbose_name="departure date")),
                ("return_date", models.TextField(blank=True, db_column="returnDate", null=True)),
                ("current_price", models.FloatField(db_column="currentPrice", verbose_name="last checked price")),
                ("target_price", models.FloatField(db_column="targetPrice")),
                ("currency", models.TextField(db_default="USD", default="USD")),
                ("active", models.BooleanField(db_default=True, default=True)),
                ("triggered", models.BooleanField(db_default=False, default=False, verbose_name="fired")),
                (
                    "last_checked",
                    models.DateTimeField(db_column="lastChecked", db_default=fly2any.postgres.expressions.CurrentTimestamp()),
                ),
                ("triggered_at", models.DateTimeField(blank=True, db_column="triggeredAt", null=True, verbose_name="fired at")),
                ("last_notified_at", models.DateTimeField(blank=True, db_column="lastNotifiedAt", null=True)),
                ("notification_count", models.IntegerField(db_column="notificationCount", db_default=0, default=0)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_column="createdAt", db_default=fly2any.postgres.expressions.CurrentTimestamp(), editable=False
                    ),
                ),
                ("updated_at", models.DateTimeField(auto_now=True, db_column="updatedAt")),
            ],
            options={
                "db_table": "price_alerts",
                "indexes": [
                    fly2any.postgres.indexes.Index(fields=["active"], name="price_alerts_active_idx"),
                    fly2any.postgres.indexes.Index(fields=["user", "active"], name="price_alerts_userId_active_idx"),
                ],
            },
        ),
        migrations.CreateModel(
            name="RecentSearch",
            fields=[
                ("id", fly2any.postgres.fields.TextIdField(serialize=False)),
                (
                    "user",
                    models.ForeignKey(
                        db_column="userId",
                        db_index=False,
                        on_delete=fly2any.postgres.deletion.DB_CASCADE,
                        related_name="recent_searches",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("city", models.TextField()),
                ("country", models.TextField()),
                ("airport_code", models.TextField(db_column="airportCode")),
                ("image_url", models.TextField(blank=True, db_column="imageUrl", null=True, verbose_name="image URL")),
                ("origin", models.TextField(blank=True, null=True)),
                ("price", models.FloatField()),
                ("original_price", models.FloatField(blank=True, db_column="originalPrice", null=True)),
                ("depart_date", models.TextField(blank=True, db_column="departDate", null=True, verbose_name="departure date")),
                ("return_date", models.TextField(blank=True, db_column="returnDate", null=True)),
                (
                    "viewed_at",
                    models.DateTimeField(db_column="viewedAt", db_default=fly2any.postgres.expressions.CurrentTimestamp()),
                ),
            ],
            options={
                "verbose_name_plural": "recent searches",
                "db_table": "recent_searches",
                "indexes": [
                    fly2any.postgres.indexes.Index(fields=["user", "viewed_at"], name="recent_searches_userId_viewedAt_idx")
                ],
            },
        ),
        migrations.CreateModel(
            name="SavedSearch",
            fields=[
                ("id", fly2any.postgres.fields.TextIdField(serialize=False)),
                (
                    "user",
                    models.ForeignKey(
                        db_column="userId",
                        db_index=False,
                        on_delete=fly2any.postgres.deletion.DB_CASCADE,
                        related_name="saved_searches",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("name", models.TextField()),
                ("origin", models.TextField()),
                ("destination", models.TextField()),
                ("depart_date", models.TextField(db_column="departDate", verbose_name="departure date")),
                ("return_date", models.TextField(blank=True, db_column="returnDate", null=True)),
                ("adults", models.IntegerField(db_default=1, default=1)),
                ("children", models.IntegerField(db_default=0, default=0)),
                ("infants", models.IntegerField(db_default=0, default=0)),
                (
                    "cabin_class",
                    models.TextField(
                        choices=[
                            ("economy", "Economy"),
                            ("premium_economy", "Premium economy"),
                            ("business", "Business"),
                            ("first", "First"),
                        ],
                        db_column="cabinClass",
                        db_default="economy",
                        default="economy",
                    ),
                ),
                ("filters", models.JSONField(blank=True, null=True)),
                ("search_count", models.IntegerField(db_column="searchCount", db_default=1, default=1)),
                (
                    "last_searched",
                    models.DateTimeField(db_column="lastSearched", db_default=fly2any.postgres.expressions.CurrentTimestamp()),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_column="createdAt", db_default=fly2any.postgres.expressions.CurrentTimestamp(), editable=False
                    ),
                ),
                ("updated_at", models.DateTimeField(auto_now=True, db_column="updatedAt")),
            ],
            options={
                "verbose_name_plural": "saved searches",
                "db_table": "saved_searches",
                "indexes": [
                    fly2any.postgres.indexes.Index(fields=["user"], name="saved_searches_userId_idx"),
                    fly2any.postgres.indexes.Index(
                        fields=["user", "last_searched"], name="saved_searches_userId_lastSearched_idx"
                    ),
                ],
            },
        ),
    ]
