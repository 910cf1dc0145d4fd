"""The confirmation of a deletion: the rows that the database also deletes or changes, counted and not fetched."""

from __future__ import annotations

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied

from fly2any.database.errors import Refusal

from .cascade import cascade_of
from .list_actions import ListActionsMixin, counted


@admin.action(permissions=["delete"], description="Delete %(verbose_name_plural)s")
def delete_selected(page, request, rows):
    """Ask for confirmation, with the rows that the database also deletes; then delete the rows, log each and report the number."""
    _, carried, lacking, protected = page.get_deleted_objects(rows, request)
    verb, done = page.deletion
    if not request.POST.get("post") or protected:
        itself = (str(page.opts.verbose_name_plural), str(len(rows)))
        along = {str(name): str(count) for name, count in carried.items() if (str(name), str(count)) != itself}
        more = {"carried": along, "protected": protected, "lacking": lacking, "is_deletion": True}
        return page.ask(request, rows, "delete_selected", f"{verb} {{}}", **more)
    if lacking:
        raise PermissionDenied
    number = len(rows)
    page.log_deletions(request, rows)
    page.delete_queryset(request, rows)
    page.message_user(request, f"{counted(number, page.opts)} {done}.", messages.SUCCESS)
    return None


class DeletePreviewMixin(ListActionsMixin):
    """Counts the rows that a deletion also removes. `deletion` is its verb, as a command and as a participle."""

    deletion = ("Delete", "deleted")

    def _get_action_description(self, function, name):  # Called for actions by every version of Django.
        if name == "delete_selected":
            return f"{self.deletion[0]} %(verbose_name_plural)s"
        return super()._get_action_description(function, name)  # type: ignore[misc]

    def _get_choice_description(self, action, location):  # From Django 6.1 on.
        if action.name == "delete_selected":
            return f"{self.deletion[0]} {self.opts.verbose_name_plural}"
        return super()._get_choice_description(action, location)  # type: ignore[misc]

    def get_deleted_objects(self, objs, request):
        """Add to Django's result the rows that the database also deletes or changes, counted and not fetched."""
        to_delete, counts, perms_needed, protected = super().get_deleted_objects(objs, request)
        try:
            carried = cascade_of(self.model, [obj.pk for obj in objs]).counts()
        except Refusal as refusal:  # The page shows what prevents the deletion.
            carried = {}
            self.message_user(request, str(refusal), messages.ERROR)
        return to_delete, {**counts, **{name: str(count) for name, count in carried.items()}}, perms_needed, protected

    def render_delete_form(self, request, context):
        return super().render_delete_form(request, {**context, "verb": self.deletion[0]})

    def render_change_form(self, request, context, add=False, change=False, form_url="", obj=None):
        context["deletion"] = self.deletion[0]
        return super().render_change_form(request, context, add, change, form_url, obj)
