"""How the schema's columns are edited in forms: choices are open, JSON is what PostgreSQL takes, empty is NULL."""

from __future__ import annotations

import json
import re

from django import forms
from django.contrib.admin.options import BaseModelAdmin
from django.contrib.admin.widgets import AdminTextInputWidget
from django.core.exceptions import ValidationError
from django.db import models
from django.forms.fields import InvalidJSONInput
from django.utils import timezone
from django.utils.choices import flatten_choices

from fly2any.postgres.values import is_deep


class OpenSelect(forms.Select):
    """A list that also offers the value that is there, where no choice names it."""

    def optgroups(self, name, value, attrs=None):
        groups = super().optgroups(name, value, attrs)
        known = {str(choice) for choice, _ in flatten_choices(self.choices)}
        for other in value:
            if other and other not in known:
                groups.append((None, [self.create_option(name, other, other, True, len(groups))], len(groups)))
        return groups


NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # Not after a backslash that is itself escaped.


class JSONFormField(forms.JSONField):
    """JSON that PostgreSQL takes, and that can be shown again."""

    def bound_data(self, data, initial):
        try:
            bound = super().bound_data(data, initial)
            json.dumps(bound, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            return InvalidJSONInput(data)
        return bound

    def to_python(self, value):
        try:
            read = super().to_python(value)
            written = json.dumps(read, allow_nan=False, ensure_ascii=False)
            written.encode()
        except (ValueError, RecursionError):
            read, written = None, "\0"
        if "\0" in written or NUL.search(written) or is_deep(written):
            raise ValidationError("The database takes no such JSON: no NaN, no NUL, no half characters, 200 levels at most.")
        return read


class OpenChoiceField(forms.TypedChoiceField):
    """The columns have no constraint: what the site wrote stays, whether a choice names it or not."""

    widget = OpenSelect

    def valid_value(self, value):
        return True


class OpenModelForm(forms.ModelForm):
    def _get_validation_exclusions(self):
        chosen = {field.name for field in self._meta.model._meta.fields if field.choices}
        return super()._get_validation_exclusions() | chosen  # type: ignore[misc]


class SchemaForms(BaseModelAdmin):
    """How the schema's columns are edited: text in one line but for `long_texts`, empty is NULL, choices are open."""

    form = OpenModelForm
    formfield_overrides = {models.JSONField: {"form_class": JSONFormField}}
    long_texts: tuple[str, ...] = ()

    def formfield_for_manytomany(self, db_field, request, **kwargs):
        return super().formfield_for_manytomany(db_field, request, **{"widget": forms.CheckboxSelectMultiple, **kwargs})

    def formfield_for_choice_field(self, db_field, request, **kwargs):
        return super().formfield_for_choice_field(db_field, request, choices_form_class=OpenChoiceField, **kwargs)

    def formfield_for_dbfield(self, db_field, request, **kwargs):
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if type(db_field) is models.TextField and field and not db_field.choices and db_field.name not in self.long_texts:
            field.widget = AdminTextInputWidget()
        if field and isinstance(db_field, models.DateTimeField):
            if db_field.has_db_default():
                field.initial = timezone.now
            for part, widget in zip(("date", "time, UTC"), getattr(field.widget, "widgets", ()), strict=False):
                widget.attrs["aria-label"] = f"{db_field.verbose_name}: {part}"
        if field and isinstance(db_field, models.TextField) and db_field.null:
            field.empty_value = None  # type: ignore[attr-defined]  # The schema's empty is NULL.
        return field
