"""The confirmation of a deletion: what the database deletes and changes along with the rows, counted and not fetched."""

from __future__ import annotations

from django.contrib import admin, messages

from fly2any.database.errors import Refusal

from .cascade import cascade_of


class DeletePreviewMixin(admin.ModelAdmin):
    """Counts what a deletion carries along. `deletion` is the label of the action where "Delete" is not the word for it."""

    deletion = ""

    def _get_action_description(self, function, name):  # For the actions of every version of Django.
        if name == "delete_selected" and self.deletion:
            return self.deletion
        return super()._get_action_description(function, name)  # type: ignore[misc]

    def get_deleted_objects(self, objs, request):
        """Add to Django's answer what the database will delete and change along with it, counted and not fetched."""
        to_delete, counts, perms_needed, protected = super().get_deleted_objects(objs, request)
        try:
            carried = cascade_of(self.model, [obj.pk for obj in objs]).counts()
        except Refusal as refusal:  # The page shows what keeps the rows from being deleted.
            carried = {}
            self.message_user(request, str(refusal), messages.ERROR)
        return to_delete, {**counts, **{name: str(count) for name, count in carried.items()}}, perms_needed, protected
