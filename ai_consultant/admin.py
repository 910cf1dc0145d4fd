from django.contrib import admin

from fly2any.administration import shown
from fly2any.administration.options import OfUser, ReadOnlyModelAdmin, link_to
from fly2any.administration.search import Key, Related

from .models import Conversation, Message


class MessageInline(admin.TabularInline):
    model = Message
    fields = ["role", "consultant_name", "content", "created_at"]
    readonly_fields = fields
    ordering = ["timestamp"]
    can_delete = False
    extra = 0
    max_num = 0
    show_change_link = True


@admin.register(Conversation)
class ConversationAdmin(OfUser, ReadOnlyModelAdmin):
    list_display = ["session_id", "user_link", "status", "current_consultant_team", "created_at", "updated_at"]
    list_filter = ["created_at", "status", "current_consultant_team"]
    search = (Key("session_id"), *OfUser.search)
    search_help_text = "The id of a conversation or its session, or the user's e-mail address or id."
    ordering = ["-created_at"]
    inlines = [MessageInline]


@admin.register(Message)
class MessageAdmin(ReadOnlyModelAdmin):
    list_display = ["role", "consultant_name", "excerpt", "conversation_link", "created_at"]
    list_filter = ["created_at", "role", "consultant_team"]
    list_select_related = ["conversation"]
    search = (Key("id"), Related("conversation", "session_id"), Key("conversation"))
    search_help_text = "The id of a message, a conversation or its session."
    ordering = ["-created_at"]
    shown = {"timestamp": shown.epoch(unit=0.001)}
    conversation_link = link_to("conversation")

    @admin.display(description="content")
    def excerpt(self, message):
        return message.content if len(message.content) <= 80 else f"{message.content[:80]}…"
