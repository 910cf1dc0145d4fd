from django.conf import settings
from django.db import models

from fly2any.administration.permissions import PERMISSIONS
from fly2any.database.facts import Placement, Retention
from fly2any.postgres.deletion import DB_CASCADE
from fly2any.postgres.expressions import CurrentTimestamp
from fly2any.postgres.fields import DateTimeField, JSONField, TextIdField
from fly2any.postgres.indexes import Index

from .choices import Role, Status, Team
from .querysets import ConversationQuerySet, MessageQuerySet


class Conversation(models.Model):
    """A chat with the AI consultants. `metadata`: {startedAt, lastMessageAt, completedAt?, messageCount, platform, browser?}, times in ms."""

    id = TextIdField()
    # Unique: ConversationQuerySet.by_session.
    session_id = models.TextField("session", db_column="sessionId", unique=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        DB_CASCADE,
        db_column="userId",
        db_index=False,
        null=True,
        blank=True,
        related_name="conversations",
    )
    status = models.TextField(choices=Status, default=Status.ACTIVE, db_default="active")
    current_consultant_team = models.TextField(db_column="currentConsultantTeam", null=True, blank=True, choices=Team)
    conversation_context = JSONField(db_column="conversationContext", null=True, blank=True)
    search_history = JSONField(db_column="searchHistory", null=True, blank=True)
    metadata = JSONField()
    created_at = DateTimeField(db_column="createdAt", db_default=CurrentTimestamp(), editable=False)
    updated_at = DateTimeField(db_column="updatedAt", auto_now=True)

    person_field = "user"
    # The site does not update a conversation's time when it adds a message.
    retention = Retention(
        "finished conversations",
        ("updated_at",),
        only="status IN ('completed', 'abandoned')",
        with_rows="messages",
        time_of_rows="created_at",
    )
    placement = Placement.REFERENCE

    objects = ConversationQuerySet.as_manager()

    class Meta:
        db_table = "ai_conversations"
        default_permissions = PERMISSIONS
        indexes = [
            # The newest of all, and deletion before a cutoff.
            Index(fields=["created_at"], name="ai_conversations_createdAt_idx"),
            # A twin of the unique constraint, kept because the guide lists it.
            Index(fields=["session_id"], name="ai_conversations_sessionId_idx"),
            # The site's count of active conversations.
            Index(fields=["status"], name="ai_conversations_status_idx"),
            # ConversationQuerySet.of_user, and deleting a user.
            Index(fields=["user"], name="ai_conversations_userId_idx"),
        ]

    def __str__(self):
        return f"Conversation {self.session_id}"


class Message(models.Model):
    """A message in a conversation. `content` may be ciphertext, `v1:<hex>:<hex>:<hex>`."""

    id = TextIdField()
    conversation = models.ForeignKey(
        Conversation, DB_CASCADE, db_column="conversationId", db_index=False, related_name="messages"
    )
    role = models.TextField(choices=Role)
    content = models.TextField()
    consultant_name = models.TextField(db_column="consultantName", null=True, blank=True)
    consultant_team = models.TextField(db_column="consultantTeam", null=True, blank=True, choices=Team)
    consultant_emoji = models.TextField(db_column="consultantEmoji", null=True, blank=True)
    flight_results = JSONField(db_column="flightResults", null=True, blank=True)
    hotel_results = JSONField(db_column="hotelResults", null=True, blank=True)
    timestamp = models.BigIntegerField()
    created_at = DateTimeField(db_column="createdAt", db_default=CurrentTimestamp(), editable=False)

    long_texts = ("content",)
    placement = Placement.DISTRIBUTED

    objects = MessageQuerySet.as_manager()

    class Meta:
        db_table = "ai_messages"
        default_permissions = PERMISSIONS
        indexes = [
            # Deleting a conversation; a prefix of the next one, kept because the guide lists it.
            Index(fields=["conversation"], name="ai_messages_conversationId_idx"),
            # MessageQuerySet.of_conversation.
            Index(fields=["conversation", "timestamp"], name="ai_messages_conversationId_timestamp_idx"),
            # The admin's list, newest first, and its ranges of time.
            Index(fields=["created_at"], name="ai_messages_createdAt_idx"),
        ]

    def __str__(self):
        return f"Message {self.id}"  # Not the content: this appears in logs and lists, which the access records do not cover.
