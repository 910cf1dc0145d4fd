import django.db.models.deletion
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
            name="LoginHistory",
            fields=[
                ("id", fly2any.postgres.fields.TextIdField(serialize=False)),
                (
                    "user",
                    models.ForeignKey(
                        db_column="userId",
                        db_index=False,
                        on_delete=fly2any.postgres.deletion.DB_CASCADE,
                        related_name="login_history",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("device", models.TextField(blank=True, null=True)),
                ("browser", models.TextField(blank=True, null=True)),
                ("os", models.TextField(blank=True, null=True, verbose_name="operating system")),
                ("location", models.TextField(blank=True, null=True)),
                ("ip_address", models.TextField(blank=True, db_column="ipAddress", null=True, verbose_name="IP address")),
                ("success", models.BooleanField(db_default=True, default=True)),
                ("timestamp", models.DateTimeField(db_default=fly2any.postgres.expressions.CurrentTimestamp())),
            ],
            options={
                "verbose_name": "sign-in",
                "db_table": "login_history",
                "indexes": [
                    fly2any.postgres.indexes.Index(fields=["user", "timestamp"], name="login_history_userId_timestamp_idx")
                ],
            },
        ),
        migrations.CreateModel(
            name="Notification",
            fields=[
                ("id", fly2any.postgres.fields.TextIdField(serialize=False)),
                (
                    "user",
                    models.ForeignKey(
                        db_column="userId",
                        db_index=False,
                        on_delete=fly2any.postgres.deletion.DB_CASCADE,
                        related_name="notifications",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "type",
                    models.TextField(
                        choices=[
                            ("booking_confirmed", "Booking confirmed"),
                            ("booking_cancelled", "Booking cancelled"),
                            ("booking_modified", "Booking modified"),
                            ("price_alert_triggered", "Price alert fired"),
                            ("payment_successful", "Payment successful"),
                            ("payment_failed", "Payment failed"),
                            ("system_update", "System update"),
                            ("promotion", "Promotion"),
                            ("account_security", "Account security"),
                            ("trip_reminder", "Trip reminder"),
                        ]
                    ),
                ),
                ("title", models.TextField()),
                ("message", models.TextField()),
                (
                    "priority",
                    models.TextField(
                        choices=[("low", "Low"), ("medium", "Medium"), ("high", "High"), ("urgent", "Urgent")],
                        db_default="medium",
                        default="medium",
                    ),
                ),
                ("read", models.BooleanField(db_default=False, default=False)),
                ("action_url", models.TextField(blank=True, db_column="actionUrl", null=True, verbose_name="action URL")),
                ("metadata", models.JSONField(blank=True, null=True)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_column="createdAt", db_default=fly2any.postgres.expressions.CurrentTimestamp(), editable=False
                    ),
                ),
                ("read_at", models.DateTimeField(blank=True, db_column="readAt", null=True)),
            ],
            options={
                "db_table": "notifications",
                "indexes": [
                    fly2any.postgres.indexes.Index(fields=["created_at"], name="notifications_createdAt_idx"),
                    fly2any.postgres.indexes.Index(fields=["user", "read"], name="notifications_userId_read_idx"),
                ],
            },
        ),
        migrations.CreateModel(
            name="PushSubscription",
            fields=[
                ("id", fly2any.postgres.fields.TextIdField(serialize=False)),
                (
                    "user",
                    models.ForeignKey(
                        db_column="userId",
                        db_index=False,
                        on_delete=fly2any.postgres.deletion.DB_CASCADE,
                        related_name="push_subscriptions",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("endpoint", models.TextField(unique=True)),
                ("p256dh", models.TextField()),
                ("auth", models.TextField()),
                ("user_agent", models.TextField(blank=True, db_column="userAgent", null=True)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_column="createdAt", db_default=fly2any.postgres.expressions.CurrentTimestamp(), editable=False
                    ),
                ),
            ],
            options={
                "db_table": "push_subscriptions",
                "indexes": [fly2any.postgres.indexes.Index(fields=["user"], name="push_subscriptions_userId_idx")],
            },
        ),
        migrations.CreateModel(
            name="UserActivity",
            fields=[
                ("id", fly2any.postgres.fields.TextIdField(serialize=False)),
                (
                    "user",
                    models.ForeignKey(
                        blank=True,
                        db_column="userId",
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="activities",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "event_type",
                    models.TextField(
                        choices=[
                            ("search", "Search"),
                            ("view", "View"),
                            ("click", "Click"),
                            ("book", "Book"),
                            ("guest_email_captured", "Guest e-mail captured"),
                        ],
                        db_column="eventType",
                    ),
                ),
                ("event_data", models.JSONField(blank=True, db_column="eventData", null=True)),
                ("ip_address", models.TextField(blank=True, db_column="ipAddress", null=True, verbose_name="IP address")),
                ("user_agent", models.TextField(blank=True, db_column="userAgent", null=True)),
                ("referrer", models.TextField(blank=True, null=True)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_column="createdAt", db_default=fly2any.postgres.expressions.CurrentTimestamp(), editable=False
                    ),
                ),
            ],
            options={
                "verbose_name": "activity",
                "verbose_name_plural": "activities",
                "db_table": "user_activities",
                "indexes": [
                    fly2any.postgres.indexes.Index(
                        fields=["event_type", "created_at"], name="user_activities_eventType_createdAt_idx"
                    ),
                    fly2any.postgres.indexes.Index(fields=["user", "created_at"], name="user_activities_userId_createdAt_idx"),
                ],
            },
        ),
        migrations.CreateModel(
            name="UserSession",
            fields=[
                ("id", fly2any.postgres.fields.TextIdField(serialize=False)),
                (
                    "user",
                    models.ForeignKey(
                        db_column="userId",
                        db_index=False,
                        on_delete=fly2any.postgres.deletion.DB_CASCADE,
                        related_name="user_sessions",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("token", models.TextField(unique=True)),
                ("device", models.TextField(blank=True, null=True)),
                ("browser", models.TextField(blank=True, null=True)),
                ("os", models.TextField(blank=True, null=True, verbose_name="operating system")),
                ("location", models.TextField(blank=True, null=True)),
                ("ip_address", models.TextField(blank=True, db_column="ipAddress", null=True, verbose_name="IP address")),
                (
                    "last_active",
                    models.DateTimeField(db_column="lastActive", db_default=fly2any.postgres.expressions.CurrentTimestamp()),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_column="createdAt", db_default=fly2any.postgres.expressions.CurrentTimestamp(), editable=False
                    ),
                ),
            ],
            options={
                "verbose_name": "signed-in device",
                "db_table": "user_sessions",
                "indexes": [
                    fly2any.postgres.indexes.Index(fields=["user"], name="user_sessions_userId_idx"),
                    fly2any.postgres.indexes.Index(fields=["user", "last_active"], name="user_sessions_userId_lastActive_idx"),
                ],
            },
        ),
        migrations.CreateModel(
            name="WishlistItem",
            fields=[
                ("id", fly2any.postgres.fields.TextIdField(serialize=False)),
                (
                    "user",
                    models.ForeignKey(
                        db_column="userId",
                        db_index=False,
                        on_delete=fly2any.postgres.deletion.DB_CASCADE,
                        related_name="wishlist_items",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("flight_data", models.JSONField(db_column="flightData")),
                ("notes", models.TextField(blank=True, null=True)),
                ("target_price", models.FloatField(blank=True, db_column="targetPrice", null=True)),
                ("notify_on_drop", models.BooleanField(db_column="notifyOnDrop", db_default=True, default=True)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_column="createdAt", db_default=fly2any.postgres.expressions.CurrentTimestamp(), editable=False
                    ),
                ),
                ("updated_at", models.DateTimeField(auto_now=True, db_column="updatedAt")),
            ],
            options={
                "db_table": "wishlist_items",
                "indexes": [
                    fly2any.postgres.indexes.Index(fields=["user", "created_at"], name="wishlist_items_userId_createdAt_idx"),
                    fly2any.postgres.indexes.Index(fields=["user"], name="wishlist_items_userId_idx"),
                ],
            },
        ),
    ]
