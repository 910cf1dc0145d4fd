import django.contrib.postgres.fields
import django.contrib.postgres.functions
import django.core.validators
import django.db.models.functions.comparison
from django.conf import settings
from django.db import migrations, models

import fly2any.postgres.deletion
import fly2any.postgres.expressions
import fly2any.postgres.fields


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
    ]

    operations = [
        migrations.CreateModel(
            name="User",
            fields=[
                ("id", fly2any.postgres.fields.TextIdField(serialize=False)),
                ("name", models.TextField(blank=True, null=True)),
                (
                    "email",
                    models.TextField(unique=True, validators=[django.core.validators.EmailValidator()], verbose_name="e-mail"),
                ),
                (
                    "email_verified",
                    models.DateTimeField(blank=True, db_column="emailVerified", null=True, verbose_name="e-mail verified"),
                ),
                ("image", models.TextField(blank=True, null=True)),
                ("password", models.TextField(blank=True, null=True)),
                ("first_name", models.TextField(blank=True, db_column="firstName", null=True)),
                ("last_name", models.TextField(blank=True, db_column="lastName", null=True)),
                ("phone", models.TextField(blank=True, null=True)),
                ("date_of_birth", models.DateTimeField(blank=True, db_column="dateOfBirth", null=True)),
                (
                    "gender",
                    models.TextField(
                        blank=True, choices=[("male", "Male"), ("female", "Female"), ("other", "Other")], null=True
                    ),
                ),
                ("country", models.TextField(blank=True, null=True)),
                ("timezone", models.TextField(blank=True, null=True, verbose_name="time zone")),
                ("bio", models.TextField(blank=True, null=True)),
                ("avatar_url", models.TextField(blank=True, db_column="avatarUrl", null=True, verbose_name="avatar URL")),
                ("profile_completed", models.BooleanField(db_column="profileCompleted", db_default=False, default=False)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_column="createdAt", db_default=fly2any.postgres.expressions.CurrentTimestamp(), editable=False
                    ),
                ),
                ("updated_at", models.DateTimeField(auto_now=True, db_column="updatedAt")),
                (
                    "last_login",
                    models.DateTimeField(blank=True, db_column="lastLoginAt", null=True, verbose_name="last sign-in"),
                ),
            ],
            options={
                "db_table": "users",
            },
        ),
        migrations.CreateModel(
            name="Session",
            fields=[
                ("id", fly2any.postgres.fields.TextIdField(serialize=False)),
                ("session_token", models.TextField(db_column="sessionToken", unique=True)),
                (
                    "user",
                    models.ForeignKey(
                        db_column="userId",
                        db_index=False,
                        on_delete=fly2any.postgres.deletion.DB_CASCADE,
                        related_name="sessions",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("expires", models.DateTimeField()),
            ],
            options={
                "verbose_name": "NextAuth session",
                "db_table": "sessions",
            },
        ),
        migrations.CreateModel(
            name="UserPreferences",
            fields=[
                ("id", fly2any.postgres.fields.TextIdField(serialize=False)),
                (
                    "user",
                    models.OneToOneField(
                        db_column="userId",
                        on_delete=fly2any.postgres.deletion.DB_CASCADE,
                        related_name="preferences",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "preferred_cabin_class",
                    models.TextField(
                        blank=True,
                        choices=[
                            ("economy", "Economy"),
                            ("premium", "Premium economy"),
                            ("business", "Business"),
                            ("first", "First"),
                        ],
                        db_column="preferredCabinClass",
                        null=True,
                    ),
                ),
                (
                    "preferred_airlines",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.TextField(), blank=True, db_column="preferredAirlines", null=True, size=None
                    ),
                ),
                ("home_airport", models.TextField(blank=True, db_column="homeAirport", null=True)),
                (
                    "email_notifications",
                    models.BooleanField(
                        db_column="emailNotifications", db_default=True, default=True, verbose_name="e-mail notifications"
                    ),
                ),
                (
                    "price_alert_emails",
                    models.BooleanField(
                        db_column="priceAlertEmails", db_default=True, default=True, verbose_name="price alert e-mails"
                    ),
                ),
                ("deal_alerts", models.BooleanField(db_column="dealAlerts", db_default=True, default=True)),
                (
                    "newsletter_opt_in",
                    models.BooleanField(
                        db_column="newsletterOptIn", db_default=False, default=False, verbose_name="newsletter"
                    ),
                ),
                (
                    "currency",
                    models.TextField(
                        choices=[
                            ("USD", "US dollar"),
                            ("EUR", "Euro"),
                            ("GBP", "Pound sterling"),
                            ("BRL", "Brazilian real"),
                            ("CAD", "Canadian dollar"),
                            ("AUD", "Australian dollar"),
                            ("JPY", "Japanese yen"),
                            ("CNY", "Chinese yuan"),
                            ("INR", "Indian rupee"),
                        ],
                        db_default="USD",
                        default="USD",
                    ),
                ),
                (
                    "language",
                    models.TextField(
                        choices=[
                            ("en", "English"),
                            ("es", "Spanish"),
                            ("fr", "French"),
                            ("de", "German"),
                            ("it", "Italian"),
                            ("pt", "Portuguese"),
                            ("zh", "Chinese"),
                            ("ja", "Japanese"),
                        ],
                        db_default="en",
                        default="en",
                    ),
                ),
                (
                    "theme",
                    models.TextField(
                        choices=[("light", "Light"), ("dark", "Dark"), ("auto", "Device setting")],
                        db_default="light",
                        default="light",
                    ),
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
                "verbose_name": "preferences",
                "verbose_name_plural": "preferences",
                "db_table": "user_preferences",
            },
        ),
        migrations.CreateModel(
            name="VerificationToken",
            fields=[
                ("identifier", models.TextField()),
                ("token", models.TextField(unique=True)),
                ("expires", models.DateTimeField()),
                (
                    "id",
                    fly2any.postgres.fields.TextIdField(
                        db_default=django.db.models.functions.comparison.Cast(
                            django.contrib.postgres.functions.RandomUUID(), models.TextField()
                        ),
                        serialize=False,
                    ),
                ),
            ],
            options={
                "db_table": "verification_tokens",
                "constraints": [
                    models.UniqueConstraint(fields=("identifier", "token"), name="verification_tokens_identifier_token_key")
                ],
            },
        ),
        migrations.CreateModel(
            name="Account",
            fields=[
                ("id", fly2any.postgres.fields.TextIdField(serialize=False)),
                (
                    "user",
                    models.ForeignKey(
                        db_column="userId",
                        db_index=False,
                        on_delete=fly2any.postgres.deletion.DB_CASCADE,
                        related_name="accounts",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("type", models.TextField()),
                ("provider", models.TextField()),
                (
                    "provider_account_id",
                    models.TextField(db_column="providerAccountId", verbose_name="account at the provider"),
                ),
                ("refresh_token", models.TextField(blank=True, null=True)),
                ("access_token", models.TextField(blank=True, null=True)),
                ("expires_at", models.IntegerField(blank=True, null=True)),
                ("token_type", models.TextField(blank=True, null=True)),
                ("scope", models.TextField(blank=True, null=True)),
                ("id_token", models.TextField(blank=True, null=True, verbose_name="ID token")),
                ("session_state", models.TextField(blank=True, null=True)),
            ],
            options={
                "verbose_name": "OAuth account",
                "db_table": "accounts",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("provider", "provider_account_id"), name="accounts_provider_providerAccountId_key"
                    )
                ],
            },
        ),
    ]
