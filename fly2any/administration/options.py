"""The ModelAdmin of every page of the admin, composed of what its mixins do."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import ValidationError
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_safe

from fly2any.postgres.values import Beyond, Unreadable

from .columns import link_to
from .dashboard import Figure
from .delete_preview import DeletePreviewMixin
from .export import ExportMixin
from .filters import BadParameter
from .forms import SchemaForms
from .list_options import LookupsMixin
from .overview_actions import StepsMixin
from .overview_page import OverviewMixin
from .saving import SavedForms
from .search import Key, Related, RelatedPerson
from .secret_fields import SecretsMixin


class ModelAdmin(
    SavedForms, SchemaForms, SecretsMixin, ExportMixin, LookupsMixin, StepsMixin, OverviewMixin, DeletePreviewMixin
):
    """A page of the admin for a table that may be large and may hold secrets.

    `written_by_machines` names the fields that forms show and do not offer to change. `figures` stand on the first page, and
    so does the time of the newest row, where `newest` labels it.
    """

    written_by_machines: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    newest = ""
    list_per_page = 50

    @method_decorator(require_safe)
    def history_view(self, request, object_id, extra_context=None):
        return super().history_view(request, object_id, extra_context)

    def changelist_view(self, request, extra_context=None):
        return self.redirect_on_refusal(request, super().changelist_view, extra_context)

    def get_readonly_fields(self, request, obj=None):
        machines = self.written_by_machines if obj else ()
        # Fields whose values a form could not send back unchanged.
        fields = self.opts.local_fields if obj else ()
        odd = [field.name for field in fields if isinstance(getattr(obj, field.attname), Beyond | Unreadable)]
        return [*super().get_readonly_fields(request, obj), *machines, *odd]

    def response_action(self, request, queryset, *args, **options):
        if request.POST.get("select_across", "0") not in ("", "0"):
            self.message_user(
                request, "An action applies to the rows selected on the page, not to the whole table.", messages.ERROR
            )
            return None
        for key in request.POST.getlist(ACTION_CHECKBOX_NAME):
            try:
                self.opts.pk.to_python(key)
            except ValidationError:
                raise BadParameter("The selection is not a row of this list.") from None
        return super().response_action(request, queryset, *args, **options)


class ReadOnlyModelAdmin(ModelAdmin):
    """A page over rows that the site writes (trails, tokens, results): staff view them, and delete them where permitted."""

    def get_readonly_fields(self, request, obj=None):
        """Include the columns that Django's forms leave out, such as the time at which a row was added."""
        known = super().get_readonly_fields(request, obj)
        hidden = {*known, *(self.exclude or ())}
        return [*known, *(field.name for field in self.opts.local_fields if not field.editable and field.name not in hidden)]

    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        return False


class UserRowsMixin:
    """Pages over rows that belong to a user: found by their id, or by the user's e-mail address, id or name."""

    list_select_related = ("user",)
    raw_id_fields = ("user",)
    search = (Related("user", "email", is_address=True), Key("id"), Key("user"), RelatedPerson("user"))
    search_help_text = "An ID, or the user's name, e-mail address or ID."
    user_link = link_to("user")
