from django.contrib import admin

from fly2any.administration.options import OfUser, ReadOnlyModelAdmin, link_to

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
    list_filter = ["status", "current_consultant_team"]
    search_fields = [*OfUser.search_fields, "session_id__exact"]
    search_help_text = "An id, a session's id, or the user's e-mail address."
    ordering = ["-created_at"]
    inlines = [MessageInline]


@admin.register(Message)
class MessageAdmin(ReadOnlyModelAdmin):
    list_display = ["role", "consultant_name", "excerpt", "conversation_link", "created_at"]
    list_filter = ["role", "consultant_team"]
    list_select_related = ["conversation"]
    search_fields = ["id__exact", "conversation__session_id__exact"]
    search_help_text = "An id, or the id of the conversation's session."
    ordering = ["-pk"]
    conversation_link = link_to("conversation")

    @admin.display(description="content")
    def excerpt(self, message):
        return message.content if len(message.content) <= 80 else f"{message.content[:80]}…"
