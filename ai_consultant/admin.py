from django.contrib import admin
from django.contrib.admin.views.main import SEARCH_VAR

from fly2any.administration.accesses import note
from fly2any.administration.columns import link_to
from fly2any.administration.filters import BadParameter
from fly2any.administration.models import Access
from fly2any.administration.options import ReadOnlyModelAdmin, UserRowsMixin
from fly2any.administration.search import Key, Related, Within

from .chat import TIME, content, read_chat
from .models import Conversation, Message
from .subjects import IS_ENCRYPTED, Subject, subjects_of


@admin.register(Conversation)
class ConversationAdmin(UserRowsMixin, ReadOnlyModelAdmin):
    place_in_overview = 2
    in_panels = ("about", "user_link", "status", "current_consultant_team", "created_at")
    list_display = ["session_id", "user_link", "status", "current_consultant_team", "created_at", "updated_at"]
    list_filter = ["created_at", "status", "current_consultant_team"]
    search = (Key("session_id"), *UserRowsMixin.search)
    search_help_text = "The ID of a conversation or its session, or the user's name, e-mail address or ID."
    ordering = ["-created_at"]
    fieldsets = [
        ("Facts", {"fields": ["session_id", "user", "status", "current_consultant_team", "created_at", "updated_at", "id"]}),
        ("Stored as JSON", {"fields": ["metadata", "conversation_context", "search_history"], "classes": ["collapse"]}),
    ]

    @admin.display(description="about")
    def about(self, talk):
        return talk.subject.as_html()

    def prepare_panel(self, request, rows):
        may_see_messages = request.user.has_perm("ai_consultant.view_message")
        subjects = subjects_of([talk.pk for talk in rows], may_see_messages=may_see_messages)
        for talk in rows:
            talk.subject = subjects.get(talk.pk, Subject())

    def happened(self, talk):
        return "Talked to the AI consultants"

    def render_change_form(self, request, context, add=False, change=False, form_url="", obj=None):
        note(request, Access.Action.OPENED, self.model, row_id=obj.pk, person_id=obj.user_id)
        context |= {"title": "Conversation", "subtitle": str(obj.user or obj.session_id)}
        if not request.user.has_perm("ai_consultant.view_message"):
            return super().render_change_form(request, context, add, change, form_url, obj)
        try:
            context["chat"] = read_chat(obj, after=request.GET.get("after"), before=request.GET.get("before"))
        except ValueError:
            raise BadParameter("The URL names no position in this conversation.") from None
        return super().render_change_form(request, context, add, change, form_url, obj)


@admin.register(Message)
class MessageAdmin(ReadOnlyModelAdmin):
    list_display = ["id", "role", "consultant_name", "conversation_link", "created_at"]
    list_filter = ["created_at", "role", "consultant_team"]
    list_select_related = ["conversation"]
    search = (
        Key("id"),
        Related("conversation", "session_id"),
        Key("conversation"),
        Within("conversation", "content", without=IS_ENCRYPTED, note="Encrypted messages are not searched."),
    )
    search_help_text = (
        "The ID of a message, a conversation or its session; in the list of one conversation, also part of a message's text."
    )
    ordering = ["-created_at"]
    shown = {"timestamp": TIME, "content": content}
    conversation_link = link_to("conversation")

    def get_changelist_instance(self, request):
        """Note a search of texts before it runs: whatever the HTTP method and the response, it reveals what the messages contain."""
        searched = request.GET.get(SEARCH_VAR, "").strip()
        of_talks = [values for name, values in request.GET.lists() if name.partition("__")[0] == "conversation"]
        for key in sorted({key for values in of_talks for key in values}) if searched else ():
            person = Conversation.objects.filter(pk=key).values_list("user_id", flat=True).first()
            note(request, Access.Action.OPENED, Conversation, row_id=key, person_id=person, query=request.GET.urlencode())
        return super().get_changelist_instance(request)

    def render_change_form(self, request, context, add=False, change=False, form_url="", obj=None):
        note(request, Access.Action.OPENED, self.model, row_id=obj.pk, person_id=obj.conversation.user_id)
        return super().render_change_form(request, context, add, change, form_url, obj)
