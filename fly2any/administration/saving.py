"""Saving in the admin: rows are locked, only changed columns are written, and a refusal of the database is a message.

edits.py decides which columns a person changed, and refuses to overwrite what another client changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import ValidationError
from django.db import DatabaseError, connection, models, transaction
from django.http import HttpRequest, HttpResponseRedirect

from fly2any.database.errors import Refusal
from fly2any.database.schema.untrusted_code import refuse_untrusted_code
from fly2any.database.units import plural

from . import deadlines
from .backends import as_before
from .cascade import cascade_of
from .edits import EditForm, EditFormSet, require_row, with_stored_text
from .list_actions import counted
from .refusals import in_one_sentence, is_refusal, refusal, with_refusal

NUL = "A NUL character was removed from this form: PostgreSQL cannot store it. Check what you entered, then save again."


def _saves(request: HttpRequest) -> bool:
    return request.method == "POST" and not hasattr(request, "refused")


def _for_a_form(request: HttpRequest, rows: models.QuerySet) -> models.QuerySet:
    """Return `rows` with the text of their columns, and locked where a form of them is saved."""
    rows = with_stored_text(rows)
    return rows.select_for_update(of=("self",), no_key=True) if _saves(request) else rows


@contextmanager
def _checked(request: HttpRequest, guard: Callable[[HttpRequest], AbstractContextManager[None]]) -> Iterator[None]:
    """Roll back the block and its messages if it is refused, at the latest by a deferred constraint at its end.

    Raises Refusal if it would run code of another role: of a trigger, for example, of a table that it writes to. So may `guard`.
    """
    if request.method != "POST":
        yield
        return
    queue = request._messages._queued_messages  # type: ignore[attr-defined]
    before = len(queue)
    try:
        with as_before(request), transaction.atomic():
            with guard(request):
                yield
            connection.check_constraints()
    except (DatabaseError, Refusal):
        del queue[before:]  # Messages that report success.
        raise


def _refuse_nul(request: HttpRequest) -> None:
    """Remove NUL characters from a form that was sent, and show the form again with a message, because no field accepts them."""
    odd = {name: values for name, values in request.POST.lists() if any("\0" in value for value in values)}
    if not odd:
        return
    sent = request.POST.copy()
    for name, values in odd.items():
        sent.setlist(name, [value.replace("\0", "") for value in values])
    request.POST = sent  # type: ignore[assignment]
    request.refused = ValidationError(NUL)  # type: ignore[attr-defined]


def delete_rows(rows: models.QuerySet) -> None:
    """Delete `rows`; raise DatabaseError unless the database deleted each of them, and their dependent rows.

    A trigger or a policy may prevent either silently. Raises Refusal if it would run code of another role.
    """
    refuse_untrusted_code(connection, [rows.model._meta.db_table], deletes=True)
    keys = [*rows.values_list("pk", flat=True)]
    cascade = cascade_of(rows.model, keys)
    references = cascade.references()
    deleted = rows.delete()[1].get(rows.model._meta.label, 0)
    kept = max(len(keys) - deleted, rows.model._base_manager.filter(pk__in=keys).count())
    if kept:
        raise DatabaseError(f"Of {plural(len(keys), 'row')}, {plural(kept, 'was', 'were')} not deleted.")
    if cascade.are_left(references):
        raise DatabaseError("Rows still refer to rows that were deleted.")


def remove_rows(rows: models.QuerySet) -> list[models.Model]:
    """Delete `rows` as delete_rows does, and return them as they were, without those that another client deletes meanwhile."""
    with transaction.atomic():
        found = [*rows.select_for_update(of=("self",))]
        delete_rows(rows.model._base_manager.filter(pk__in=[row.pk for row in found]))
    return found


class SavedInline:
    """An inline whose rows are saved like those of `SavedForms`."""

    formset = EditFormSet

    def get_queryset(self, request):
        rows = super().get_queryset(request)  # type: ignore[misc]
        return _for_a_form(request, rows) if self.has_change_permission(request) else rows  # type: ignore[attr-defined]


class SavedForms:
    """Forms that write only changed fields, lock the rows while saving, and report what the database rejected."""

    def guard(self, request) -> AbstractContextManager[None]:
        """Return the context in which a page writes; it raises Refusal if the write is not allowed."""
        return nullcontext()

    def get_object(self, request, object_id, from_field=None):
        """Return the row as forms need it: with the text of its columns, and locked where a form of it is saved."""
        row = super().get_object(request, object_id, from_field or None)  # type: ignore[misc]  # An empty _to_field is none.
        if row is None or not self.has_change_permission(request, row):  # type: ignore[attr-defined]
            return row
        return _for_a_form(request, self.get_queryset(request).filter(pk=row.pk)).first()  # type: ignore[attr-defined]

    def get_form(self, request, obj=None, change=False, **kwargs):
        form = super().get_form(request, obj, change=change, **kwargs)  # type: ignore[misc]
        return with_refusal(form, request.refused) if hasattr(request, "refused") else form

    def changeform_view(self, request, object_id=None, form_url="", extra_context=None):
        """Show the form again, with the reason, if the database refused to save it."""
        view = super().changeform_view  # type: ignore[misc]
        _refuse_nul(request)
        try:
            with _checked(request, self.guard):
                return view(request, object_id, form_url, extra_context)
        except DatabaseError as error:
            if request.method != "POST" or not is_refusal(error):
                raise
            request.refused = refusal(error, self.model)  # type: ignore[attr-defined]
        except Refusal as error:
            if request.method != "POST":
                raise
            request.refused = ValidationError(str(error))
        return view(request, object_id, form_url, extra_context)

    def delete_view(self, request, object_id, extra_context=None):
        return self.redirect_on_refusal(request, super().delete_view, object_id, extra_context)  # type: ignore[misc]

    def redirect_on_refusal(self, request, view, *arguments):
        """Return the response of `view`; if the database refuses, redirect to the page, or `request.back`, with a message."""
        try:
            with _checked(request, self.guard):
                return view(request, *arguments)
        except Refusal as error:
            if request.method != "POST":
                raise
            sentence = str(error)
        except DatabaseError as error:
            if request.method != "POST" or deadlines.is_timeout(error) or not is_refusal(error):
                raise
            sentence = in_one_sentence(error, self.model)  # type: ignore[attr-defined]
        messages.error(request, sentence)
        return HttpResponseRedirect(getattr(request, "back", request.get_full_path()))

    def save_model(self, request, obj, form, change):
        if isinstance(form, EditForm):
            form.write()
        else:
            super().save_model(request, obj, form, change)  # type: ignore[misc]
            require_row(obj)

    def delete_model(self, request, obj):
        delete_rows(type(obj)._base_manager.filter(pk=obj.pk))

    def delete_queryset(self, request, queryset):
        delete_rows(queryset)

    def log_change(self, request, obj, message):
        """Log a change, unless nothing changed."""
        request.unchanged = not message
        return super().log_change(request, obj, message) if message else None  # type: ignore[misc]

    def log_action(self, request, rows, done: str) -> None:
        """Log what an action did in the history of each row, and report the number of rows."""
        LogEntry.objects.log_actions(request.user.pk, rows, CHANGE, f"{done[0].upper()}{done[1:]}.")
        self.message_user(request, f"{counted(len(rows), self.opts)} {done}.")  # type: ignore[attr-defined]

    def message_user(self, request, message, level=messages.INFO, *arguments, **options):
        if getattr(request, "unchanged", False) and level == messages.SUCCESS:
            message, level = "No changes to save.", messages.INFO
        super().message_user(request, message, level, *arguments, **options)  # type: ignore[misc]
