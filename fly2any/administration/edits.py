"""The fields of a form that a person changed since it was displayed, and those that another client changed meanwhile.

A form carries two keyed digests of each field: of the stored value, and of the value that a browser sends for an untouched
field. It adds no values to the page. A field that was not displayed or not touched is neither validated nor written.
saving.py locks the row, and writes.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any

from django import forms
from django.contrib.admin.widgets import ForeignKeyRawIdWidget, RelatedFieldWidgetWrapper
from django.db import DatabaseError, models
from django.db.models.base import ModelState
from django.db.models.functions import Cast
from django.forms.boundfield import BoundField
from django.forms.models import BaseInlineFormSet
from django.forms.utils import ErrorDict
from django.utils.choices import flatten_choices
from django.utils.crypto import constant_time_compare, salted_hmac
from django.utils.html import format_html

STORED = "stored_"  # Prefix of the attribute with a field's exact text in the database.
LONGEST = 300  # Characters of a value in a message.
GONE = (
    "Another client deleted this row after you opened the form, so your changes to it cannot be saved. "
    "Reopen the form, or undo these changes."
)


def with_stored_text(rows: models.QuerySet) -> models.QuerySet:
    """Return `rows` with the text of each editable column, read in the same statement as its value."""
    fields = [field for field in rows.model._meta.local_concrete_fields if field.editable]
    return rows.annotate(**{STORED + field.name: Cast(field.name, models.TextField()) for field in fields})


def require_row(row: models.Model) -> None:
    """Raise DatabaseError unless the added row is in its table, because a trigger or a policy may skip it silently."""
    if not type(row)._base_manager.filter(pk=row.pk).exists():
        raise DatabaseError("The row was not added.")


def _widget(field: forms.Field) -> Any:
    widget: Any = field.widget
    return widget.widget if isinstance(widget, RelatedFieldWidgetWrapper) else widget


def _text(value: Any, widget: Any) -> str:
    """Return a value with its line ends as browsers send them; a single-line input drops them."""
    end = "" if isinstance(widget, ForeignKeyRawIdWidget) else "\n"
    return "" if value is None else str(value).replace("\r\n", "\n").replace("\r", "\n").replace("\n", end)


def untouched(field: forms.Field, initial: Any) -> list[str]:
    """Return what a browser sends for a field that displays `initial`."""
    widget, value = _widget(field), field.prepare_value(initial)
    if isinstance(widget, forms.CheckboxInput):
        return [str(widget.check_test(value))]
    if isinstance(widget, forms.MultiWidget):
        pairs = zip(widget.widgets, widget.decompress(value) or (), strict=True)
        return [_text(part.format_value(one), part) for part, one in pairs]
    formatted = widget.format_value(value)
    if not isinstance(widget, forms.widgets.ChoiceWidget):
        return [_text(formatted, widget)]
    chosen = [_text(one, widget) for one in formatted]
    return sorted(chosen) if widget.allow_multiple_selected else chosen[:1] or [""]


def submitted(field: forms.Field, data: Any) -> list[str]:
    """Return what a browser sent for a field, comparable to `untouched`."""
    widget = _widget(field)
    if isinstance(widget, forms.widgets.ChoiceWidget) and widget.allow_multiple_selected:
        return sorted(_text(one, widget) for one in data or ())
    return [_text(one, widget) for one in (data if isinstance(data, list | tuple) else [data])]


class DisplayedField(BoundField):
    """A field of an `EditForm`, rendered with its two digests."""

    form: Any

    def __str__(self):
        html = super().__str__()
        if self.name not in self.form.watched:
            return html
        mark = ".".join(self.form.mark_of(self.name))
        return html + format_html('<input type="hidden" name="{}" value="{}">', self.form.mark_name(self.name), mark)

    __html__ = __str__

    def _has_changed(self):
        form = self.form
        if self.name not in form.watched:
            return super()._has_changed()  # type: ignore[misc]
        if form.marks and self.name not in form.marks:
            return False  # It was not displayed.
        sent = submitted(self.field, self.data)
        if form.marks:
            same = constant_time_compare(form.marks[self.name][1], form.digest(self.name, "sent", sent))
        else:
            same = sent == untouched(self.field, self.initial)
        return not same and (form.is_gone or super()._has_changed())  # type: ignore[misc]

    def value(self):
        if self.form.marks and self.name in self.form.watched and self.name not in self.form.marks:
            return self.field.prepare_value(self.initial)  # The field was not displayed, so nothing was sent.
        return super().value()

    def readable(self, sent: list[str]) -> str:
        """Return a submitted value, or the stored one as it would be submitted, for a message."""
        choices: Any = getattr(_widget(self.field), "choices", ())
        known: dict[Any, Any] = dict(flatten_choices(choices)) if choices else {}
        labels = {str(value): str(label) for value, label in known.items()}
        if isinstance(_widget(self.field), forms.CheckboxInput):
            labels = {"True": "yes", "False": "no"}
        between = " " if isinstance(_widget(self.field), forms.MultiWidget) else ", "
        text = between.join(labels.get(one, one) for one in sent)
        return (text if len(text) <= LONGEST else f"{text[:LONGEST]}…") or "nothing"


class DeletedRow(ModelState):
    """The displayed state of a row that no longer exists."""


class EditFormSet(BaseInlineFormSet):
    """Forms of rows, some of which another client may have deleted since they were displayed."""

    def _existing_object(self, pk):
        row = super()._existing_object(pk)  # type: ignore[misc]
        if row is None:
            row = self.model(pk=pk)  # type: ignore[misc]
            row._state = DeletedRow()
        return row

    def get_queryset(self):
        """Return the rows of the submitted forms, once these are built."""
        if self.is_bound and "forms" in self.__dict__:
            return [form.instance for form in self.initial_forms]
        return super().get_queryset()


class EditForm(forms.ModelForm):
    """A form that writes the fields a person changed, and refuses those that another client changed meanwhile.

    It needs rows read by `with_stored_text`, and locked if the form is saved (saving.py). In a form submitted without its digests (not by a
    browser), the changed fields are those that differ from the stored row.
    """

    bound_field_class = DisplayedField

    @property
    def is_gone(self) -> bool:
        """Return whether the row was deleted after the form was displayed."""
        return isinstance(self.instance._state, DeletedRow)

    @cached_property
    def watched(self) -> set[str]:
        """Return the names of the fields of a stored row, none for a new row."""
        if self.is_gone:
            return {*self.marks} & {*self.fields}
        if self.instance._state.adding:
            return set()
        many = {field.name for field in self.instance._meta.many_to_many}
        return {name for name in self.fields if name in many or STORED + name in self.instance.__dict__}

    def mark_name(self, name: str) -> str:
        return f"shown-{self.add_prefix(name)}"

    @cached_property
    def marks(self) -> dict[str, tuple[str, str]]:
        """Return the submitted digests: of the stored value and of the untouched field."""
        if not self.is_bound:
            return {}
        options = self.instance._meta
        names = [field.name for field in (*options.local_fields, *options.many_to_many)]
        sent = {name: self.data[self.mark_name(name)] for name in names if self.mark_name(name) in self.data}
        return {name: tuple(f"{mark}.".split(".")[:2]) for name, mark in sent.items()}  # type: ignore[misc]

    def digest(self, name: str, kind: str, value: Any) -> str:
        text = json.dumps([self.instance._meta.label, str(self.instance.pk), name, kind, value])
        return salted_hmac("fly2any.administration.edits", text, algorithm="sha256").hexdigest()[:32]

    def mark_of(self, name: str) -> tuple[str, str]:
        """Return the digests to render: the submitted ones, which describe the displayed values, except for refused changes."""
        if name in self.marks and name not in self.conflicts:
            return self.marks[name]
        return self._stored(name), self.digest(name, "sent", untouched(self.fields[name], self[name].initial))

    def _stored(self, name: str) -> str:
        own = self.instance.__dict__
        return self.digest(
            name, "stored", own[STORED + name] if STORED + name in own else untouched(self.fields[name], self.initial[name])
        )

    @cached_property
    def conflicts(self) -> list[str]:
        """Return the fields that both the person and another client changed."""
        if self.is_gone:
            return []
        changed = [name for name in self.changed_data if name in self.watched and name in self.marks]
        return [name for name in changed if not constant_time_compare(self.marks[name][0], self._stored(name))]

    @cached_property
    def _kept(self) -> set[str]:
        return self.watched - set(self.changed_data)

    def full_clean(self):
        """Treat the form of a deleted row as unchanged, unless a field was changed."""
        if not self.is_gone:
            super().full_clean()
            return
        self._errors, self.cleaned_data = ErrorDict(renderer=self.renderer), {}
        if not self.marks or self.watched & {*self.changed_data}:
            self.add_error(None, GONE)

    def _clean_fields(self):
        fields = self.fields
        self.fields = {name: field for name, field in fields.items() if name not in self._kept}
        try:
            super()._clean_fields()  # type: ignore[misc]
        finally:
            self.fields = fields
        for name in self.changed_data:
            value, before = self.cleaned_data.get(name), self.initial.get(name)
            if isinstance(value, str) and not (isinstance(before, str) and "\r\n" in before):
                self.cleaned_data[name] = value.replace("\r\n", "\n")
        for name in self.conflicts:
            field: Any = self[name]
            theirs, ours = (
                field.readable(untouched(field.field, field.initial)),
                field.readable(submitted(field.field, field.data)),
            )
            self.add_error(
                name,
                f"Another client changed this to “{theirs}” after you opened the form; you entered “{ours}”. Save again to replace it.",
            )
        for name in self.marks:
            if name not in self.fields:
                label = self.instance._meta.get_field(name).verbose_name
                self.add_error(
                    None, f"The {label} can no longer be edited here, and stays as it is. Save again to save the rest."
                )

    def _get_validation_exclusions(self):
        return super()._get_validation_exclusions() | self._kept  # type: ignore[misc]

    def is_multipart(self):
        """Return True, so that browsers send each byte as one, not percent-encoded as three."""
        return True

    def write(self) -> None:
        """Write a new row, or the changed columns of a stored one and the time of the change; without changes, write nothing."""
        if self.instance._state.adding:
            self.instance.save()
            require_row(self.instance)
            return
        changed = {*self.changed_data} & {field.name for field in self.instance._meta.local_concrete_fields}
        if changed:
            times = [field.name for field in self.instance._meta.local_fields if getattr(field, "auto_now", False)]
            self.instance.save(update_fields=[*changed, *times])

    def save(self, commit=True):
        super().save(commit=False)
        if commit:
            self.write()
            self._save_m2m()  # type: ignore[attr-defined]
        return self.instance
