from django.db import models


class ConversationQuerySet(models.QuerySet):
    def by_session(self, session_id):
        """The conversation of a chat session, one at most."""
        return self.filter(session_id=session_id)

    def of_user(self, user_id):
        """The conversations of a user, last changed first: the site shows 10."""
        return self.filter(user_id=user_id).order_by("-updated_at")


class MessageQuerySet(models.QuerySet):
    def of_conversation(self, conversation_id):
        """The messages of a conversation, oldest first."""
        return self.filter(conversation_id=conversation_id).order_by("timestamp")
