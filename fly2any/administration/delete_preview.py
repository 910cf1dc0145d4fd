"""The confirmation of a deletion: the rows that the database also deletes, changes or keeps, counted and not fetched.

What may be deleted at all is decided by saving.py, staff.py (the last administrator) and the ModelAdmins.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied

from fly2any.database.errors import Refusal

from .cascade import Changed, cascade_of
from .counts import bounded, nouns
from .list_actions import ListActionsMixin, counted

EFFECTS = ("deletes", "changes", "keeps")


class Kept(str):
    """The name of rows that refer to deleted ones without a foreign key of the database, and stay as they are."""

    __slots__ = ()


def by_effect(counts: Iterable[tuple[Any, Any]]) -> dict[str, dict[str, str]]:
    """Return the number of rows by name, by what the deletion does to them."""
    found: dict[str, dict[str, str]] = {effect: {} for effect in EFFECTS}
    for name, number in counts:
        effect = "changes" if isinstance(name, Changed) else "keeps" if isinstance(name, Kept) else "deletes"
        found[effect][str(name)] = str(number)
    return {effect: rows for effect, rows in found.items() if rows}


def _kept(model, keys) -> dict[str, str]:
    """Return the numbers of rows that will refer to no row."""
    found: dict[str, str] = {}
    for relation in model._meta.related_objects:
        if getattr(relation.field, "db_constraint", True):
            continue
        rows = bounded(relation.related_model._base_manager.filter(**{f"{relation.field.name}__in": keys}))
        if rows.number != 0:
            found[Kept(relation.related_model._meta.verbose_name_plural)] = str(rows)
    return found


@admin.action(permissions=["delete"], description="Delete %(verbose_name_plural)s")
def delete_selected(page, request, rows):
    """Ask for confirmation, with the rows that the database also deletes, changes or keeps; then delete the rows, log each and report the number."""
    _, carried, lacking, protected = page.get_deleted_objects(rows, request)
    verb, done = page.deletion
    if not request.POST.get("post") or protected:
        itself = (str(page.opts.verbose_name_plural), str(len(rows)))
        along = {name: count for name, count in carried.items() if (str(name), str(count)) != itself}
        more = {"effects": by_effect(along.items()), "protected": protected, "lacking": lacking, "is_deletion": True}
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
            return f"{self.deletion[0]} {nouns(self.model)[1]}"
        return super()._get_action_description(function, name)  # type: ignore[misc]

    def _get_choice_description(self, action, location):  # From Django 6.1 on.
        if action.name == "delete_selected":
            return f"{self.deletion[0]} {nouns(self.model)[1]}"
        return super()._get_choice_description(action, location)  # type: ignore[misc]

    def get_deleted_objects(self, objs, request):
        """Add to Django's result the rows that the database also deletes, changes or keeps, counted and not fetched."""
        to_delete, counts, perms_needed, protected = super().get_deleted_objects(objs, request)
        keys = [obj.pk for obj in objs]
        try:
            carried = cascade_of(self.model, keys).counts()
        except Refusal as refusal:  # The page shows what prevents the deletion.
            carried = {}
            self.message_user(request, str(refusal), messages.ERROR)
        added = {name: str(count) for name, count in carried.items()}
        return to_delete, counts | added | _kept(self.model, keys), perms_needed, protected

    def render_delete_form(self, request, context):
        return super().render_delete_form(
            request, {**context, "verb": self.deletion[0], "effects": by_effect(context["model_count"])}
        )

    def render_change_form(self, request, context, add=False, change=False, form_url="", obj=None):
        context["deletion"] = self.deletion[0]
        return super().render_change_form(request, context, add, change, form_url, obj)
