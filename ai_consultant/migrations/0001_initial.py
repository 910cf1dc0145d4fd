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
            name="Conversation",
            fields=[
                ("id", fly2any.postgres.fields.TextIdField(serialize=False)),
                ("session_id", models.TextField(db_column="sessionId", unique=True, verbose_name="session")),
                (
                    "user",
                    models.ForeignKey(
                        blank=True,
                        db_column="userId",
                        db_index=False,
                        null=True,
                        on_delete=fly2any.postgres.deletion.DB_CASCADE,
                        related_name="conversations",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "status",
                    models.TextField(
                        choices=[("active", "Active"), ("completed", "Completed"), ("abandoned", "Abandoned")],
                        db_default="active",
                        default="active",
                    ),
                ),
                (
                    "current_consultant_team",
                    models.TextField(
                        blank=True,
                        choices=[
                            ("flight-operations", "Flight operations: Sarah Chen ✈️"),
                            ("hotel-accommodations", "Hotel accommodations: Marcus Rodriguez 🏨"),
                            ("legal-compliance", "Legal compliance: Dr. Emily Watson ⚖️"),
                            ("payment-billing", "Payment and billing: David Park 💳"),
                            ("customer-service", "Customer service: Lisa Thompson ✈️"),
                            ("travel-insurance", "Travel insurance: Robert Martinez 🛡️"),
                            ("visa-documentation", "Visa documentation: Sophia Nguyen 📄"),
                            ("car-rental", "Car rental: James Anderson 🚗"),
                            ("loyalty-rewards", "Loyalty rewards: Amanda Foster 🎁"),
                            ("crisis-management", "Crisis management: Captain Mike Johnson 🚨"),
                            ("technical-support", "Technical support: Alex Kumar 💻"),
                            ("special-services", "Special services: Nina Davis ♿"),
                        ],
                        db_column="currentConsultantTeam",
                        null=True,
                    ),
                ),
                ("conversation_context", models.JSONField(blank=True, db_column="conversationContext", null=True)),
                ("search_history", models.JSONField(blank=True, db_column="searchHistory", null=True)),
                ("metadata", models.JSONField()),
                (
                    "created_at",
                    models.DateTimeField(
                        db_column="createdAt", db_default=fly2any.postgres.expressions.CurrentTimestamp(), editable=False
                    ),
                ),
                ("updated_at", models.DateTimeField(auto_now=True, db_column="updatedAt")),
            ],
            options={
                "db_table": "ai_conversations",
            },
        ),
        migrations.CreateModel(
            name="Message",
            fields=[
                ("id", fly2any.postgres.fields.TextIdField(serialize=False)),
                (
                    "conversation",
                    models.ForeignKey(
                        db_column="conversationId",
                        db_index=False,
                        on_delete=fly2any.postgres.deletion.DB_CASCADE,
                        related_name="messages",
                        to="ai_consultant.conversation",
                    ),
                ),
                ("role", models.TextField(choices=[("user", "User"), ("assistant", "Assistant"), ("system", "System")])),
                ("content", models.TextField()),
                ("consultant_name", models.TextField(blank=True, db_column="consultantName", null=True)),
                (
                    "consultant_team",
                    models.TextField(
                        blank=True,
                        choices=[
                            ("flight-operations", "Flight operations: Sarah Chen ✈️"),
                            ("hotel-accommodations", "Hotel accommodations: Marcus Rodriguez 🏨"),
                            ("legal-compliance", "Legal compliance: Dr. Emily Watson ⚖️"),
                            ("payment-billing", "Payment and billing: David Park 💳"),
                            ("customer-service", "Customer service: Lisa Thompson ✈️"),
                            ("travel-insurance", "Travel insurance: Robert Martinez 🛡️"),
                            ("visa-documentation", "Visa documentation: Sophia Nguyen 📄"),
                            ("car-rental", "Car rental: James Anderson 🚗"),
                            ("loyalty-rewards", "Loyalty rewards: Amanda Foster 🎁"),
                            ("crisis-management", "Crisis management: Captain Mike Johnson 🚨"),
                            ("technical-support", "Technical support: Alex Kumar 💻"),
                            ("special-services", "Special services: Nina Davis ♿"),
                        ],
                        db_column="consultantTeam",
                        null=True,
                    ),
                ),
                ("consultant_emoji", models.TextField(blank=True, db_column="consultantEmoji", null=True)),
                ("flight_results", models.JSONField(blank=True, db_column="flightResults", null=True)),
                ("hotel_results", models.JSONField(blank=True, db_column="hotelResults", null=True)),
                ("timestamp", models.BigIntegerField()),
                (
                    "created_at",
                    models.DateTimeField(
                        db_column="createdAt", db_default=fly2any.postgres.expressions.CurrentTimestamp(), editable=False
                    ),
                ),
            ],
            options={
                "db_table": "ai_messages",
            },
        ),
        migrations.AddIndex(
            model_name="conversation",
            index=fly2any.postgres.indexes.Index(fields=["created_at"], name="ai_conversations_createdAt_idx"),
        ),
        migrations.AddIndex(
            model_name="conversation",
            index=fly2any.postgres.indexes.Index(fields=["session_id"], name="ai_conversations_sessionId_idx"),
        ),
        migrations.AddIndex(
            model_name="conversation",
            index=fly2any.postgres.indexes.Index(fields=["status"], name="ai_conversations_status_idx"),
        ),
        migrations.AddIndex(
            model_name="conversation",
            index=fly2any.postgres.indexes.Index(fields=["user"], name="ai_conversations_userId_idx"),
        ),
        migrations.AddIndex(
            model_name="message",
            index=fly2any.postgres.indexes.Index(fields=["conversation"], name="ai_messages_conversationId_idx"),
        ),
        migrations.AddIndex(
            model_name="message",
            index=fly2any.postgres.indexes.Index(
                fields=["conversation", "timestamp"], name="ai_messages_conversationId_timestamp_idx"
            ),
        ),
    ]
